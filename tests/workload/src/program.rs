//! A program that holds memory, and gives it back when Plimsoll asks for it at the control socket.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::{Value, json};

use crate::heap::Heap;
use crate::memory::MIB;
use crate::say::say;

/// Hold memory, and give half of it back when asked for caches, all of it when asked to unload.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Plimsoll's control socket
    #[arg(long, value_name = "FILE")]
    socket: PathBuf,
    /// What it holds
    #[arg(long, value_name = "MIB", default_value_t = 100)]
    mib: usize,
}

/// Runs until it is killed; a controller that is not there (any more) is waited for.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let heap = Heap::reserve(args.mib).context("reserving memory")?;
    heap.grow(args.mib, None);
    say("ready", heap.used_mib());
    loop {
        if let Err(error) = serve(&args.socket, &heap, args.mib) {
            eprintln!("{error:#}");
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// As long as the controller is there.
fn serve(socket: &Path, heap: &Heap, mib: usize) -> anyhow::Result<()> {
    let (mut hears, mut speaks) = (Line::to(socket)?, Line::to(socket)?);
    let gains = |share: usize| json!({ "host": mib * MIB / share });
    let offers = json!([{ "level": "gc", "gains": gains(2) }, { "level": "unload", "gains": gains(1) }]);
    let registered = hears.call("Register", &json!({ "offers": offers }))?;
    say("registered", heap.used_mib());
    hears.send(&json!({ "method": "dev.plimsoll.Control.Subscribe", "more": true }))?;
    loop {
        let notice = hears.receive()?["parameters"]["notice"].take();
        let request = &notice["request"];
        let Some(level) = request["level"].as_str() else { continue };
        let before = heap.used_mib();
        match level {
            "restore" => heap.grow(mib, None),
            "unload" => heap.shrink(0)?,
            _ => heap.shrink(mib / 2)?,
        }
        say(level, heap.used_mib());
        let freed = (before.saturating_sub(heap.used_mib())) * MIB;
        let answer = json!({
            "session": registered["session"], "request": request["id"], "outcome": "done", "freed": { "host": freed },
        });
        speaks.call("Acknowledge", &answer)?;
    }
}

/// One connection.
struct Line(BufReader<UnixStream>);

impl Line {
    fn to(socket: &Path) -> anyhow::Result<Self> {
        Ok(Self(BufReader::new(UnixStream::connect(socket).context("connecting")?)))
    }

    fn send(&mut self, message: &Value) -> anyhow::Result<()> {
        Ok(self.0.get_mut().write_all((message.to_string() + "\0").as_bytes())?)
    }

    fn receive(&mut self) -> anyhow::Result<Value> {
        let mut text = Vec::new();
        self.0.read_until(0, &mut text)?;
        if text.pop() != Some(0) {
            bail!("the controller hung up");
        }
        Ok(serde_json::from_slice(&text)?)
    }

    fn call(&mut self, method: &str, parameters: &Value) -> anyhow::Result<Value> {
        self.send(&json!({ "method": format!("dev.plimsoll.Control.{method}"), "parameters": parameters }))?;
        let mut answer = self.receive()?;
        if let Some(error) = answer["error"].as_str() {
            bail!("{error}: {}", answer["parameters"]);
        }
        Ok(answer["parameters"].take())
    }
}
