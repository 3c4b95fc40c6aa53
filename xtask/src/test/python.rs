//! The Python client: its tests with the machine's Python, its types and style with pinned tools.
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::host::{Show, counted, libtest_summary, quiet};
use crate::tally::Tally;
use crate::{build, setup};

/// Where it lives.
const CLIENT: &str = "clients/python";
/// The scenes for a real GPU, seen from there: no types, since they need PyTorch's.
const GPU_SCENES: &str = "../../tests/gpu";
/// What checks it. Both say something new with every version, so they are pinned.
const TOOLS: [&str; 2] = ["mypy==2.4.1", "ruff==0.17.6"];

/// All tests of the client. Nothing is installed for them: it needs only the standard library.
pub(super) fn tests() -> Result<Tally> {
    let mut command = Command::new(setup::python3()?);
    command.current_dir(build::root()).arg(format!("{CLIENT}/tests")).env("PYTHONDONTWRITEBYTECODE", "1");
    counted(&mut command, Show::WhenFailed, libtest_summary)
}

/// Types (strictly) and style.
pub(super) fn lint() -> Result<Tally> {
    let (python, tools) = (setup::python3()?, tools()?);
    let client = build::root().join(CLIENT);
    let cache = |tool: &str| Ok::<_, anyhow::Error>(setup::cache()?.join("python-lint").join(tool));
    let mut types = Command::new(python);
    types.args(["-m", "mypy", "--no-error-summary", "--cache-dir"]).arg(cache("mypy")?);
    quiet(types.current_dir(&client).env("PYTHONPATH", &tools))?;
    for arguments in [&["check", "--quiet"][..], &["format", "--check", "--quiet"]] {
        let mut style = Command::new(tools.join("bin/ruff"));
        style.current_dir(&client).args(arguments).args(["--config", "pyproject.toml", ".", GPU_SCENES]);
        quiet(style.arg("--cache-dir").arg(cache("ruff")?))?;
    }
    Ok(Tally::default())
}

/// The directory of the tools: from the cache, else installed there.
fn tools() -> Result<PathBuf> {
    let dir = setup::cache()?.join(format!("python-tools-{}", TOOLS.join("-").replace("==", "-")));
    if !dir.is_dir() {
        println!("  pip install {}", TOOLS.join(" "));
        let work = tempfile::tempdir_in(setup::cache()?)?;
        let made = work.path().join("tools");
        let mut install = Command::new(setup::python3()?);
        install.args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--only-binary=:all:",
        ]);
        install.env("PIP_ROOT_USER_ACTION", "ignore").arg("--target").arg(&made).args(TOOLS);
        quiet(&mut install)?;
        // Renamed when complete: an interrupted run leaves no half of them.
        std::fs::rename(&made, &dir).with_context(|| dir.display().to_string())?;
    }
    Ok(dir)
}
