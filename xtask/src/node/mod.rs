//! `cargo xtask node`: a Kubernetes node in the virtual machine, with systemd, containerd and runc, and the stories that are told on it.
mod account;
mod guest;
mod image;
mod kubelet;
mod machine;
mod pods;
mod runtime;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};

use crate::build;
use crate::tally::Tally;
use crate::vm::Machine;
use guest::Node;
use pods::Driver;

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
        None => all(true)?,
        Some(Task::Containers { driver, keep }) => containers(&drivers(*driver), keep, true)?,
        Some(Task::Kubelet { driver, keep }) => with_kubelet(*driver, keep, true)?,
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

/// The step of the tests: every story, without what only a person at the machine asks for.
pub(crate) fn test() -> Result<Tally> {
    all(false)
}

/// Every story, each on a fresh node.
fn all(by_hand: bool) -> Result<Tally> {
    let keep = Keep { keep: false };
    let mut tally = containers(&drivers(None), &keep, by_hand)?;
    tally += with_kubelet(Driver::Systemd, &keep, by_hand)?;
    Ok(tally)
}

fn drivers(only: Option<Driver>) -> Vec<Driver> {
    only.map_or_else(|| vec![Driver::Systemd, Driver::Cgroupfs], |driver| vec![driver])
}

fn containers(drivers: &[Driver], keep: &Keep, by_hand: bool) -> Result<Tally> {
    let node = up("containers")?;
    let tally = runtime::tell(&node, drivers, by_hand)?;
    if keep.keep {
        wait_for_enter(&node)?;
    }
    Ok(tally)
}

fn with_kubelet(driver: Driver, keep: &Keep, by_hand: bool) -> Result<Tally> {
    let node = up("kubelet")?;
    let tally = kubelet::tell(&node, driver, by_hand);
    if keep.keep {
        wait_for_enter(&node)?;
    }
    Ok(tally)
}

/// A node with nothing started on it.
fn up(name: &str) -> Result<Node> {
    Ok(Node(Machine::start(&machine::boot(&log(name))?)?))
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
