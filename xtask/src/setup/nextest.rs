//! The test runner.
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use super::{cache, find, is_program};

/// A version that the pinned compiler builds.
const VERSION: &str = "0.9.143";

/// cargo-nextest: from PATH, from the cache, or built into the cache.
pub(crate) fn nextest() -> Result<PathBuf> {
    if let Some(path) = find("cargo-nextest") {
        return Ok(path);
    }
    let root = cache()?.join(format!("cargo-nextest-{VERSION}"));
    let path = root.join("bin/cargo-nextest");
    if !is_program(&path) {
        println!("  cargo install cargo-nextest {VERSION} (some minutes)");
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let status = Command::new(cargo)
            .args(["install", "cargo-nextest", "--quiet", "--locked", "--version", VERSION, "--root"])
            .arg(&root)
            .stdin(Stdio::null())
            .status()
            .context("running cargo install")?;
        ensure!(status.success(), "cargo-nextest could not be installed");
    }
    Ok(path)
}
