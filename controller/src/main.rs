//! Arguments -> tracing -> config -> build -> run -> drain; nothing else.

mod cli;
mod command;
mod log;

use std::process::ExitCode;

use clap::Parser;
use plimsoll::check::CheckError;
use plimsoll::config::{self, LoadError};
use plimsoll::control::client::AskError;
use plimsoll::exec::ExecError;
use plimsoll::guardian;
use plimsoll::report::ClientError;
use plimsoll::run::RunError;

use cli::{Cli, Command, ConfigCommand};
use command::incident::Differs;

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
        Command::Simulate(simulate) => command::simulate(&simulate),
        Command::Release { workload, file } => command::operator::release(workload.as_deref(), &file),
        Command::Pause { lasts, file } => command::operator::pause(lasts, &file),
        Command::Resume { file } => command::operator::resume(&file),
        Command::Replay(replay) => command::incident::replay(replay),
        Command::Explain { id, journal, json } => command::incident::explain(id, journal, json),
        Command::Events { journal, last, json } => command::incident::events(journal, last, json),
        Command::Guardian { run_dir, controller, home } => {
            Ok(guardian::main(&run_dir, controller, home.as_deref())?)
        }
        Command::Check { json, file } => command::check(json, &file),
        Command::Status { workload, json, url, file } => {
            command::operator::status(workload.as_deref(), json, url.as_deref(), &file)
        }
        Command::Config(ConfigCommand::Default) => command::print(config::DEFAULT),
        Command::Config(ConfigCommand::Validate { file }) => command::validate(&file),
        Command::Config(ConfigCommand::Effective { file, memory }) => command::effective(file, memory),
        Command::Completions { shell } => command::completions(shell),
    }
}

/// The exit status that `--help` promises.
fn status(error: &anyhow::Error) -> u8 {
    let lacks = error.is::<CheckError>() || matches!(error.downcast_ref(), Some(RunError::Host(_)));
    match error {
        error if error.is::<LoadError>() => 2,
        error if matches!(error.downcast_ref(), Some(ExecError::Name(_))) => 2,
        error if let Some(ExecError::Admission { source, .. }) = error.downcast_ref() => asked(source),
        error if let Some(error) = error.downcast_ref::<AskError>() => asked(error),
        _ if lacks => 3,
        error if error.is::<ClientError>() => 4,
        error if error.is::<Differs>() => 6,
        _ => 1,
    }
}

/// Why there was no room, or no answer.
fn asked(error: &AskError) -> u8 {
    match error {
        AskError::Refused(_) => 5,
        AskError::Off => 2,
        AskError::Unreachable { .. } | AskError::Silent(_) => 4,
        AskError::Runtime(_) | AskError::Denied(_) | AskError::Operator(_) => 1,
    }
}
