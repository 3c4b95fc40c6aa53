//! The sub-commands, between their arguments and the library.

pub(crate) mod incident;
pub(crate) mod operator;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::CommandFactory;
use plimsoll::check::{self, HostPaths};
use plimsoll::exec::{Exec, Needs};
use plimsoll::sense::gpu::Places;
use plimsoll::simulate::{self, Simulation};
use plimsoll::{config, exec, place, run, sense};
use plimsoll_model::fleet::{self, Fleet, Policy};
use plimsoll_policy::concession::Level;
use plimsoll_policy::config::signals::{Recipients, Signal, Signals};
use plimsoll_policy::config::ways::Means;
use plimsoll_policy::config::{Config, DryRun, advise, preset as presets};
use plimsoll_policy::sample;
use plimsoll_policy::units::Bytes;

use crate::cli::{Cli, ConfigFile, ExecArgs, Preference, Preset, SignalTo, SimulateArgs, SwapKind};

fn load(file: &ConfigFile) -> Result<Config> {
    let config = match &file.config {
        Some(path) => config::load(path)?,
        None => Config::default(),
    };
    Ok(config::overridden(config, environment)?)
}

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The configuration as it is on this host.
fn load_here(file: &ConfigFile) -> Result<Config> {
    let path = file.config.as_deref().unwrap_or(Path::new("default"));
    Ok(config::resolve(path, load(file)?, total_memory()?)?)
}

fn total_memory() -> Result<Bytes> {
    sense::node::total_memory().context("cannot read how much memory there is")
}

pub(crate) fn run(file: &ConfigFile, dry_run: Option<DryRun>) -> Result<()> {
    let mut config = load_here(file)?;
    // What is dry by the configuration may be named by the argument anew: it is the last word.
    config.ladder.dry_run = dry_run.unwrap_or(config.ladder.dry_run);
    Ok(run::run(&config)?)
}

pub(crate) fn exec(arguments: ExecArgs) -> Result<()> {
    let ExecArgs {
        name,
        priority,
        preference,
        needs,
        needs_at_least,
        wait,
        signal,
        signal_to,
        watch,
        file,
        command,
    } = arguments;
    let preference = match preference {
        Preference::None => sample::Preference::None,
        Preference::Avoid => sample::Preference::Avoid,
        Preference::Omit => sample::Preference::Omit,
    };
    let needs = needs.map(|needs| Needs {
        sizes: [needs].into_iter().chain(needs_at_least.filter(|least| *least < needs)).collect(),
        wait: wait.unwrap_or_default(),
    });
    let ask = Means { signal: signals(&signal, signal_to), watch, ..Means::default() };
    let daemon = load(&file)?.daemon;
    match exec::exec(&Exec { name, priority, preference, ask, needs, command }, &daemon)? {}
}

fn signals(given: &[(Level, Signal)], to: SignalTo) -> Option<Signals> {
    let to = match to {
        SignalTo::Main => Recipients::Main,
        SignalTo::All => Recipients::All,
    };
    let mut signals = Signals { to, ..Signals::default() };
    given.iter().for_each(|(level, signal)| signals.set(*level, *signal));
    (!given.is_empty()).then_some(signals)
}

pub(crate) fn simulate(arguments: &SimulateArgs) -> Result<()> {
    let simulation = simulation(arguments)?;
    if let (true, Some(machine)) = (arguments.trace, arguments.machine) {
        let policy = simulation.policies.last().context("there is no policy to trace")?;
        let mut out = io::stdout().lock();
        return match simulate::trace(&simulation.fleet, machine, policy, simulation.duration, &mut out) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
            _ => Ok(()),
        };
    }
    let outcome = simulation.run();
    if arguments.json {
        let report = simulate::Report::new(&simulation, &outcome);
        return print(&format!("{}\n", serde_json::to_string_pretty(&report)?));
    }
    print(&simulate::render(&simulation, &outcome))
}

fn simulation(arguments: &SimulateArgs) -> Result<Simulation> {
    let swap = arguments.swap.map(|kind| match kind {
        SwapKind::None => fleet::SwapKind::None,
        SwapKind::Disk => fleet::SwapKind::Disk,
        SwapKind::Zram => fleet::SwapKind::Zram,
    });
    let mut policies = if arguments.without_kernel { vec![] } else { vec![Policy::kernel()] };
    let all = arguments.policy.is_empty() && arguments.preset.is_empty();
    let asked = arguments.preset.iter().map(|asked| match asked {
        Preset::Conservative => presets::Preset::Conservative,
        Preset::Default => presets::Preset::Default,
        Preset::Aggressive => presets::Preset::Aggressive,
    });
    let tried = if all { presets::Preset::ALL.to_vec() } else { asked.collect() };
    for preset in tried {
        let text = format!("preset: {preset}");
        let config = config::parse(Path::new("--preset"), &text)?;
        policies.push(Policy { name: preset.name().into(), config: Some(config) });
    }
    for path in &arguments.policy {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        policies.push(Policy { name, config: Some(config::load(path)?) });
    }
    let seconds = (arguments.hours * 3600.0).clamp(1.0, 1e9);
    Ok(Simulation {
        fleet: Fleet { seed: arguments.seed, memory_gib: arguments.memory, swap },
        machines: arguments.machine.map_or(0..arguments.machines, |n| n..n + 1),
        duration: Duration::from_secs_f64(seconds),
        policies,
        threads: arguments.threads,
    })
}

pub(crate) fn check(json: bool, file: &ConfigFile) -> Result<()> {
    let config = load(file)?;
    let paths = HostPaths { cgroup: config.daemon.cgroup_root.clone().into(), ..HostPaths::default() };
    place::settle(&paths.cgroup);
    let host = check::probe(&paths).with(check::gpus(&Places::of(&config)));
    let host = host.with(check::pod(&paths, Path::new(check::SERVICE_ACCOUNT), &config, environment));
    let host = host.with(check::api(&config));
    // Without these two, loading would only say the same in the kernel's words.
    let host = if host.has("bpf") && host.has("btf") { host.with(check::load_hooks()) } else { host };
    if json {
        print(&format!("{}\n", serde_json::to_string_pretty(host.capabilities())?))?;
    } else {
        print(&check::render(&host))?;
    }
    Ok(host.require()?)
}

pub(crate) fn validate(file: &Path) -> Result<()> {
    let config = config::load(file)?;
    print(&format!("{} is valid\n", file.display()))?;
    advise(&config).into_iter().try_for_each(|advice| print(&format!("note: {advice}\n")))
}

pub(crate) fn effective(file: Option<PathBuf>, memory: Option<Bytes>) -> Result<()> {
    let total = memory.map_or_else(total_memory, Ok)?;
    let path = file.clone().unwrap_or_else(|| "default".into());
    let config = config::resolve(&path, load(&ConfigFile { config: file })?, total)?;
    print(&config::effective(&config, total))
}

pub(crate) fn completions(shell: clap_complete::Shell) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "plimsoll", &mut script);
    print(&String::from_utf8(script)?)
}

/// Writes to stdout. A reader that has seen enough, such as `head`, is no error.
pub(crate) fn print(text: &str) -> Result<()> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
