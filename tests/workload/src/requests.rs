//! An open-loop client: requests go out on schedule whether or not earlier ones were answered.

use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use plimsoll_workload::record::Request;

use crate::memory;
use crate::socket::Stream;
use crate::time::{nanos, now_ns, parse_span, sleep_until_ns};

/// Send requests on schedule and log the latency of each, counted from the moment it was due. A request is lost
/// when it was refused, never answered, or answered later than a second after it was due.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Address or Unix socket of the model server
    #[arg(long, value_name = "ADDRESS")]
    connect: String,
    /// Distance between two requests
    #[arg(long, value_name = "TIME", value_parser = parse_span, default_value = "20ms")]
    every: Duration,
    /// How long to send
    #[arg(long = "for", value_name = "TIME", value_parser = parse_span)]
    span: Duration,
    /// Where the JSON lines go, written at the end
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// How long to wait for the server to listen
    #[arg(long, value_name = "TIME", value_parser = parse_span, default_value = "30s")]
    patience: Duration,
}

/// When each answer came; 0 = not yet. The index is the request's number.
type Answers = Arc<[AtomicU64]>;

/// Runs the schedule, waits for late answers, writes the log.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let stream = Stream::connect(&args.connect, args.patience)
        .with_context(|| format!("connecting to {}", args.connect))?;
    let count = args.span.as_nanos() / args.every.as_nanos().max(1);
    let answers: Answers = (0..count).map(|_| AtomicU64::new(0)).collect();
    let reader = stream.try_clone()?;
    // Before the thread below, which inherits both. Without the privilege the figures are only less certain.
    for (what, result) in [("locked", memory::lock_all()), ("real-time", memory::real_time(1))] {
        if let Err(error) = result {
            eprintln!("not {what}: {error}");
        }
    }
    let receiver = {
        let answers = answers.clone();
        std::thread::spawn(move || receive(reader, &answers))
    };
    let first = now_ns() + nanos(args.every);
    send(&stream, args, first, answers.len())?;
    let stopped = now_ns();
    // The receiver fails on the closed socket, which is how it ends.
    let _ = stream.shutdown();
    let _ = receiver.join();
    write(args, first, stopped, &answers)
}

/// Sends what is due when it is due, then lets the last ones have their second. A request for which the socket
/// has no room is refused: it is never sent later.
fn send(stream: &Stream, args: &Args, first: u64, count: usize) -> anyhow::Result<()> {
    let mut out = stream.try_clone()?;
    out.set_write_timeout(Duration::from_micros(100))?;
    for id in 0..count as u64 {
        sleep_until_ns(first + id * nanos(args.every));
        // An error is a lost request, seen by its missing answer.
        let _ = out.write_all(&id.to_le_bytes());
    }
    sleep_until_ns(now_ns() + Request::PATIENCE_NS);
    Ok(())
}

/// Notes when answers come.
fn receive(mut stream: Stream, answers: &Answers) {
    let mut id = [0; 8];
    while stream.read_exact(&mut id).is_ok() {
        let index = usize::try_from(u64::from_le_bytes(id)).unwrap_or(usize::MAX);
        if let Some(answer) = answers.get(index) {
            answer.store(now_ns(), Ordering::Release);
        }
    }
}

fn write(args: &Args, first: u64, stopped: u64, answers: &Answers) -> anyhow::Result<()> {
    let file = File::create(&args.out).with_context(|| format!("creating {}", args.out.display()))?;
    let mut out = BufWriter::new(file);
    for (id, answer) in (0_u64..).zip(answers.iter()) {
        let due_ns = first + id * nanos(args.every);
        let at = answer.load(Ordering::Acquire);
        let end = if at == 0 { stopped } else { at };
        let request = Request { due_ns, latency_ns: end.saturating_sub(due_ns), answered: at != 0 };
        serde_json::to_writer(&mut out, &request)?;
        out.write_all(b"\n")?;
    }
    out.flush().with_context(|| format!("writing {}", args.out.display()))
}
