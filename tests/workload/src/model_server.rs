//! A model server: weights mapped from a file, a KV cache in anonymous memory, and requests answered over a socket.

use std::fs::File;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;

use crate::heap::Heap;
use crate::memory::Region;
use crate::random::Random;
use crate::say::{Start, say};
use crate::socket::{Listener, Stream};
use crate::time::parse_span;

/// Serve a model: every request reads random pages of the weights, dirties random pages of the KV cache and
/// computes a fixed amount. A request is 8 bytes, the answer the same 8 bytes.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// File with the weights, on a file system with a disk behind it, so that its pages can be evicted and read again
    #[arg(long, value_name = "FILE")]
    weights: PathBuf,
    /// Size of the KV cache
    #[arg(long, value_name = "MIB", default_value_t = 80)]
    kv_mib: usize,
    /// Address (`127.0.0.1:8000`) or path of a Unix socket
    #[arg(long, value_name = "ADDRESS")]
    listen: String,
    /// Threads that answer requests
    #[arg(long, default_value_t = 2)]
    workers: usize,
    /// Random pages of the weights that a request reads
    #[arg(long, default_value_t = 400)]
    model_pages: usize,
    /// Random pages of the KV cache that a request writes
    #[arg(long, default_value_t = 112)]
    kv_pages: usize,
    /// Rounds of arithmetic per request; the default takes about 2 ms at 250 million instructions a second
    #[arg(long, default_value_t = 75_000)]
    rounds: u64,
    /// Let the KV cache grow by this much ...
    #[arg(long, value_name = "MIB", default_value_t = 0)]
    grow_mib: usize,
    #[command(flatten)]
    start: Start,
    /// ... over this long ...
    #[arg(long, value_name = "TIME", value_parser = parse_span, default_value = "3s")]
    grow_over: Duration,
    /// ... and shrink again this long after it has grown
    #[arg(long, value_name = "TIME", value_parser = parse_span)]
    release_after: Option<Duration>,
}

/// What the workers share.
struct Model {
    weights: Region,
    kv: Heap,
    model_pages: usize,
    kv_pages: usize,
    rounds: u64,
}

/// A request and where its answer goes.
struct Request {
    id: [u8; 8],
    client: Arc<Mutex<Stream>>,
}

/// Serves until it is killed.
pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let model = Arc::new(load(&args)?);
    let listener = Listener::bind(&args.listen).with_context(|| format!("listening at {}", args.listen))?;
    let (sender, receiver) = channel();
    let receiver = Arc::new(Mutex::new(receiver));
    for seed in 0..args.workers.max(1) {
        let (model, receiver) = (model.clone(), receiver.clone());
        std::thread::spawn(move || work(&model, &receiver, seed as u64));
    }
    say("ready", args.kv_mib);
    std::thread::spawn(move || grow(&model, &args));
    loop {
        let (stream, sender) = (listener.accept()?, sender.clone());
        std::thread::spawn(move || read_requests(stream, &sender));
    }
}

/// Maps the weights, reads them all once, and fills the KV cache.
fn load(args: &Args) -> anyhow::Result<Model> {
    let file = File::open(&args.weights).with_context(|| format!("opening {}", args.weights.display()))?;
    let weights = Region::file(&file).with_context(|| format!("mapping {}", args.weights.display()))?;
    anyhow::ensure!(weights.pages() > 0, "{} is smaller than a page", args.weights.display());
    let sum = (0..weights.pages()).fold(0_u64, |sum, page| sum.wrapping_add(weights.read(page)));
    std::hint::black_box(sum);
    let kv = Heap::reserve(args.kv_mib + args.grow_mib)?;
    kv.grow(args.kv_mib, None);
    Ok(Model { weights, kv, model_pages: args.model_pages, kv_pages: args.kv_pages, rounds: args.rounds })
}

/// The growth of the KV cache, and its end.
fn grow(model: &Model, args: &Args) {
    if args.grow_mib == 0 {
        return;
    }
    args.start.wait();
    say("grow", model.kv.used_mib());
    let rate = args.grow_mib as f64 / args.grow_over.as_secs_f64().max(0.001);
    model.kv.grow(args.kv_mib + args.grow_mib, Some((rate as usize).max(1)));
    say("grown", model.kv.used_mib());
    if let Some(after) = args.release_after {
        std::thread::sleep(after);
        match model.kv.shrink(args.kv_mib) {
            Ok(()) => say("released", model.kv.used_mib()),
            Err(error) => eprintln!("giving memory back: {error}"),
        }
    }
}

/// Passes one client's requests to the workers until it hangs up.
fn read_requests(mut stream: Stream, sender: &Sender<Request>) {
    let Ok(client) = stream.try_clone().map(|client| Arc::new(Mutex::new(client))) else { return };
    let mut id = [0; 8];
    while stream.read_exact(&mut id).is_ok() {
        if sender.send(Request { id, client: client.clone() }).is_err() {
            return;
        }
    }
}

/// Answers requests in the order in which they came.
fn work(model: &Model, receiver: &Mutex<Receiver<Request>>, seed: u64) {
    let mut random = Random::new(seed + 100);
    loop {
        let next = locked(receiver).recv();
        let Ok(Request { id, client }) = next else { return };
        answer(model, &mut random);
        // A client that has gone away does not need its answer.
        let _ = locked(&client).write_all(&id);
    }
}

/// What one request costs.
fn answer(model: &Model, random: &mut Random) {
    let mut sum = 0_u64;
    for _ in 0..model.model_pages {
        sum = sum.wrapping_add(model.weights.read(random.below(model.weights.pages())));
    }
    model.kv.touch(random, model.kv_pages);
    for _ in 0..model.rounds {
        sum = std::hint::black_box(sum.rotate_left(5).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    }
    std::hint::black_box(sum);
}

/// A worker that panicked leaves nothing half done: the queue and the socket stay usable.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
