//! `cargo xtask node`: a Kubernetes node in the virtual machine, with systemd, containerd and runc.
mod image;
mod machine;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};

use crate::build;
use crate::vm::Machine;

/// What is done with the node.
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Boots the node and runs one script of the shell in it
    Run {
        /// The script
        script: String,
    },
    /// Boots the node and says how to run scripts in it, until Enter is pressed
    Up,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let log = build::root().join("target/node/by-hand.log");
    let machine = Machine::start(&machine::boot(&log)?)?;
    match &arguments.task {
        Task::Run { script } => {
            let ended = machine.shell().run(script)?;
            print!("{}", ended.output);
            Ok(ExitCode::from(u8::try_from(ended.code).unwrap_or(1)))
        }
        Task::Up => {
            let address = machine.shell().address();
            println!("a script goes to its root shell by   nc -N {} {}", address.ip(), address.port());
            println!("console {}, journal beside it; Enter switches it off", log.display());
            std::io::stdin().read_line(&mut String::new())?;
            Ok(ExitCode::SUCCESS)
        }
    }
}
