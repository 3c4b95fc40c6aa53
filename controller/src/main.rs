//! Arguments -> tracing -> config -> build -> run -> drain; nothing else.

mod cli;
mod command;
mod log;

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use plimsoll::config::{self, LoadError};
use plimsoll::guardian;

use cli::{Cli, Command, ConfigCommand};

fn main() -> ExitCode {
    let cli = Cli::parse();
    log::start(cli.log_format);
    match obey(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("plimsoll: {error:#}");
            ExitCode::from(status(&error))
        }
    }
}

fn obey(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Run { file, dry_run } => command::run(&file, dry_run),
        Command::Exec(exec) => command::exec(exec),
        Command::Release { file } => command::release(&file),
        Command::Guardian { run_dir, controller } => Ok(guardian::main(&run_dir, controller)?),
        Command::Config(ConfigCommand::Default) => print(config::DEFAULT),
        Command::Config(ConfigCommand::Validate { file }) => validate(&file),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "plimsoll", &mut std::io::stdout());
            Ok(())
        }
    }
}

fn validate(file: &Path) -> anyhow::Result<()> {
    let config = config::load(file)?;
    print(&format!("{} is valid: {} rules for workloads\n", file.display(), config.workloads.len()))
}

/// Writes to stdout. A reader that has seen enough, such as `head`, is no error.
fn print(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// The exit status that `--help` promises.
fn status(error: &anyhow::Error) -> u8 {
    if error.is::<LoadError>() { 2 } else { 1 }
}
