//! One story from beginning to end: set the stage, let it be calm, let memory run short, watch, tidy up.

use std::io::{BufWriter, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use plimsoll_workload::record::Ending;
use serde::Serialize;

use super::cast::Load;
use super::controller::Controller;
use super::groups::Groups;
use super::monitor::{Monitor, look_at_groups};
use crate::time::{nanos, now_ns, parse_span, sleep_until_ns};

/// Play one story of the demo in a virtual machine that is thrown away afterwards. Needs root, cgroup v2 and about
/// 1 GiB of RAM that it fills on purpose.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Which one
    #[arg(value_enum)]
    plot: Plot,
    /// Directory for what is written down
    #[arg(long, value_name = "DIRECTORY", default_value = "/out")]
    out: PathBuf,
    /// Directory on a disk, for the weights
    #[arg(long, value_name = "DIRECTORY", default_value = "/data")]
    data: PathBuf,
    /// Run this controller; without it the kernel is on its own
    #[arg(long, value_name = "PROGRAM", requires = "config")]
    controller: Option<PathBuf>,
    /// Its configuration
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where it serves its status
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9478")]
    address: SocketAddr,
    /// Calm before memory runs short
    #[arg(long, value_name = "TIME", value_parser = parse_span, default_value = "6s")]
    calm: Duration,
    /// How long to watch from there
    #[arg(long, value_name = "TIME", value_parser = parse_span, default_value = "24s")]
    watch: Duration,
}

/// What makes memory run short.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Plot {
    /// The batch job grows at 200 MiB/s and keeps touching what it has
    BatchGrows,
    /// The server grows by 300 MiB, and shrinks again later, while the batch job idles on 400 MiB
    ServerGrows,
}

/// Plays it and leaves `readings.jsonl`, `latency.jsonl` and `ending.json` behind.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let groups = Groups::create()?;
    crate::memory::lock_all().context("locking memory")?;
    phase("setting the stage");
    let (mut server, mut batch) = loads(args, &groups)?;
    let controller = controller(args, &groups)?;
    let monitor = Monitor::start(&groups);
    phase("calm");
    let began_ns = now_ns();
    let mut client = client(args, &groups)?;
    sleep_until_ns(began_ns + nanos(args.calm));
    phase("memory runs short");
    let cpu_before = controller.as_ref().and_then(Controller::cpu_us);
    let growth_ns = now_ns();
    match args.plot {
        Plot::BatchGrows => batch.grow()?,
        Plot::ServerGrows => server.grow()?,
    }
    client.wait()?;
    let ended_ns = now_ns();
    phase("over");
    let mut ending = Ending {
        kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
        began_ns,
        growth_ns,
        ended_ns,
        loads: [server.fate()?, batch.fate()?].into(),
        at_end: look_at_groups(&groups),
        after_release: None,
        controller_exit: None,
        controller_memory: controller.as_ref().and_then(Controller::memory),
        controller_cpu_us: cpu_before.zip(controller.as_ref().and_then(Controller::cpu_us)),
    };
    if let Some(controller) = controller {
        ending.controller_exit = controller.finish()?;
        ending.after_release = Some(look_at_groups(&groups));
        keep_journal(args)?;
    }
    write_lines(&args.out.join("readings.jsonl"), &monitor.finish()?)?;
    write_lines(&args.out.join("ending.json"), &[ending])
}

/// The controller comes to a machine that already serves: loading a model is growth, too, and another story.
fn controller(args: &Args, groups: &Groups) -> anyhow::Result<Option<Controller>> {
    let Some((program, config)) = args.controller.as_ref().zip(args.config.as_ref()) else { return Ok(None) };
    phase("starting the controller");
    let controller = Controller::start(program, config, args.address, &groups.controller, &args.out)?;
    if !controller.wait_calm() {
        phase("no calm");
    }
    Ok(Some(controller))
}

/// Server and batch job, ready. The OOM scores are what a careful operator sets, with or without a controller.
fn loads(args: &Args, groups: &Groups) -> anyhow::Result<(Load, Load)> {
    let weights = args.data.join("weights");
    crate::weights::write(&weights, 240)?;
    let weights = weights.to_string_lossy().into_owned();
    let mut serve = vec!["model-server", "--weights", &weights, "--kv-mib", "80", "--listen", "/run/model"];
    let mut work = vec!["batch-job", "--threads", "4"];
    match args.plot {
        Plot::BatchGrows => {
            work.extend("--from-mib 64 --to-mib 900 --rate-mib 200 --grow-on-line".split(' '));
        }
        Plot::ServerGrows => {
            work.extend("--from-mib 400 --to-mib 400 --idle".split(' '));
            serve.extend("--grow-mib 300 --grow-over 3s --release-after 7s --grow-on-line".split(' '));
        }
    }
    let mut server = Load::start("server", &groups.server, -500, &args.out, &serve)?;
    server.wait_ready()?;
    let mut batch = Load::start("batch", &groups.batch, 500, &args.out, &work)?;
    batch.wait_ready()?;
    Ok((server, batch))
}

fn client(args: &Args, groups: &Groups) -> anyhow::Result<Load> {
    let span = format!("{}ms", (args.calm + args.watch).as_millis());
    let log = args.out.join("latency.jsonl").to_string_lossy().into_owned();
    let request = ["requests", "--connect", "/run/model", "--every", "20ms", "--for", &span, "--out", &log];
    Load::start("client", &groups.observers, -900, &args.out, &request)
}

/// The journal lies on the disk, as it would on a real machine, and only results leave the guest.
fn keep_journal(args: &Args) -> anyhow::Result<()> {
    for name in ["journal.jsonl", "journal.jsonl.1"] {
        let journal = args.data.join(name);
        if journal.exists() {
            std::fs::copy(&journal, args.out.join(name)).with_context(|| format!("keeping {name}"))?;
        }
    }
    Ok(())
}

/// Tells the host where we are.
fn phase(name: &str) {
    println!("demo: {name}");
}

fn write_lines<T: Serialize>(path: &Path, lines: &[T]) -> anyhow::Result<()> {
    let file = std::fs::File::create(path).with_context(|| format!("creating {}", path.display()))?;
    let mut out = BufWriter::new(file);
    for line in lines {
        serde_json::to_writer(&mut out, line)?;
        out.write_all(b"\n")?;
    }
    out.flush().with_context(|| format!("writing {}", path.display()))
}
