//! Builds the programs that guests run, and says where they are.
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

/// The root of the checkout.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the root of the checkout")
}

/// The cargo that runs us.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// The option, where nobody watches: a person wants to see that it goes on, a log needs only what is wrong.
pub(crate) fn silence(option: &str) -> Option<&str> {
    (!std::io::stderr().is_terminal()).then_some(option)
}

/// A program that cargo built.
#[derive(Debug, Clone)]
pub(crate) struct Artifact {
    /// Name of the target.
    pub(crate) name: String,
    /// The file.
    pub(crate) path: PathBuf,
}

/// Runs `cargo build` or `cargo test --no-run` with the `vm` profile and returns the programs.
pub(crate) fn build(arguments: &[&str]) -> Result<Vec<Artifact>> {
    build_as("vm", arguments)
}

fn build_as(profile: &str, arguments: &[&str]) -> Result<Vec<Artifact>> {
    let mut command = cargo();
    let (verb, rest) = arguments.split_first().context("no cargo command")?;
    command.arg(verb).args(silence("--quiet")).args(rest);
    command.args(["--profile", profile, "--message-format=json-render-diagnostics"]);
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().context("running cargo")?;
    ensure!(output.status.success(), "cargo {} failed", arguments.join(" "));
    Ok(artifacts(&output.stdout))
}

/// The programs that cargo's messages name.
pub(crate) fn artifacts(messages: &[u8]) -> Vec<Artifact> {
    String::from_utf8_lossy(messages).lines().filter_map(artifact).collect()
}

/// Builds what runs in guests with the `vm` profile: all of it at once, whoever asks. cargo would choose other features of shared
/// dependencies for another choice of packages, and build those once more.
pub(crate) fn programs() -> Result<Vec<Artifact>> {
    let packages = ["plimsoll", "plimsoll-workload", "plimsoll-init"].map(|name| ["-p", name]);
    build(&[&["build"], packages.as_flattened(), &["--bins"]].concat())
}

/// One of them.
pub(crate) fn program(name: &str) -> Result<PathBuf> {
    find(programs()?, name)
}

/// Builds one program with a profile and returns its path.
pub(crate) fn program_as(profile: &str, package: &str, name: &str) -> Result<PathBuf> {
    find(build_as(profile, &["build", "-p", package, "--bin", name])?, name)
}

fn find(artifacts: Vec<Artifact>, name: &str) -> Result<PathBuf> {
    let found = artifacts.into_iter().find(|artifact| artifact.name == name);
    Ok(found.with_context(|| format!("cargo built no {name}"))?.path)
}

/// The guest's init, built once per run.
pub(crate) fn init() -> Result<PathBuf> {
    static INIT: OnceLock<PathBuf> = OnceLock::new();
    if let Some(path) = INIT.get() {
        return Ok(path.clone());
    }
    let path = program("plimsoll-init")?;
    Ok(INIT.get_or_init(|| path).clone())
}

#[derive(Deserialize)]
struct Message {
    target: Target,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}

/// A line of cargo's output that names a program.
fn artifact(line: &str) -> Option<Artifact> {
    let message: Message = serde_json::from_str(line).ok()?;
    Some(Artifact { name: message.target.name, path: message.executable? })
}
