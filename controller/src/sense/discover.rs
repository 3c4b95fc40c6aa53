//! Which cgroups are workloads now: those that a rule names, those that `plimsoll exec` made, and containers of pods.
//!
//! Runs on a thread of its own: walking `/proc` can wait for a target's locks, which the pass must not.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use plimsoll_policy::config::ways::Means;
use plimsoll_policy::config::{Config, Find, Rule};
use plimsoll_policy::sample::Spec;

use crate::exec::xattrs;
use crate::kubernetes::PodRef;
use crate::ledger::release::subtree;
use crate::place::cgroup_in;

/// `exec` joins the cgroup that it made within milliseconds; on a machine that thrashes, within seconds.
const DESERTED_AFTER: Duration = Duration::from_secs(10);

/// What was found, by cgroup path below the root.
pub type Found = BTreeMap<String, Workload>;

/// One workload that was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Workload {
    /// How it may be treated.
    pub spec: Spec,
    /// By what means it can be asked to give memory back.
    pub means: Means,
    /// Ids of its cgroup (first) and of those below it: tasks count where they are.
    pub ids: Vec<u64>,
    /// The pod that it is a container of, where it is one.
    pub pod: Option<PodRef>,
}

/// What the configuration asked for and could not be had, in words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Discovery {
    /// The workloads.
    pub found: Found,
    /// Refusals: nested workloads, our own cgroup, processes that share a cgroup.
    pub refused: Vec<String>,
}

/// Looks for all workloads besides the containers of pods, and puts those to them.
#[must_use]
pub fn discover(config: &Config, own: &str, containers: Found) -> Discovery {
    let root = Path::new(&config.daemon.cgroup_root);
    let mut discovery = Discovery::default();
    let units = Units::walk_if_needed(config, root);
    for rule in &config.workloads {
        let paths = match &rule.find {
            Find::Cgroup(pattern) => by_glob(root, pattern),
            Find::Unit(unit) => units.paths(unit),
            Find::Process { command, user } => by_process(command, user.as_deref(), &mut discovery.refused),
        };
        let several = paths.len() > 1;
        for path in paths {
            let spec = spec(rule, &config.ladder.rungs, &path, several);
            discovery.add(path, spec, rule.ask.clone());
        }
    }
    for (path, (spec, means)) in started_by_exec(root, config) {
        discovery.add(path, spec, means);
    }
    discovery.add_containers(containers);
    discovery.refuse(own);
    // A cgroup that vanished since is none.
    discovery.found.retain(|path, workload| {
        workload.ids = ids(&root.join(path));
        !workload.ids.is_empty()
    });
    discovery
}

/// Inodes of a cgroup directory and those below it; empty where it is gone.
fn ids(dir: &Path) -> Vec<u64> {
    subtree(dir).iter().map_while(|dir| Some(fs::metadata(dir).ok()?.ino())).collect()
}

impl Discovery {
    /// The first rule wins.
    fn add(&mut self, path: String, spec: Spec, means: Means) {
        self.found.entry(path).or_insert_with(|| Workload { spec, means, ..Workload::default() });
    }

    /// A rule that names a container's cgroup says how it is treated; it is a pod's all the same.
    fn add_containers(&mut self, containers: Found) {
        for (path, container) in containers {
            let pod = container.pod.clone();
            self.found.entry(path).or_insert(container).pod = pod;
        }
    }

    /// Freezing or killing a cgroup takes all below it along, so workloads can't be nested, and ours is never one.
    fn refuse(&mut self, own: &str) {
        let paths: Vec<String> = self.found.keys().cloned().collect();
        for path in &paths {
            if path.is_empty() || is_within(own, path) {
                self.found.remove(path);
                self.refused.push(format!("cgroup {path:?} holds plimsoll itself"));
            } else if let Some(inner) = paths.iter().find(|other| *other != path && is_within(other, path)) {
                self.found.remove(path);
                self.refused.push(format!("cgroup {path:?} holds another workload, {inner:?}"));
            }
        }
    }
}

