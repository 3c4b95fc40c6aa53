//! The command line: what can be asked for, and what the exit status says.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use plimsoll_policy::concession::Level;
use plimsoll_policy::config::signals::{BadSignal, Signal};
use plimsoll_policy::config::ways::Watch;
use plimsoll_policy::config::{DryRun, memory, time};
use plimsoll_policy::pause::LONGEST;
use plimsoll_policy::units::{Bytes, Span};

const EXIT_CODES: &str = "Exit status:
  0  done
  1  it failed; the reason is on stderr
  2  the arguments or the configuration are wrong
  3  this host lacks what is required; `plimsoll check` says what
  4  the daemon can't be reached
  5  there is no room for what `exec --needs` asked for
  6  a journal was decided again, and came out differently

Logs go to stderr; PLIMSOLL_LOG sets the level (error, warn, info, debug, trace).";

const STATUS_EXAMPLES: &str = "Examples:
  plimsoll status
  plimsoll status chat
  plimsoll status --json | jq '.workloads[] | select(.rung != \"free\")'
  plimsoll status --url http://node7:9478";

const RELEASE_EXAMPLES: &str = "Examples:
  plimsoll release
  plimsoll release batch";

const PAUSE_EXAMPLES: &str = "Examples:
  plimsoll pause --for 30m
  plimsoll resume";

const CONFIG_EXAMPLES: &str = "Examples:
  plimsoll config default > /etc/plimsoll/plimsoll.yaml
  plimsoll config validate /etc/plimsoll/plimsoll.yaml
  plimsoll config effective /etc/plimsoll/plimsoll.yaml --memory 512GiB";

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

const RUN_EXAMPLES: &str = "Examples:
  plimsoll run --config /etc/plimsoll/plimsoll.yaml
  plimsoll run --dry-run                              # decides and reports, touches nothing
  plimsoll run --dry-run=freeze,kill                  # the same for these rungs only";

const EXEC_EXAMPLES: &str = "Examples:
  plimsoll exec --name chat --priority 1000 -- vllm serve /models/chat
  plimsoll exec --name chat --needs 6GiB --needs-at-least 4GiB --wait 2m -- vllm serve /models/chat
  plimsoll exec --name nightly --priority -10 -- python3 batch.py";

const SIMULATE_EXAMPLES: &str = "Examples:
  plimsoll simulate                                           # the kernel alone beside every preset
  plimsoll simulate --machines 500 --hours 2 --preset default --policy mine.yaml
  plimsoll simulate --preset default --machine 17 --trace     # the story of one machine";

/// Which machines are simulated, and with which policies.
#[derive(Debug, Args)]
pub(crate) struct SimulateArgs {
    /// How many machines
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(crate) machines: u64,
    /// Virtual hours of each
    #[arg(long, default_value_t = 1.0)]
    pub(crate) hours: f64,
    /// Another seed is another fleet
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Sizes of memory in GiB, as one number or a range
    #[arg(long, default_value = "4-512", value_name = "GIB", value_parser = memory_range)]
    pub(crate) memory: (u64, u64),
    /// The same swap on all machines; without it half have none, and a quarter each of the others
    #[arg(long, value_enum)]
    pub(crate) swap: Option<SwapKind>,
    /// A preset of thresholds to try; may be given several times. Without a policy all of them are
    #[arg(long, value_enum, value_name = "NAME")]
    pub(crate) preset: Vec<Preset>,
    /// A configuration to try; may be given several times
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: Vec<PathBuf>,
    /// Leave out the kernel alone
    #[arg(long)]
    pub(crate) without_kernel: bool,
    /// Only this machine of the fleet
    #[arg(long, value_name = "N")]
    pub(crate) machine: Option<u64>,
    /// Tell that machine's story under the last policy, instead of the table
    #[arg(long, requires = "machine")]
    pub(crate) trace: bool,
    /// As JSON
    #[arg(long, conflicts_with = "trace")]
    pub(crate) json: bool,
    /// How many machines at a time; one for each processor if not given. The result is the same
    #[arg(long)]
    pub(crate) threads: Option<std::num::NonZeroUsize>,
}

/// When to act.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Preset {
    /// Late
    Conservative,
    /// In between
    Default,
    /// Early
    Aggressive,
}

/// What machines swap to.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum SwapKind {
    /// Nothing
    None,
    /// A partition on an NVMe disk
    Disk,
    /// Compressed memory
    Zram,
}

fn memory_range(text: &str) -> Result<(u64, u64), String> {
    let (least, most) = text.split_once('-').unwrap_or((text, text));
    let gib = |text: &str| text.trim().parse().ok().filter(|gib| (1..=65_536).contains(gib));
    match (gib(least), gib(most)) {
        (Some(least), Some(most)) if least <= most => Ok((least, most)),
        _ => Err("expected GiB from 1 to 65536, like 64 or 4-512".into()),
    }
}

