//! The default policy on a modelled fleet larger than the unit tests have time for.
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::build;
use crate::tally::Tally;

/// What must not happen on any machine, by its name in the report.
const NEVER: [&str; 3] = ["panics", "forbidden", "oom_kills"];
/// Machine-hours: half a minute of one processor.
const MACHINES: &str = "150";

/// One test for each thing that must not happen.
pub(super) fn run() -> Result<Tally> {
    let program = build::program("plimsoll")?;
    let output = Command::new(&program)
        .args(["simulate", "--machines", MACHINES, "--preset", "default", "--without-kernel", "--json"])
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("running {}", program.display()))?;
    ensure!(output.status.success(), "plimsoll simulate ended with {}", output.status);
    let report: Value = serde_json::from_slice(&output.stdout).context("the report of plimsoll simulate")?;
    let mut tally = Tally::default();
    for what in NEVER {
        let times =
            report["policies"][0][what].as_u64().with_context(|| format!("no {what} in the report"))?;
        tally.passed += usize::from(times == 0);
        tally.failed += usize::from(times > 0);
        if times > 0 {
            println!("{what}: {times} on {MACHINES} machines; plimsoll simulate says where");
        }
    }
    Ok(tally)
}
