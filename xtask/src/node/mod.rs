//! `cargo xtask node`: a Kubernetes node in the virtual machine, with systemd, containerd and runc, and the stories that are told on it.
mod account;
mod guest;
mod image;
mod kubelet;
mod machine;
mod pods;
mod runtime;

use std::panic::resume_unwind;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};
use procfs::Current as _;

use crate::build;
use crate::tally::Tally;
use crate::vm::{Boot, Machine};
use guest::Node;
use pods::Driver;

/// What a control plane takes on this machine.
const CONTROL_PLANE_MIB: u32 = 1536;

/// What is done with the node: without a command, all stories are told.
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    task: Option<Task>,
}

#[derive(Subcommand)]
enum Task {
    /// Pods that `ctr` makes, without a kubelet
    Containers {
        /// Only with this cgroup driver
        #[arg(long, value_enum)]
        driver: Option<Driver>,
        #[command(flatten)]
        keep: Keep,
    },
    /// A real kubelet, and our image as a DaemonSet
    Kubelet {
        /// The cgroup driver
        #[arg(long, value_enum, default_value = "systemd")]
        driver: Driver,
        #[command(flatten)]
        keep: Keep,
    },
    /// Boots the node and runs one script of the shell in it
    Run {
        /// The script
        script: String,
    },
    /// Boots the node and says how to run scripts in it, until Enter is pressed
    Up,
}

/// For looking at a story that failed.
#[derive(Args)]
struct Keep {
    /// Leaves the node running at the end until Enter is pressed
    #[arg(long)]
    keep: bool,
}

/// Tells stories, or lets a person at the node.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let tally = match &arguments.task {
        None => test()?,
        Some(Task::Containers { driver, keep }) => containers(&boot("containers")?, &drivers(*driver), keep)?,
        Some(Task::Kubelet { driver, keep }) => with_kubelet(&boot("kubelet")?, *driver, keep)?,
        Some(Task::Run { script }) => {
            let ended = up("by-hand")?.0.shell().run(script)?;
            print!("{}", ended.output);
            return Ok(ExitCode::from(u8::try_from(ended.code).unwrap_or(1)));
        }
        Some(Task::Up) => {
            let node = up("by-hand")?;
            wait_for_enter(&node)?;
            return Ok(ExitCode::SUCCESS);
        }
    };
    println!("{tally}");
    Ok(tally.exit_code())
}

/// The step of the tests: every story, each on a fresh node. Most of what they do is to wait, so two nodes run side by side where there
/// is room for them.
pub(crate) fn test() -> Result<Tally> {
    let keep = Keep { keep: false };
    let boot = boot("containers")?;
    let other = Boot { log: log("kubelet"), ..boot.clone() };
    let first = || containers(&boot, &drivers(None), &keep);
    let second = || with_kubelet(&other, Driver::Systemd, &keep);
    let (first, second) = if has_room_for_two()? {
        std::thread::scope(|scope| {
            let first = scope.spawn(first);
            let second = second();
            (first.join().unwrap_or_else(|panic| resume_unwind(panic)), second)
        })
    } else {
        (first(), second())
    };
    let mut tally = first?;
    tally += second?;
    Ok(tally)
}

/// Each node is a guest and a control plane.
fn has_room_for_two() -> Result<bool> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let available = procfs::Meminfo::current()?.mem_available.unwrap_or_default() >> 20;
    Ok(cores > 1 && available >= 2 * u64::from(machine::MEMORY_MIB + CONTROL_PLANE_MIB))
}

fn drivers(only: Option<Driver>) -> Vec<Driver> {
    only.map_or_else(|| vec![Driver::Systemd, Driver::Cgroupfs], |driver| vec![driver])
}

fn containers(boot: &Boot, drivers: &[Driver], keep: &Keep) -> Result<Tally> {
    let node = start(boot)?;
    let tally = runtime::tell(&node, drivers);
    if keep.keep {
        wait_for_enter(&node)?;
    }
    Ok(tally)
}

fn with_kubelet(boot: &Boot, driver: Driver, keep: &Keep) -> Result<Tally> {
    let node = start(boot)?;
    let tally = kubelet::tell(&node, driver);
    if keep.keep {
        wait_for_enter(&node)?;
    }
    Ok(tally)
}

/// A node with nothing started on it.
fn up(name: &str) -> Result<Node> {
    start(&boot(name)?)
}

/// What there is to be booted, with its programs built.
fn boot(name: &str) -> Result<Boot> {
    machine::boot(&log(name))
}

fn start(boot: &Boot) -> Result<Node> {
    Ok(Node(Machine::start(boot)?))
}

/// The console; the journal lies beside it.
fn log(name: &str) -> PathBuf {
    build::root().join("target/node").join(name).with_extension("log")
}

fn wait_for_enter(node: &Node) -> Result<()> {
    let address = node.0.shell().address();
    println!("a script goes to its root shell by   nc -N {} {}", address.ip(), address.port());
    println!("Enter switches it off");
    std::io::stdin().read_line(&mut String::new())?;
    Ok(())
}
