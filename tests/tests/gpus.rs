//! GPUs through the real loader: a driver that behaves as the tests say, with devices, processes and errors that come and go.
#![expect(clippy::unwrap_used, reason = "helpers of tests: what can't go on shall say where, and no more")]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nvidia_ml::{Gpu, Instance, NAME, Process, State, Tells, Xid, state_of, steer};
use plimsoll::act::mail::{Inbox, Message, mail};
use plimsoll::sense::gpu::{Feed, Held, Places, Snapshot};
use plimsoll_policy::gpu::GpuId;
use plimsoll_policy::sample::Trigger;
use plimsoll_policy::units::Bytes;

const PACE: Duration = Duration::from_millis(20);
const GIB: u64 = 1 << 30;

/// The library in a directory of its own, and trees in which the cgroups of processes are.
struct World {
    dir: tempfile::TempDir,
    children: Vec<Child>,
}

impl World {
    fn new(gpus: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        // cargo puts libraries of the workspace beside the tests.
        let built = std::env::current_exe().unwrap().with_file_name("libnvidia_ml.so");
        fs::copy(built, dir.path().join(NAME)).unwrap();
        let this = Self { dir, children: Vec::new() };
        this.steer(|state| state.gpus = gpus.iter().map(|id| gpu(id)).collect());
        this
    }

    fn library(&self) -> PathBuf {
        self.dir.path().join(NAME)
    }

