//! Against a program that behaves like `cuda-checkpoint`, in all the ways that it fails.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::{Duration, Instant};

use plimsoll_policy::units::Span;

use super::*;

/// Keeps a state for each process in a file, and a log of its calls. What a process copies it copies by itself, with or without this
/// program, and until then it says nothing of its state. A file `fail-ACTION-PID` makes it refuse, `wreck-ACTION-PID` leaves the process
/// failed, `slow-ACTION-PID` has the seconds that a copy takes, `leave-ACTION-PID` leaves a child that holds its pipes, and `mute-PID`
/// is a process of which nothing can be read.
const PROGRAM: &str = r#"#!/bin/sh
dir=$(dirname "$0")
while [ $# -gt 0 ]; do
  case "$1" in
    --pid) pid=$2; shift;;
    --action) action=$2; shift;;
    --timeout) shift;;
    --get-state) action=state;;
  esac
  shift
done
no() { echo "Could not $action on process ID $pid: \"$1\"" >&2; exit 1; }
copied() { while [ -e "$dir/copies-$pid" ]; do sleep 0.02; done; }
if [ ! -e "$dir/proc/$pid" ] || [ -e "$dir/mute-$pid" ]; then
  echo "Error getting process state for process ID $pid: \"initialization error\"" >&2; exit 1
fi
if [ "$action" = state ]; then copied; cat "$dir/state-$pid" 2>/dev/null || echo running; exit 0; fi
state=$(cat "$dir/state-$pid" 2>/dev/null || echo running)
echo "$action $pid" >> "$dir/log"
if [ -e "$dir/fail-$action-$pid" ]; then no "it says no"; fi
if [ -e "$dir/wreck-$action-$pid" ]; then echo failed > "$dir/state-$pid"; no "unknown error"; fi
if [ -e "$dir/leave-$action-$pid" ]; then sleep 60 & fi
case "$state $action" in
  "running lock") new=locked;;
  "locked checkpoint") new=checkpointed;;
  "checkpointed restore") new=locked;;
  "locked unlock") new=running;;
  *) no "the operation cannot be performed in the present state";;
esac
slow=$(cat "$dir/slow-$action-$pid" 2>/dev/null || echo 0)
if [ "$slow" = 0 ]; then echo $new > "$dir/state-$pid"; exit 0; fi
touch "$dir/copies-$pid"
setsid sh -c "sleep $slow; echo $new > '$dir/state-$pid'; rm '$dir/copies-$pid'" >/dev/null 2>&1 &
copied
"#;

/// A workload whose processes have these pids, and the program.
struct World(tempfile::TempDir);

