//! Set-up, tests, demo and virtual machine.
mod build;
mod kernel_tests;
mod setup;
mod tally;
mod vm;
mod vm_command;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Works on Plimsoll: sets up, tests, shows.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Finds or installs everything that the other commands need (they do so themselves as well)
    Setup,
    /// Boots stock kernels and runs the kernel tests, a shell or any command in them
    Vm(vm_command::Arguments),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Task::Setup => setup::all(),
        Task::Vm(arguments) => vm_command::run(&arguments),
    };
    done.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