/// Where the configuration is.
#[derive(Debug, Args)]
pub(crate) struct ConfigFile {
    /// Configuration file; without one, the documented default holds
    #[arg(long, value_name = "FILE", env = "PLIMSOLL_CONFIG")]
    pub(crate) config: Option<PathBuf>,
}

const REPLAY_EXAMPLES: &str = "Examples:
  plimsoll replay                                     # the configured journal
  plimsoll replay journal.jsonl.1 journal.jsonl       # in the order in which they were written
  zcat incident.gz | plimsoll replay -
  plimsoll replay journal.jsonl --policy other.yaml --plot incident.svg";

const EXPLAIN_EXAMPLES: &str = "Examples:
  plimsoll explain 17
  plimsoll explain 17 --journal incident.jsonl --json | jq .measured";

/// Which journal.
#[derive(Debug, Args)]
pub(crate) struct JournalFiles {
    /// Journal file, `-` for stdin, several in the order in which they were written; without one that of the configuration
    #[arg(long, value_name = "FILE")]
    pub(crate) journal: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) file: ConfigFile,
}

/// What is decided again.
#[derive(Debug, Args)]
pub(crate) struct ReplayArgs {
    /// Journal files in the order in which they were written, `-` for stdin; without any that of the configuration
    #[arg(value_name = "FILE")]
    pub(crate) journal: Vec<PathBuf>,
    /// Compare with what this configuration would have decided
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: Option<PathBuf>,
    /// Draw the incident as SVG: used share, tiers, rungs
    #[arg(long, value_name = "FILE")]
    pub(crate) plot: Option<PathBuf>,
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) file: ConfigFile,
}

/// What `exec` starts.
#[derive(Debug, Args)]
pub(crate) struct ExecArgs {
    /// Name of the workload and of its cgroup
    #[arg(long)]
    pub(crate) name: String,
    /// Who yields last: higher matters more, as in a Kubernetes PriorityClass
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    pub(crate) priority: i32,
    /// Whether it may be a victim at all
    #[arg(long, value_enum, default_value_t)]
    pub(crate) preference: Preference,
    /// Start it only if the daemon grants it so much memory, like 6GiB; the command finds what was granted in
    /// PLIMSOLL_GRANTED_BYTES
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) needs: Option<Bytes>,
    /// Make do with so much if there is no room for more
    #[arg(long, value_name = "SIZE", value_parser = size, requires = "needs")]
    pub(crate) needs_at_least: Option<Bytes>,
    /// Wait so long for room, like 2m; at most 1h
    #[arg(long, value_name = "TIME", value_parser = wait, requires = "needs")]
    pub(crate) wait: Option<Duration>,
    /// It can be asked to give memory back by a signal, like gc=SIGUSR1; levels are gc, aggressive, offload, unload, and restore
    /// after the last two. May be given several times
    #[arg(long, value_name = "LEVEL=SIGNAL", value_parser = level_signal)]
    pub(crate) signal: Vec<(Level, Signal)>,
    /// Who gets these signals, of those that catch them: main (the process that was started first) or all
    #[arg(long, value_enum, default_value_t)]
    pub(crate) signal_to: SignalTo,
    /// When it is poked if it listens to MEMORY_PRESSURE_WATCH: asked (when its turn has come to trim), or a tier of the host
    #[arg(long, default_value_t, value_name = "WHEN")]
    pub(crate) watch: Watch,
    #[command(flatten)]
    pub(crate) file: ConfigFile,
    /// The command and its arguments
    #[arg(last = true, required = true)]
    pub(crate) command: Vec<OsString>,
}

fn wait(text: &str) -> Result<Duration, String> {
    let wait = time(text).filter(|wait| *wait <= Span::secs(3600));
    wait.map(Duration::from).ok_or_else(|| "expected a time of at most 1h, like 30s or 2m".into())
}

fn level_signal(text: &str) -> Result<(Level, Signal), String> {
    let (level, signal) = text.split_once('=').ok_or("expected a level and a signal, like gc=SIGUSR1")?;
    let restore = (level == "restore").then_some(Level::Nothing);
    let level = Level::of_name(level).or(restore);
    let level = level.ok_or("expected gc, aggressive, offload, unload or restore before the `=`")?;
    Ok((level, signal.parse().map_err(|error: BadSignal| error.to_string())?))
}

/// Which processes get a signal.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum SignalTo {
    /// The one that was started first
    #[default]
    Main,
    /// All that catch it
    All,
}

fn pause(text: &str) -> Result<Duration, String> {
    let lasts = time(text).filter(|lasts| (Span::secs(1)..=LONGEST).contains(lasts));
    lasts.map(Duration::from).ok_or_else(|| "expected a time from 1s to 24h, like 90s or 2h".into())
}