    fn steer<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        steer(&state_of(&self.library()), change).unwrap()
    }

    /// A real process, in this cgroup as far as anybody can see.
    fn process(&mut self, cgroup: &str) -> u32 {
        let child = Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = child.id();
        self.children.push(child);
        let proc = self.dir.path().join("proc").join(pid.to_string());
        fs::create_dir_all(&proc).unwrap();
        fs::write(proc.join("cgroup"), format!("0::/{cgroup}\n")).unwrap();
        fs::create_dir_all(self.cgroup(cgroup)).unwrap();
        pid
    }

    fn kill(&mut self, pid: u32) {
        let child = self.children.iter_mut().find(|child| child.id() == pid).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    fn cgroup(&self, path: &str) -> PathBuf {
        self.dir.path().join("cgroup").join(path)
    }

    fn inode(&self, path: &str) -> u64 {
        fs::metadata(self.cgroup(path)).unwrap().ino()
    }

    fn places(&self) -> Places {
        let at = |name: &str| self.dir.path().join(name);
        let nvml = Some(self.library().display().to_string());
        Places { proc: at("proc"), sys: at("sys"), cgroup: at("cgroup"), nvml }
    }

    fn feed(&self) -> (Feed, Inbox) {
        let (mail, inbox) = mail().unwrap();
        (Feed::start(self.places(), PACE, mail).unwrap(), inbox)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn gpu(id: &str) -> Gpu {
    let (name, bus_id) = ("Fake H100".into(), format!("00000000:{}:00.0", &id[4..]));
    Gpu { uuid: id.into(), name, bus_id, total: 80 * GIB, reserved: GIB, ..Gpu::default() }
}

fn see(feed: &Feed, what: &str, seen: impl Fn(&Snapshot) -> bool) -> Arc<Snapshot> {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let latest = feed.latest();
        if seen(&latest) {
            return latest;
        }
        assert!(Instant::now() < end, "waited in vain: {what}\n{latest:#?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until a pass is asked for.
fn woken(inbox: &Inbox) {
    let end = Instant::now() + Duration::from_secs(20);
    while !inbox.drain().contains(&Message::Woke(Trigger::Gpu)) {
        assert!(Instant::now() < end, "no pass was asked for");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn id(text: &str) -> GpuId {
    text.into()
}

fn held(gpu: &str, gib: Option<u64>) -> Held {
    [(id(gpu), gib.map(|gib| Bytes(gib * GIB)))].into()
}

#[test]
fn memory_follows_processes_and_their_cgroups() {
    let mut world = World::new(&["GPU-01", "GPU-02"]);
    let (server, runner) = (world.process("models/chat"), world.process("models/chat/runner"));
    let (feed, inbox) = world.feed();
    let first = feed.latest();
    assert_eq!(first.gpus.len(), 2);
    let one = &first.gpus[&id("GPU-01")];
    assert_eq!(
        (one.total, one.used),
        (Some(Bytes(80 * GIB)), Some(Bytes(GIB))),
        "what the driver keeps is used"
    );
    assert!(!one.lost && !one.unified && first.gaps.is_empty() && one.name == "Fake H100");
    woken(&inbox);

    world.steer(|state| {
        state.gpu("GPU-01").unwrap().hold(server, 10 * GIB);
        state.gpu("GPU-01").unwrap().hold(runner, 20 * GIB);
        state.gpu("GPU-02").unwrap().hold(runner, 5 * GIB);
    });
    let now = see(&feed, "30 GiB in use", |look| look.gpus[&id("GPU-01")].used == Some(Bytes(31 * GIB)));
    let both = [held("GPU-01", Some(30)), held("GPU-02", Some(5))].into_iter().flatten().collect::<Held>();
    assert_eq!(now.held[&world.inode("models/chat")], both);
    assert_eq!(now.held[&world.inode("models")], both);
    assert_eq!(now.held[&world.inode("models/chat/runner")][&id("GPU-01")], Some(Bytes(20 * GIB)));
    woken(&inbox);

    world.kill(runner);
    let now =
        see(&feed, "the dead hold nothing", |look| look.gpus[&id("GPU-01")].used == Some(Bytes(11 * GIB)));
    assert_eq!(now.held[&world.inode("models/chat")], held("GPU-01", Some(10)));
}

#[test]
fn what_nobody_knows_is_not_nothing() {
    let mut world = World::new(&["GPU-01"]);
    let (a, b, c) = (world.process("a"), world.process("b"), world.process("c"));
    let process = |pid, tells| Process { pid, bytes: GIB, tells, ..Process::default() };
    world.steer(|state| {
        state.gpus[0].processes = vec![
            process(a, Tells::NotAvailable),
            process(b, Tells::Nothing),
            // It is listed twice, and holds it once.
            Process { graphics: true, ..process(c, Tells::Bytes) },
        ];
    });
    let (feed, _inbox) = world.feed();
    let look = feed.latest();
    assert_eq!(look.held[&world.inode("a")], held("GPU-01", None));
    assert_eq!(look.held[&world.inode("b")], held("GPU-01", None));
    assert_eq!(look.held[&world.inode("c")], held("GPU-01", Some(1)));
}

#[test]
fn a_lost_gpu_blinds_no_other_and_can_come_back() {
    let mut world = World::new(&["GPU-01", "GPU-02"]);
    let pid = world.process("a");
    world.steer(|state| state.gpus.iter_mut().for_each(|gpu| gpu.hold(pid, 4 * GIB)));
    let (feed, inbox) = world.feed();
    assert!(!feed.latest().gpus[&id("GPU-01")].lost);
    inbox.drain();
    world.steer(|state| state.gpus[0].error = Some("gpu_is_lost".into()));
    let look = see(&feed, "it is lost", |look| look.gpus[&id("GPU-01")].lost);
    assert_eq!(look.gpus[&id("GPU-01")].used, None);
    assert_eq!(look.gpus[&id("GPU-02")].used, Some(Bytes(5 * GIB)));
    let mine = &look.held[&world.inode("a")];
    assert_eq!((mine[&id("GPU-01")], mine[&id("GPU-02")]), (None, Some(Bytes(4 * GIB))));
    assert!(look.gaps.iter().any(|gap| gap.what == "gpu:GPU-01"), "{:?}", look.gaps);
    woken(&inbox);

    world.steer(|state| state.gpus[0].error = Some("unknown".into()));
    see(&feed, "it is there, and says nothing", |look| {
        let gpu = &look.gpus[&id("GPU-01")];
        !gpu.lost && gpu.used.is_none() && gpu.name == "Fake H100"
    });
    world.steer(|state| state.gpus[0].error = None);
    let look = see(&feed, "it is back", |look| look.gpus[&id("GPU-01")].used == Some(Bytes(5 * GIB)));
    assert!(look.gaps.is_empty());
}

#[test]
fn a_driver_that_goes_takes_all_gpus_along_until_it_is_back() {
    for error in ["driver_not_loaded", "lib_rm_version_mismatch"] {
        let world = World::new(&["GPU-01", "GPU-02"]);
        let (feed, _inbox) = world.feed();
        world.steer(|state| state.error = Some(error.into()));
        let look =
            see(&feed, "all are lost", |look| look.gpus.values().all(|gpu| gpu.lost && gpu.used.is_none()));
        assert_eq!(look.gpus.len(), 2);
        assert_eq!(look.gaps[0].what, "nvml");
        // Another driver, with other GPUs.
        world.steer(|state| {
            state.error = None;
            state.gpus[0] = gpu("GPU-03");
        });
        let look = see(&feed, "the driver is back", |look| look.gpus.contains_key(&id("GPU-03")));
        assert!(!look.gpus[&id("GPU-02")].lost && look.gaps.is_empty());
        assert!(look.gpus[&id("GPU-01")].lost, "nobody lists it any more");
    }
}

#[test]
fn a_driver_that_hangs_makes_nobody_wait() {
    let world = World::new(&["GPU-01"]);
    let (feed, _inbox) = world.feed();
    world.steer(|state| state.hangs = true);
    let mut last = feed.latest().at;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(1) {
        last = feed.latest().at;
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(feed.latest().at, last, "a look that has no end is no look");
    world.steer(|state| state.hangs = false);
    see(&feed, "it goes on", |look| look.at > last);
}

#[test]
fn errors_are_counted_and_the_one_that_says_lost_is_believed() {
    let world = World::new(&["GPU-01", "GPU-02"]);
    let (feed, _inbox) = world.feed();
    let raise = |gpu: &str, number| world.steer(|state| state.xids.push(Xid { gpu: gpu.into(), number }));
    // The thread that waits for errors begins after the first look.
    let counted = |gpu: &str, number| {
        let end = Instant::now() + Duration::from_secs(20);
        while !feed.xids().counts().contains_key(&(id(gpu), number)) {
            assert!(Instant::now() < end, "waited in vain for {number}: {:?}", feed.xids().counts());
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    std::thread::sleep(Duration::from_millis(200));
    raise("GPU-01", 31);
    counted("GPU-01", 31);
    raise("GPU-01", 7777);
    counted("GPU-01", 0);
    raise("GPU-02", 79);
    counted("GPU-02", 79);
    let look = see(&feed, "it fell off the bus", |look| look.gpus[&id("GPU-02")].lost);
    assert!(!look.gpus[&id("GPU-01")].lost);
    // A new beginning finds it well.
    see(&feed, "it is back", |look| !look.gpus[&id("GPU-02")].lost);
    assert_eq!(feed.xids().counts().len(), 3);
}

#[test]
fn mig_instances_have_budgets_of_their_own() {
    let mut world = World::new(&["GPU-01"]);
    let (a, b) = (world.process("a"), world.process("b"));
    let instance = |uuid: &str, gpu_instance, pid| Instance {
        uuid: uuid.into(),
        total: 10 * GIB,
        gpu_instance,
        processes: vec![Process { pid, bytes: 3 * GIB, ..Process::default() }],
    };
    // The last two share the memory of one GPU instance.
    let instances = vec![instance("MIG-a", 1, a), instance("MIG-b", 2, a), instance("MIG-c", 2, b)];
    world.steer(|state| state.gpus[0].instances = Some(instances));
    let (feed, _inbox) = world.feed();
    let look = feed.latest();
    assert_eq!(look.gpus.keys().cloned().collect::<Vec<_>>(), [id("MIG-a"), id("MIG-b")]);
    assert_eq!(look.gpus[&id("MIG-a")].used, Some(Bytes(3 * GIB)));
    assert_eq!(look.held[&world.inode("b")], held("MIG-b", Some(3)));
    world.steer(|state| state.gpus[0].instances = None);
    let look = see(&feed, "it is whole again", |look| look.gpus.contains_key(&id("GPU-01")));
    assert_eq!(look.gpus.len(), 1, "an instance that was given up is not lost");
}

#[test]
fn a_gpu_without_memory_of_its_own_is_the_hosts() {
    let world = World::new(&["GPU-01"]);
    world.steer(|state| state.gpus[0].integrated = true);
    let (feed, _inbox) = world.feed();
    let look = feed.latest();
    assert!(look.gpus[&id("GPU-01")].unified && look.gaps.is_empty());
}

#[test]
fn check_says_what_is_there_and_what_is_missing() {
    let mut world = World::new(&["GPU-01", "GPU-02"]);
    let pid = world.process("a");
    let said = |world: &World| -> Vec<(String, bool)> {
        let all = plimsoll::check::gpus(&world.places());
        all.iter().map(|one| (one.name.clone(), one.available())).collect()
    };
    let there = |name: &str, available| (name.to_owned(), available);
    assert_eq!(said(&world), [there("gpu", true), there("gpu_processes", true)]);
    let process = Process { pid, bytes: GIB, tells: Tells::NotAvailable, ..Process::default() };
    world.steer(|state| state.gpus[0].processes.push(process));
    assert_eq!(said(&world), [there("gpu", true), there("gpu_processes", false)]);
    world.steer(|state| state.gpus[1].integrated = true);
    assert!(said(&world).contains(&there("unified_memory", true)));
    world.steer(|state| state.error = Some("lib_rm_version_mismatch".into()));
    assert!(said(&world).is_empty(), "no driver is loaded: nothing is missing");
    fs::create_dir_all(world.dir.path().join("proc/driver/nvidia")).unwrap();
    fs::write(world.dir.path().join("proc/driver/nvidia/version"), "NVRM version: x\n").unwrap();
    assert_eq!(said(&world), [there("gpu", false)]);
    assert!(plimsoll::check::gpus(&world.places())[0].detail.contains("mismatch"));
}

#[test]
fn a_host_without_the_library_has_no_gpus_and_no_gaps() {
    let world = World::new(&["GPU-01"]);
    let (mail, inbox) = mail().unwrap();
    let places = Places { nvml: Some("libno-such-thing.so.1".into()), ..world.places() };
    let feed = Feed::start(places, PACE, mail).unwrap();
    let look = feed.latest();
    assert!(look.gpus.is_empty() && look.gaps.is_empty() && inbox.drain().is_empty());
}
