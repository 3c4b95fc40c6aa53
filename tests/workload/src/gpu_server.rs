//! A model server on GPUs that no machine has: it holds their memory as far as the stand-in for the driver knows, and gives it back
//! when it is signalled.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use anyhow::Context;
use nvidia_ml::{State, state_of, steer};

use crate::heap::Heap;
use crate::say::say;

/// Hold memory of GPUs until SIGUSR1 (garbage), SIGUSR2 (caches), SIGHUP (to the host) or SIGURG (all) asks for some of it back;
/// SIGWINCH takes it again.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The stand-in for the driver's library; what it knows lies beside it
    #[arg(long, value_name = "FILE")]
    library: PathBuf,
    /// A GPU, and how much of it to hold
    #[arg(long = "gpu", value_name = "ID=MIB", value_parser = share)]
    gpus: Vec<(String, u64)>,
    /// What is left in per cent when asked to collect garbage
    #[arg(long, default_value_t = 95)]
    keep_gc: u64,
    /// What is left in per cent without caches
    #[arg(long, default_value_t = 75)]
    keep_aggressive: u64,
    /// What is left in per cent when weights are moved to the host
    #[arg(long, default_value_t = 5)]
    keep_offload: u64,
    /// What moving them takes of host memory
    #[arg(long, value_name = "MIB", default_value_t = 0)]
    offload_mib: usize,
    /// Listen, and do nothing
    #[arg(long)]
    deaf: bool,
}

fn share(text: &str) -> Result<(String, u64), String> {
    let (id, mib) = text.rsplit_once('=').ok_or("expected ID=MIB")?;
    Ok((id.to_owned(), mib.parse::<u64>().map_err(|error| error.to_string())? << 20))
}

/// The signal that came last; 0 = none since.
static ASKED: AtomicI32 = AtomicI32::new(0);

const SIGNALS: [i32; 5] = [libc::SIGUSR1, libc::SIGUSR2, libc::SIGHUP, libc::SIGURG, libc::SIGWINCH];

extern "C" fn note(signal: i32) {
    ASKED.store(signal, Ordering::Release);
}

/// Runs until it is killed.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    for signal in SIGNALS {
        // SAFETY: the handler only stores to an atomic, which is safe at any moment.
        let before = unsafe { libc::signal(signal, note as *const () as libc::sighandler_t) };
        anyhow::ensure!(before != libc::SIG_ERR, "can't listen to signal {signal}");
    }
    let file = state_of(&args.library);
    let mut full: BTreeMap<String, u64> = args.gpus.iter().cloned().collect();
    let mut moved = None;
    steer(&file, |state| hold(state, &full, 100)).context("taking memory")?;
    say("ready", mib(&full, 100));
    loop {
        std::thread::sleep(Duration::from_millis(10));
        let signal = ASKED.swap(0, Ordering::Acquire);
        if signal == 0 || args.deaf {
            continue;
        }
        let (event, keep) = match signal {
            libc::SIGUSR1 => ("gc", args.keep_gc),
            libc::SIGUSR2 => ("aggressive", args.keep_aggressive),
            libc::SIGHUP => ("offloaded", args.keep_offload),
            libc::SIGURG => ("unloaded", 0),
            _ => ("restored", 100),
        };
        // The host's memory first, as an engine does that copies.
        moved = (signal == libc::SIGHUP).then(|| to_host(args.offload_mib)).transpose()?.or(moved.take());
        steer(&file, |state| {
            grown(state, &mut full);
            hold(state, &full, keep);
        })
        .context("giving memory back")?;
        if matches!(signal, libc::SIGURG | libc::SIGWINCH) {
            moved = None;
        }
        say(event, mib(&full, keep));
    }
}

/// A test may have made it larger than it began.
fn grown(state: &mut State, full: &mut BTreeMap<String, u64>) {
    for gpu in &state.gpus {
        if let Some(full) = full.get_mut(&gpu.uuid) {
            *full = (*full).max(gpu.held_by(std::process::id()));
        }
    }
}

fn hold(state: &mut State, full: &BTreeMap<String, u64>, keep: u64) {
    for gpu in &mut state.gpus {
        if let Some(bytes) = full.get(&gpu.uuid) {
            gpu.hold(std::process::id(), bytes * keep / 100);
        }
    }
}

fn to_host(mib: usize) -> anyhow::Result<Heap> {
    let heap = Heap::reserve(mib).context("reserving host memory")?;
    heap.grow(mib, None);
    Ok(heap)
}

fn mib(full: &BTreeMap<String, u64>, keep: u64) -> usize {
    usize::try_from((full.values().sum::<u64>() * keep / 100) >> 20).unwrap_or(usize::MAX)
}
