//! What is allowed and most likely not meant.

use super::Config;
use crate::sample::{Preference, Rung};

/// Sentences for people who check a configuration; none of them is an error.
#[must_use]
pub fn advise(config: &Config) -> Vec<String> {
    let rules = &config.workloads;
    let least = config.protect_priority;
    let protected = |priority: i32| priority >= least;
    let mut advice = Vec::new();
    if rules.is_empty() {
        advice.push("there are no rules: only what `plimsoll exec` starts is a workload".into());
    } else if !rules.iter().any(|rule| protected(rule.priority)) {
        advice.push(format!(
            "no rule has a priority of {least} (protect_priority) or more: nothing is protected"
        ));
    } else if rules.iter().all(|rule| protected(rule.priority) || rule.preference == Preference::Omit) {
        advice.push("every workload is protected: there is nothing to take memory from".into());
    }
    let dry = &config.ladder.dry_run;
    if dry.is_whole() {
        advice.push("ladder.dry_run is on: nothing will be touched".into());
    } else if !dry.is_off() {
        advice.push(format!("ladder.dry_run: {dry} will only be talked about, not done"));
    }
    if !config.ladder.rungs.contains(&Rung::Kill) {
        advice.push(
            "ladder.rungs lacks kill: when nothing gentler is left, the kernel's OOM killer decides".into(),
        );
    }
    for sized in &config.by_size {
        let errors = sized.host.as_ref().err().into_iter().flatten();
        advice.extend(errors.map(|error| format!("on hosts {} it is refused: {error}", sized.size)));
    }
    advice
}

#[cfg(test)]
mod tests {
    use super::super::{Find, Node, Rule, read};
    use super::*;
    use crate::units::Bytes;

    fn with(priorities: &[i32]) -> Vec<String> {
        let rule = |priority: &i32| Rule {
            name: format!("p{priority}"),
            find: Find::Cgroup(format!("p{priority}")),
            priority: *priority,
            ..Rule::default()
        };
        advise(&Config { workloads: priorities.iter().map(rule).collect(), ..Config::default() })
    }

    #[test]
    fn what_is_refused_on_hosts_of_another_size_is_noted() {
        let tree = |text: &str| {
            Node::Map(vec![("critical".into(), Node::Map(vec![("used".into(), Node::Text(text.into()))]))])
        };
        let config =
            |text| read(&Node::Map(vec![("host".into(), tree(text))])).expect("valid on small hosts");
        let notes = |text| {
            advise(&config(text)).into_iter().filter(|n| n.starts_with("on hosts")).collect::<Vec<_>>()
        };
        let note = "on hosts of 256GiB and more it is refused: \
                    host.critical.leave: is 97.5%, which has to be below `used`, 96%";
        assert_eq!(notes("96%"), [note]);
        assert_eq!(notes("97.8%"), [""; 0]);
        assert!(config("96%").resolve(Bytes::mib(1 << 20)).is_err());
        assert!(config("96%").resolve(Bytes::mib(1 << 10)).is_ok());
    }

    #[test]
    fn a_node_needs_both_kinds_of_workload() {
        assert_eq!(with(&[2000, 0]), Vec::<String>::new());
        assert!(with(&[])[0].contains("no rules"));
        assert!(with(&[10, 0])[0].contains("nothing is protected"));
        assert!(with(&[2000, 1000])[0].contains("nothing to take memory from"));
    }
}
