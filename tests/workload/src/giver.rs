//! A model server that gives memory back when it is asked in the ways that any program can be: by a signal, or by what
//! `MEMORY_PRESSURE_WATCH` names.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use crate::memory::{MIB, PAGE, Region};
use crate::say::say;
use crate::signals::{Awaited, real_time};

/// 20 MiB a second.
const A_MIB_TAKES: Duration = Duration::from_millis(50);

/// Hold a model and a cache; drop the cache when poked at `MEMORY_PRESSURE_WATCH`, drop the model at `SIGRTMIN+1`, load it again at
/// `SIGRTMIN+2`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// What the model takes
    #[arg(long, value_name = "MIB", default_value_t = 100)]
    model_mib: usize,
    /// What the cache takes; it is not filled again
    #[arg(long, value_name = "MIB", default_value_t = 0)]
    cache_mib: usize,
}

/// Runs until it is killed.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let (unload, restore) = (real_time(1), real_time(2));
    // Before any thread is started: threads inherit what is blocked.
    let signals = Awaited::block(&[unload, restore])?;
    let (model, cache) = (full(args.model_mib)?, Arc::new(full(args.cache_mib)?));
    if let Some(socket) = std::env::var_os("MEMORY_PRESSURE_WATCH") {
        let (mut socket, cache) = (UnixStream::connect(socket)?, Arc::clone(&cache));
        std::thread::spawn(move || {
            while socket.read(&mut [0; 64]).is_ok_and(|len| len > 0) {
                let trimmed = cache.release_from(0);
                say(if trimmed.is_ok() { "trimmed" } else { "not trimmed" }, 0);
            }
        });
    }
    say("ready", args.model_mib);
    loop {
        if signals.next()? == unload {
            model.release_from(0)?;
            say("unloaded", 0);
        } else {
            touch(&model);
            say("restored", args.model_mib);
        }
    }
}

fn full(mib: usize) -> std::io::Result<Region> {
    let region = Region::anonymous((mib * MIB).max(MIB))?;
    if mib > 0 {
        touch(&region);
    }
    Ok(region)
}

/// At the pace of a disk: growth that fills the machine within seconds would be braked.
fn touch(region: &Region) {
    for page in 0..region.pages() {
        region.dirty(page);
        if (page * PAGE).is_multiple_of(MIB) {
            std::thread::sleep(A_MIB_TAKES);
        }
    }
}