/// Whether `path` is `ancestor` or below it.
fn is_within(path: &str, ancestor: &str) -> bool {
    path.strip_prefix(ancestor).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn spec(rule: &Rule, rungs: &[plimsoll_policy::sample::Rung], path: &str, several: bool) -> Spec {
    let last = path.rsplit('/').next().unwrap_or(path);
    let name = match (rule.name.as_str(), several) {
        ("", _) => last.to_owned(),
        (name, false) => name.to_owned(),
        (name, true) => format!("{name}/{last}"),
    };
    Spec {
        name,
        priority: rule.priority,
        preference: rule.preference,
        rungs: rule.rungs.clone().unwrap_or_else(|| rungs.to_vec()),
        restart_cost_ms: rule.restart_cost.0 / 1_000_000,
        ..Spec::default()
    }
}

fn by_glob(root: &Path, pattern: &str) -> Vec<String> {
    let Some(pattern) = root.join(pattern.trim_start_matches('/')).to_str().map(str::to_owned) else {
        return Vec::new();
    };
    let options = glob::MatchOptions { require_literal_separator: true, ..Default::default() };
    // Patterns are checked with the configuration; a directory that vanishes meanwhile is no workload.
    glob::glob_with(&pattern, options)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|path| path.is_dir())
        .filter_map(|path| Some(path.strip_prefix(root).ok()?.to_str()?.to_owned()))
        .collect()
}

/// The cgroup directories that carry a systemd unit's name.
struct Units(Vec<String>);

impl Units {
    fn walk_if_needed(config: &Config, root: &Path) -> Self {
        if !config.workloads.iter().any(|rule| matches!(rule.find, Find::Unit(_))) {
            return Self(Vec::new());
        }
        let all = subtree(root);
        Self(all.iter().filter_map(|path| Some(path.strip_prefix(root).ok()?.to_str()?.to_owned())).collect())
    }

    fn paths(&self, unit: &str) -> Vec<String> {
        self.0.iter().filter(|path| path.rsplit('/').next() == Some(unit)).cloned().collect()
    }
}

/// Cgroups of the processes that match, provided that nothing else lives in them.
fn by_process(command: &str, user: Option<&str>, refused: &mut Vec<String>) -> Vec<String> {
    let uid = user.map(uid_of);
    if let (Some(None), Some(user)) = (uid, user) {
        refused.push(format!("there is no user {user:?}"));
        return Vec::new();
    }
    let mut groups: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for process in procfs::process::all_processes().into_iter().flatten().flatten() {
        // Processes that end while we look are passed over.
        let Some(path) = cgroup_of(process.pid()) else { continue };
        let (matching, all) = groups.entry(path).or_default();
        *all += 1;
        *matching += usize::from(matches(&process, command, uid.flatten()));
    }
    let mut paths = Vec::new();
    for (path, (matching, all)) in groups {
        if matching == 0 {
            continue;
        }
        if matching == all {
            paths.push(path);
        } else {
            refused.push(format!(
                "cgroup {path:?} holds {} processes besides those matching {command:?}",
                all - matching
            ));
        }
    }
    paths
}

fn matches(process: &procfs::process::Process, command: &str, uid: Option<u32>) -> bool {
    let owner = uid.is_none_or(|uid| process.uid().is_ok_and(|owner| owner == uid));
    owner && process.cmdline().is_ok_and(|args| args.join(" ").contains(command))
}

/// The cgroup v2 path of a process, without the leading slash.
#[must_use]
pub fn cgroup_of(pid: i32) -> Option<String> {
    cgroup_in(Path::new("/proc"), u32::try_from(pid).ok()?)
}

fn uid_of(user: &str) -> Option<u32> {
    if let Ok(uid) = user.parse() {
        return Some(uid);
    }
    let passwd = fs::read_to_string("/etc/passwd").ok()?;
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(user)).then(|| fields.nth(1))??.parse().ok()
    })
}

/// Whether a cgroup that `exec` made is empty, and not just made.
fn is_deserted(path: &Path) -> bool {
    let empty = fs::read_to_string(path.join("cgroup.events")).is_ok_and(|text| text.contains("populated 0"));
    let age = fs::metadata(path).and_then(|meta| meta.modified()).map(|at| at.elapsed().unwrap_or_default());
    empty && age.is_ok_and(|age| age >= DESERTED_AFTER)
}

