//! The command line: what can be asked for, and what the exit status says.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

const EXIT_CODES: &str = "Exit status:
  0  done
  1  it failed; the reason is on stderr
  2  the arguments or the configuration are wrong
  3  this host lacks what is required; `plimsoll check` says what
  4  the daemon can't be reached

Logs go to stderr; PLIMSOLL_LOG sets the level (error, warn, info, debug, trace).";

const CONFIG_EXAMPLES: &str = "Examples:
  plimsoll config default > /etc/plimsoll/plimsoll.yaml
  plimsoll config validate /etc/plimsoll/plimsoll.yaml";

/// Keeps a machine that serves models above the memory line.
#[derive(Debug, Parser)]
#[command(name = "plimsoll", version, after_help = EXIT_CODES, max_term_width = 100, arg_required_else_help = true)]
pub(crate) struct Cli {
    /// How logs are written
    #[arg(long, global = true, value_enum, default_value_t, env = "PLIMSOLL_LOG_FORMAT")]
    pub(crate) log_format: LogFormat,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// How logs are written.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people
    #[default]
    Human,
    /// One JSON object per line
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Print the documented default configuration, or check one
    #[command(subcommand, after_help = CONFIG_EXAMPLES)]
    Config(ConfigCommand),
    /// Print completions for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print the documented default, which is also the manual
    Default,
    /// Check a file, and name every mistake in it
    Validate {
        /// The file
        file: PathBuf,
    },
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