impl World {
    fn new(pids: &[u32]) -> Self {
        let this = Self(tempfile::tempdir().unwrap());
        let program = this.path("cuda-checkpoint");
        fs::write(&program, PROGRAM).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir_all(this.path("cgroup/a")).unwrap();
        let list: String = pids.iter().map(|pid| format!("{pid}\n")).collect();
        this.write("cgroup/a/cgroup.procs", &list);
        this.frozen(0);
        this.write(
            "proc/driver/nvidia/version",
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86.15  x\n",
        );
        this.write("proc/meminfo", "MemTotal: 9 kB\nMemAvailable:   4194304 kB\n");
        for pid in pids {
            this.process(*pid, *pid, "7f00-7fff r-xp 00000000 08:01 42 /usr/lib/libcuda.so.570.86.15\n");
        }
        this
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn write(&self, path: &str, text: &str) {
        fs::create_dir_all(self.path(path).parent().unwrap()).unwrap();
        fs::write(self.path(path), text).unwrap();
    }

    fn process(&self, pid: u32, leader: u32, maps: &str) {
        self.write(&format!("proc/{pid}/maps"), maps);
        self.write(&format!("proc/{pid}/status"), &format!("Name:\tx\nTgid:\t{leader}\nPid:\t{pid}\n"));
        let before = "0 ".repeat(18);
        self.write(&format!("proc/{pid}/stat"), &format!("{pid} (a b) S {before}77 0\n"));
        self.write(&format!("proc/{pid}/environ"), "HOME=/\0");
    }

    fn frozen(&self, frozen: u8) {
        self.write("cgroup/a/cgroup.events", &format!("populated 1\nfrozen {frozen}\n"));
    }

    fn way(&self, several: bool) -> Checkpoint {
        let program = self.path("cuda-checkpoint").display().to_string();
        let config = CudaCheckpoint { program, several, lock: Span::millis(500) };
        let root = self.path("cgroup");
        let cgroup = Arc::new(Cgroup::open(&root, "a").unwrap());
        let Checkpoint(shared) = Checkpoint::new(config, cgroup, &root);
        let mut shared = Arc::into_inner(shared).unwrap();
        (shared.proc, shared.tool.copy) = (self.path("proc"), Duration::from_secs(60));
        Checkpoint(Arc::new(shared))
    }

    fn states(&self, pids: &[u32]) -> Vec<String> {
        let state = |pid| fs::read_to_string(self.path(&format!("state-{pid}"))).unwrap_or("running".into());
        pids.iter().map(|pid| state(pid).trim().to_owned()).collect()
    }

    fn log(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path("log")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

fn asking(level: Level, deadline: Duration) -> Asking {
    let (gpus, wanted) = (vec!["GPU-0".into()], 1 << 30);
    Asking { number: 1, level, gpus, wanted, deadline, reason: String::new() }
}

fn ask(way: &Checkpoint, level: Level) -> Result<Answered, WayError> {
    let deadline = Duration::from_secs(5);
    way.0.ask(&asking(level, deadline), &Patience::within(deadline))
}

/// Asks like the asker does, who is gone as soon as a process is being copied.
async fn ask_until_copied(world: &World, way: &Checkpoint, level: Level) {
    let asking = asking(level, Duration::from_secs(60));
    let copied = async {
        while !world.path("copies-10").exists() {
            tokio::time::sleep(NAP).await;
        }
    };
    tokio::select! {
        answered = way.ask(&asking) => panic!("{answered:?}"),
        () = copied => {}
    }
}

/// Waits until it offers something again.
fn offered(way: &Checkpoint) -> Option<Level> {
    for _ in 0..500 {
        if let Ok(Offer { level: Some(level), .. }) = way.0.offer() {
            return Some(level);
        }
        sleep(NAP);
    }
    None
}

fn refused(result: Result<Answered, WayError>, words: &str) {
    let error = result.unwrap_err().to_string();
    assert!(error.contains(words), "{error}");
}

#[test]
fn all_are_locked_before_any_is_copied_and_restored_before_any_goes_on() {
    let world = World::new(&[10, 11]);
    let way = world.way(true);
    assert_eq!(way.0.offer().unwrap().level, Some(Level::Nothing));
    ask(&way, Level::Offload).unwrap();
    assert_eq!(world.states(&[10, 11]), ["checkpointed", "checkpointed"]);
    assert_eq!(way.0.offer().unwrap().level, Some(Level::Offload));
    ask(&way, Level::Offload).unwrap();
    ask(&way, Level::Nothing).unwrap();
    assert_eq!(world.states(&[10, 11]), ["running", "running"]);
    let out = ["lock 10", "lock 11", "checkpoint 10", "checkpoint 11"];
    let back = ["restore 10", "restore 11", "unlock 10", "unlock 11"];
    assert_eq!(world.log(), [out, back].concat());
}

#[test]
fn a_refusal_is_undone() {
    for step in ["lock", "checkpoint"] {
        let world = World::new(&[10, 11]);
        world.write(&format!("fail-{step}-11"), "");
        let way = world.way(true);
        refused(ask(&way, Level::Offload), "it says no");
        assert_eq!(world.states(&[10, 11]), ["running", "running"], "{step}");
        assert!(way.0.offer().unwrap().levels.contains_key(&Level::Offload), "it may be tried again");
    }
}

#[test]
fn a_wreck_is_never_touched_again() {
    let world = World::new(&[10, 11]);
    world.write("wreck-checkpoint-11", "");
    let way = world.way(true);
    assert!(ask(&way, Level::Offload).is_err());
    assert_eq!(world.states(&[10, 11]), ["running", "failed"], "the others go on");
    let before = world.log();
    refused(ask(&way, Level::Offload), "process 11 is failed");
    refused(ask(&way, Level::Nothing), "process 11 is failed");
    assert!(way.0.offer().unwrap_err().to_string().contains("process 11"));
    assert_eq!(world.log(), before);
    // Another process with its number is another one.
    let stat = format!("11 (a b) S {}99 0\n", "0 ".repeat(18));
    world.write("proc/11/stat", &stat);
    world.write("state-11", "running\n");
    assert!(way.0.offer().unwrap().levels.contains_key(&Level::Offload));
}

#[tokio::test]
async fn a_copy_that_outlasts_its_asking_is_finished_and_stays() {
    let world = World::new(&[10, 11]);
    world.write("slow-checkpoint-10", "1");
    let way = world.way(true);
    ask_until_copied(&world, &way, Level::Offload).await;
    assert_eq!(way.0.offer().unwrap(), Offer::default(), "it is still under way");
    assert_eq!(offered(&way), Some(Level::Offload));
    assert_eq!(world.states(&[10, 11]), ["checkpointed", "checkpointed"]);
    ask(&way, Level::Offload).unwrap();
    ask(&way, Level::Nothing).unwrap();
    assert_eq!(world.states(&[10, 11]), ["running", "running"]);
    let out = ["lock 10", "lock 11", "checkpoint 10", "checkpoint 11"];
    let back = ["restore 10", "restore 11", "unlock 10", "unlock 11"];
    assert_eq!(world.log(), [out, back].concat(), "nothing is moved twice");
}

#[tokio::test]
async fn a_restore_that_outlasts_its_asking_is_finished_and_what_nobody_waits_for_is_not_begun() {
    let world = World::new(&[10]);
    let way = world.way(false);
    ask(&way, Level::Offload).unwrap();
    world.write("slow-restore-10", "2");
    ask_until_copied(&world, &way, Level::Nothing).await;
    let (again, soon) = (asking(Level::Offload, Duration::from_secs(60)), Duration::from_millis(100));
    assert!(tokio::time::timeout(soon, way.ask(&again)).await.is_err());
    assert_eq!(offered(&way), Some(Level::Nothing));
    assert_eq!(world.states(&[10]), ["running"]);
    assert_eq!(world.log(), ["lock 10", "checkpoint 10", "restore 10", "unlock 10"]);
}

#[test]
fn a_program_that_has_to_be_ended_does_not_end_the_copy() {
    let world = World::new(&[10]);
    world.write("slow-checkpoint-10", "5");
    let mut way = world.way(false);
    let limit = |way: &mut Checkpoint, secs| {
        Arc::get_mut(&mut way.0).unwrap().tool.copy = Duration::from_secs(secs);
    };
    limit(&mut way, 1);
    refused(ask(&way, Level::Offload), "no end within its time; not undone: refused: process 10 is silent");
    limit(&mut way, 60);
    assert_eq!(way.0.offer().unwrap().level, Some(Level::Offload));
    ask(&way, Level::Nothing).unwrap();
    assert_eq!(world.states(&[10]), ["running"]);
}

#[test]
fn what_a_predecessor_left_is_brought_back() {
    for state in ["locked", "checkpointed"] {
        let world = World::new(&[10]);
        world.write("state-10", state);
        let way = world.way(false);
        assert_eq!(way.0.offer().unwrap().level, Some(Level::Offload));
        ask(&world.way(false), Level::Nothing).unwrap();
        assert_eq!(world.states(&[10]), ["running"]);
    }
}

#[test]
fn who_can_not_be_read_is_read_again() {
    let world = World::new(&[10]);
    let way = world.way(false);
    ask(&way, Level::Offload).unwrap();
    world.write("mute-10", "");
    refused(ask(&way, Level::Nothing), "process 10 is in an unknown state: Error getting process state");
    assert!(way.0.offer().unwrap_err().to_string().contains("process 10"));
    fs::remove_file(world.path("mute-10")).unwrap();
    assert_eq!(way.0.offer().unwrap().level, Some(Level::Offload), "it is away, as it was");
    ask(&way, Level::Nothing).unwrap();
    world.write("mute-10", "");
    refused(ask(&way, Level::Offload), "unknown state");
    fs::remove_file(world.path("mute-10")).unwrap();
    let offer = way.0.offer().unwrap();
    assert_eq!(offer.level, Some(Level::Nothing));
    assert!(offer.levels.contains_key(&Level::Offload), "it can be asked again");
}

#[test]
fn a_child_that_the_program_leaves_is_not_waited_for() {
    let world = World::new(&[10]);
    world.write("leave-lock-10", "");
    let begun = Instant::now();
    ask(&world.way(false), Level::Offload).unwrap();
    assert!(begun.elapsed() < Duration::from_secs(20));
}

#[test]
fn a_restore_that_fails_harmlessly_can_be_repeated() {
    let world = World::new(&[10]);
    let way = world.way(false);
    ask(&way, Level::Offload).unwrap();
    world.write("fail-restore-10", "");
    refused(ask(&way, Level::Nothing), "it says no");
    fs::remove_file(world.path("fail-restore-10")).unwrap();
    ask(&way, Level::Nothing).unwrap();
    assert_eq!(world.states(&[10]), ["running"]);
}

#[test]
fn limits_are_seen_before_anything_is_done() {
    let check = |change: &dyn Fn(&World), pids: &[u32], words: &str| {
        let world = World::new(pids);
        change(&world);
        refused(ask(&world.way(false), Level::Offload), words);
        assert!(world.log().is_empty(), "{words}");
    };
    check(&|world| world.frozen(1), &[10], "frozen");
    check(&|_| {}, &[10, 11], "several");
    check(&|world| world.process(10, 9, "/libcuda.so.1"), &[10], "no process uses CUDA");
    check(&|world| world.process(10, 10, "/libc.so.6"), &[10], "no process uses CUDA");
    check(&|world| world.write("proc/meminfo", "MemAvailable: 1000000 kB\n"), &[10], "no room");
    check(&|world| world.write("proc/10/environ", "CUDA_MPS_PIPE_DIRECTORY=/tmp/mps\0"), &[10], "MPS");
    check(&|world| world.write("proc/10/environ", "A=b\0CUDA_VISIBLE_DEVICES=MIG-1\0"), &[10], "MIG");
    let old = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  x\n";
    check(&|world| world.write("proc/driver/nvidia/version", old), &[10], "needs driver 570");
    check(&|world| fs::remove_dir_all(world.path("proc/driver")).unwrap(), &[10], "not loaded");
    check(&|world| world.write("state-10", "locked"), &[10], "process 10 is locked");
    let two_gpus = |world: &World| {
        fs::create_dir_all(world.path("proc/10/fd")).unwrap();
        for number in 0..2 {
            symlink(format!("/dev/nvidia{number}"), world.path(&format!("proc/10/fd/{number}"))).unwrap();
        }
    };
    check(&two_gpus, &[10], "several");
}
