//! The loads that eat memory: batch job, leaker, scanner, populate; and one that eats only time.

use std::fs::File;
use std::io::{Read, Seek};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;

use crate::heap::Heap;
use crate::memory::{MIB, lock_all};
use crate::random::Random;
use crate::say::{Start, rest, say};
use crate::time::parse_span;

/// Grow to a size and, unless idle, keep re-touching all of it at random.
#[derive(clap::Args)]
pub(crate) struct BatchJob {
    /// Size at which growth ends
    #[arg(long, value_name = "MIB", default_value_t = 900)]
    to_mib: usize,
    /// Size from the start on, as fast as it goes
    #[arg(long, value_name = "MIB", default_value_t = 0)]
    from_mib: usize,
    /// Growth in MiB a second; 0 = as fast as it goes
    #[arg(long, value_name = "MIB", default_value_t = 200)]
    rate_mib: usize,
    #[command(flatten)]
    start: Start,
    /// Threads that touch
    #[arg(long, default_value_t = 4)]
    threads: usize,
    /// Pages that each thread dirties at a time ...
    #[arg(long, value_name = "PAGES", default_value_t = 64)]
    touch: usize,
    /// ... and how long it sleeps in between
    #[arg(long, value_name = "TIME", value_parser = parse_span, default_value = "2ms")]
    touch_every: Duration,
    /// Touch nothing again: allocate and sit there
    #[arg(long)]
    idle: bool,
    /// Lock all memory, so that reclaim can't have it
    #[arg(long)]
    lock: bool,
}

/// Runs until it is killed.
pub(crate) fn batch_job(args: &BatchJob) -> anyhow::Result<()> {
    if args.lock {
        lock_all().context("locking memory")?;
    }
    let heap = Arc::new(Heap::reserve(args.to_mib.max(args.from_mib))?);
    heap.grow(args.from_mib, None);
    for seed in 0..if args.idle { 0 } else { args.threads } {
        let (heap, pages, pause) = (heap.clone(), args.touch, args.touch_every);
        std::thread::spawn(move || touch(&heap, pages, pause, seed as u64));
    }
    say("ready", heap.used_mib());
    if args.to_mib > args.from_mib {
        args.start.wait();
        say("grow", heap.used_mib());
        heap.grow(args.to_mib, (args.rate_mib > 0).then_some(args.rate_mib));
        say("grown", heap.used_mib());
    }
    rest()
}

fn touch(heap: &Heap, pages: usize, pause: Duration, seed: u64) {
    let mut random = Random::new(seed + 200);
    loop {
        heap.touch(&mut random, pages);
        std::thread::sleep(pause);
    }
}

/// Grow slowly and without end, never touching anything again.
#[derive(clap::Args)]
pub(crate) struct Leaker {
    /// Growth in MiB a second
    #[arg(long, value_name = "MIB", default_value_t = 30)]
    rate_mib: usize,
    /// Where even a leak ends
    #[arg(long, value_name = "MIB", default_value_t = 1 << 20)]
    to_mib: usize,
    #[command(flatten)]
    start: Start,
}

/// Runs until it is killed.
pub(crate) fn leaker(args: &Leaker) -> anyhow::Result<()> {
    let heap = Heap::reserve(args.to_mib)?;
    say("ready", 0);
    args.start.wait();
    say("grow", 0);
    heap.grow(args.to_mib, Some(args.rate_mib));
    say("grown", heap.used_mib());
    rest()
}

/// Read a file over and over: page cache fills, and nothing but page cache.
#[derive(clap::Args)]
pub(crate) struct Scanner {
    /// The file, best larger than the machine's memory
    file: PathBuf,
}

/// Runs until it is killed.
pub(crate) fn scanner(args: &Scanner) -> anyhow::Result<()> {
    let name = args.file.display();
    let mut file = File::open(&args.file).with_context(|| format!("opening {name}"))?;
    let mut buffer = vec![0; MIB];
    say("ready", 0);
    for round in 1.. {
        let mut bytes = 0;
        loop {
            match file.read(&mut buffer).with_context(|| format!("reading {name}"))? {
                0 => break,
                read => bytes += read,
            }
        }
        anyhow::ensure!(bytes > 0, "{name} is empty");
        say("scanned", bytes / MIB);
        file.rewind().with_context(|| format!("rewinding {name}, round {round}"))?;
    }
    Ok(())
}

/// Have the kernel allocate memory inside one call (`MADV_POPULATE_WRITE`), as pinning and `MAP_POPULATE` do.
/// Throttled by memory.high in there, a process can't be frozen or stopped, only killed.
#[derive(clap::Args)]
pub(crate) struct Populate {
    /// How much
    #[arg(long, value_name = "MIB", default_value_t = 512)]
    mib: usize,
    #[command(flatten)]
    start: Start,
}

/// Allocates once, then rests.
pub(crate) fn populate(args: &Populate) -> anyhow::Result<()> {
    let heap = Heap::reserve(args.mib)?;
    say("ready", 0);
    args.start.wait();
    say("grow", 0);
    heap.populate().context("populating")?;
    say("grown", heap.used_mib());
    rest()
}

/// Use processor time and no memory to speak of.
#[derive(clap::Args)]
pub(crate) struct Spin {
    /// How many threads
    #[arg(long, default_value_t = 1)]
    threads: usize,
}

/// Runs until it is killed.
pub(crate) fn spin(args: &Spin) -> ! {
    for _ in 0..args.threads {
        std::thread::spawn(|| {
            let mut random = Random::new(3);
            loop {
                std::hint::black_box(random.next());
            }
        });
    }
    say("ready", 0);
    rest()
}
