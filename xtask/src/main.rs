//! Set-up, tests, demo and virtual machine.
mod bench;
mod build;
mod demo;
mod elf;
mod image;
mod kernel_tests;
mod node;
mod scale;
mod setup;
mod tally;
mod test;
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
    /// Runs all that a merge has to pass: format, lints, host tests, kernel tests in the virtual machine
    Test(test::Arguments),
    /// Times the passes of the policy, and counts what they allocate
    Bench,
    /// Checks the rules of this repository that no compiler knows
    Lint,
    /// Boots stock kernels and runs the kernel tests, a shell or any command in them
    Vm(vm_command::Arguments),
    /// Boots a Kubernetes node with systemd and containerd
    Node(node::Arguments),
    /// Builds the container image as an OCI archive, without a Docker daemon
    Image(image::Arguments),
    /// Plays thousands of nodes at a real API server on this machine, and says what they ask of it
    Scale(scale::Arguments),
    /// Plays two stories on a real kernel, with Plimsoll and without, and ends with a table and a plot
    Demo(demo::Arguments),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Task::Setup => setup::all(),
        Task::Test(arguments) => test::run(&arguments),
        Task::Bench => bench::run(),
        Task::Lint => test::lint(),
        Task::Vm(arguments) => vm_command::run(&arguments),
        Task::Node(arguments) => node::run(&arguments),
        Task::Image(arguments) => image::run(&arguments),
        Task::Scale(arguments) => scale::run(&arguments),
        Task::Demo(arguments) => demo::command(&arguments),
    };
    done.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