/// What `plimsoll exec` started. A supervisor is there for it; what it leaves behind, an empty cgroup, is removed here.
fn started_by_exec(root: &Path, config: &Config) -> BTreeMap<String, (Spec, Means)> {
    let parent = root.join(&config.daemon.models);
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let (Some(name), Some(relative)) =
            (name.to_str(), path.strip_prefix(root).ok().and_then(Path::to_str))
        else {
            continue;
        };
        let Some(marked) = xattrs::read(&path, name, &config.ladder.rungs) else { continue };
        // An `rmdir` that fails says that somebody has moved in meanwhile.
        if is_deserted(&path) && fs::remove_dir(&path).is_ok() {
            continue;
        }
        found.insert(relative.to_owned(), marked);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(paths: &[&str]) -> (tempfile::TempDir, Config) {
        let dir = tempfile::tempdir().unwrap();
        for path in paths {
            fs::create_dir_all(dir.path().join(path)).unwrap();
        }
        let mut config = Config::default();
        config.daemon.cgroup_root = dir.path().to_str().unwrap().to_owned();
        (dir, config)
    }

    fn rule(name: &str, find: Find) -> Rule {
        Rule { name: name.into(), find, priority: 5, ..Rule::default() }
    }

    #[test]
    fn a_glob_stays_within_a_component_and_the_first_rule_wins() {
        let (_dir, mut config) = tree(&["models/a/x", "models/b", "other"]);
        config.workloads =
            vec![rule("b", Find::Cgroup("models/b".into())), rule("m", Find::Cgroup("models/*".into()))];
        let found = discover(&config, "plimsoll", Found::new()).found;
        let names: Vec<_> =
            found.iter().map(|(path, workload)| (path.as_str(), workload.spec.name.as_str())).collect();
        assert_eq!(names, [("models/a", "m/a"), ("models/b", "b")]);
    }

    #[test]
    fn a_unit_is_found_wherever_it_is() {
        let (_dir, mut config) =
            tree(&["system.slice/system-llm.slice/vllm.service", "system.slice/x.service"]);
        config.workloads = vec![rule("vllm", Find::Unit("vllm.service".into()))];
        let found = discover(&config, "plimsoll", Found::new()).found;
        assert_eq!(found.keys().collect::<Vec<_>>(), ["system.slice/system-llm.slice/vllm.service"]);
    }

    #[test]
    fn we_and_what_holds_another_workload_are_refused() {
        let (_dir, mut config) = tree(&["a/inner", "system/plimsoll.service"]);
        config.workloads =
            vec![rule("all", Find::Cgroup("*".into())), rule("i", Find::Cgroup("a/inner".into()))];
        let discovery = discover(&config, "system/plimsoll.service", Found::new());
        assert_eq!(discovery.found.keys().collect::<Vec<_>>(), ["a/inner"]);
        assert_eq!(discovery.refused.len(), 2, "{:?}", discovery.refused);
    }

    #[test]
    fn a_rule_says_how_a_container_is_treated_and_what_holds_one_is_refused() {
        let (_dir, mut config) = tree(&["kubepods/podx/1", "kubepods/podx/2"]);
        config.workloads = vec![
            rule("one", Find::Cgroup("kubepods/podx/1".into())),
            rule("p", Find::Cgroup("kubepods/podx".into())),
        ];
        let container = |name: &str| Workload {
            spec: Spec { name: name.into(), ..Spec::default() },
            pod: Some(PodRef { container: name.into(), ..PodRef::default() }),
            ..Workload::default()
        };
        let containers = Found::from([
            ("kubepods/podx/1".into(), container("a")),
            ("kubepods/podx/2".into(), container("b")),
        ]);
        let Discovery { found, refused } = discover(&config, "plimsoll", containers);
        let seen: Vec<_> = found
            .values()
            .map(|workload| (workload.spec.name.as_str(), workload.pod.as_ref().unwrap().container.as_str()))
            .collect();
        assert_eq!(seen, [("one", "a"), ("b", "b")]);
        assert_eq!(refused.len(), 1, "{refused:?}");
    }

    #[test]
    fn this_process_is_found_by_its_command_line_only_where_it_is_alone() {
        let mut refused = Vec::new();
        let paths = by_process("no such command line anywhere", None, &mut refused);
        assert_eq!((paths.len(), refused.len()), (0, 0));
        by_process("x", Some("no-such-user"), &mut refused);
        assert_eq!(refused, ["there is no user \"no-such-user\""]);
    }
}
