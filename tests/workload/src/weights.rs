//! Writes a file of weights: incompressible, synced, and out of the page cache.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use rustix::fs::{Advice, fadvise};

use crate::memory::MIB;
use crate::random::Random;

/// Write a file of random content, sync it, and drop it from the page cache.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The file
    file: PathBuf,
    /// Its size
    #[arg(long, value_name = "MIB", default_value_t = 240)]
    mib: usize,
}

/// Runs the sub-command.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    write(&args.file, args.mib)
}

/// Writes the file. One that is there with the right size is only dropped from the page cache.
pub(crate) fn write(path: &Path, mib: usize) -> anyhow::Result<()> {
    let name = path.display();
    if !std::fs::metadata(path).is_ok_and(|file| file.len() == (mib * MIB) as u64) {
        fill(path, mib).with_context(|| format!("writing {name}"))?;
    }
    let file = File::open(path).with_context(|| format!("opening {name}"))?;
    fadvise(&file, 0, None, Advice::DontNeed).with_context(|| format!("dropping {name} from the page cache"))
}

fn fill(path: &Path, mib: usize) -> anyhow::Result<()> {
    let mut out = BufWriter::with_capacity(MIB, File::create(path)?);
    let mut random = Random::new(4);
    let mut block = random.words(MIB / 8).into_iter().flat_map(u64::to_le_bytes).collect::<Vec<_>>();
    for number in 0..mib as u64 {
        // Blocks differ, so that nothing along the way can merge them.
        block[..8].copy_from_slice(&number.to_le_bytes());
        out.write_all(&block)?;
    }
    out.into_inner()?.sync_all()?;
    Ok(())
}