/// Whether a workload may be a victim.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum Preference {
    /// An ordinary candidate
    #[default]
    None,
    /// Only when nothing else is left
    Avoid,
    /// Never
    Omit,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Protect this machine until SIGTERM or SIGINT, then release everything
    #[command(after_help = RUN_EXAMPLES)]
    Run {
        #[command(flatten)]
        file: ConfigFile,
        /// Decide, report and write the journal, but touch nothing; or do everything except these rungs
        #[arg(long, value_name = "RUNGS", num_args = 0..=1, require_equals = true, default_missing_value = "all")]
        dry_run: Option<DryRun>,
    },
    /// Start a model server in a cgroup of its own, as a workload of the daemon
    #[command(after_help = EXEC_EXAMPLES)]
    Exec(ExecArgs),
    /// Try policies on modelled machines: what would be killed, who would wait, hours in seconds
    #[command(after_help = SIMULATE_EXAMPLES)]
    Simulate(SimulateArgs),
    /// Let go of everything, and take nothing for ten seconds; without a daemon, undo what one has left behind
    #[command(after_help = RELEASE_EXAMPLES)]
    Release {
        /// Only this workload
        workload: Option<String>,
        #[command(flatten)]
        file: ConfigFile,
    },
    /// Let go of everything and do nothing for a while; what would be done is still told
    #[command(after_help = PAUSE_EXAMPLES)]
    Pause {
        /// For how long, up to a day, like 90s or 2h
        #[arg(long = "for", value_name = "TIME", default_value = "10m", value_parser = pause)]
        lasts: Duration,
        #[command(flatten)]
        file: ConfigFile,
    },
    /// End a pause
    Resume {
        #[command(flatten)]
        file: ConfigFile,
    },
    /// Say what this host offers, what is missing, what that disables and how to mend it
    Check {
        /// As JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        file: ConfigFile,
    },
    /// Say what the daemon sees and does
    #[command(after_help = STATUS_EXAMPLES)]
    Status {
        /// Only this workload
        workload: Option<String>,
        /// As JSON, as /status gives it
        #[arg(long)]
        json: bool,
        /// Ask over HTTP, where the daemon listens (`daemon.listen` of its configuration): for another machine, or without being root
        #[arg(long, value_name = "URL", env = "PLIMSOLL_URL")]
        url: Option<String>,
        #[command(flatten)]
        file: ConfigFile,
    },
    /// Decide a journal again and say where the decisions differ
    #[command(after_help = REPLAY_EXAMPLES)]
    Replay(ReplayArgs),
    /// Say why an action was taken, what was expected of it, what it brought and what followed
    #[command(after_help = EXPLAIN_EXAMPLES)]
    Explain {
        /// Number of the action, as `plimsoll events`, `status` and the log have it
        id: u64,
        #[command(flatten)]
        journal: JournalFiles,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// List the last actions
    Events {
        #[command(flatten)]
        journal: JournalFiles,
        /// How many
        #[arg(long, value_name = "N", default_value_t = 20)]
        last: usize,
        /// As JSON, one action a line
        #[arg(long)]
        json: bool,
    },
    /// Outlive the controller and undo what it had set; started by `run`
    #[command(hide = true)]
    Guardian {
        #[arg(long)]
        run_dir: PathBuf,
        #[arg(long)]
        controller: u32,
        #[arg(long)]
        home: Option<PathBuf>,
    },
    /// Print the documented default configuration, check one, or say what results from one
    #[command(subcommand, after_help = CONFIG_EXAMPLES)]
    Config(ConfigCommand),
    /// Print completions for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

fn size(text: &str) -> Result<Bytes, &'static str> {
    memory(text).filter(|size| *size > Bytes::ZERO).ok_or("expected an amount of memory, like 64MiB or 8GiB")
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print the documented default, which is also the manual
    Default,
    /// Print the thresholds that result on this host from preset, size of memory and what the file gives
    Effective {
        /// The file; without one, the default
        #[arg(env = "PLIMSOLL_CONFIG")]
        file: Option<PathBuf>,
        /// As if the host had this much memory, like 64GiB
        #[arg(long, value_name = "SIZE", value_parser = size)]
        memory: Option<Bytes>,
    },
    /// Check a file, and name every mistake in it
    Validate {
        /// The file
        file: PathBuf,
    },
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::Cli;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_dry_run_is_of_everything_or_of_some_rungs() {
        let dry = |argument: &str| match Cli::try_parse_from(["plimsoll", "run", argument])
            .map(|cli| cli.command)
        {
            Ok(super::Command::Run { dry_run, .. }) => dry_run.map(|dry| dry.to_string()),
            _ => None,
        };
        assert_eq!(dry("--dry-run").as_deref(), Some("everything"));
        assert_eq!(dry("--dry-run=kill,freeze").as_deref(), Some("freeze, kill"));
        assert_eq!((dry("--dry-run=eat"), dry("--log-format=json")), (None, None));
    }

    #[test]
    fn the_unit_calls_what_there_is() {
        let unit = include_str!("../../manifests/plimsoll.service");
        let calls: Vec<&str> = unit
            .lines()
            .filter_map(|line| line.strip_prefix("Exec")?.split_once('='))
            .map(|(_, call)| call)
            .collect();
        assert_eq!(calls.len(), 2);
        for call in calls {
            Cli::try_parse_from(call.split(' ')).unwrap();
        }
    }
}
