//! Promises of the manifests: one table of lints for all, and a policy crate that can't do I/O.
#![expect(clippy::unwrap_used, reason = "helpers of tests: what can't go on shall say where, and no more")]

use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// What cargo knows of the workspace's own crates.
fn packages() -> Vec<Value> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    metadata["packages"].as_array().unwrap().clone()
}

#[test]
fn every_crate_inherits_the_lint_table() {
    let packages = packages();
    assert!(packages.len() >= 6, "{} crates found", packages.len());
    for package in packages {
        let path = package["manifest_path"].as_str().unwrap();
        let manifest = std::fs::read_to_string(path).unwrap();
        assert!(
            manifest.contains("[lints]\nworkspace = true"),
            "{path} does not inherit the workspace's lints"
        );
    }
}

#[test]
fn the_policy_depends_on_nothing_that_does_io() {
    let packages = packages();
    let policy = packages.iter().find(|package| package["name"] == "plimsoll-policy").unwrap();
    let dependencies = policy["dependencies"].as_array().unwrap();
    let shipped = dependencies.iter().filter(|dependency| dependency["kind"] != "dev");
    let mut names: Vec<_> = shipped.map(|dependency| dependency["name"].as_str().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["serde", "thiserror"]);
}
