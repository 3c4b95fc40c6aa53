//! The systemd units are what systemd takes them for. Without `systemd-analyze` there is nothing to ask.
#![expect(clippy::unwrap_used, reason = "what can't go on in a test shall say where, and no more")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn manifests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests")
}

/// What systemd says of the service, with a model server ordered after it. `None` where there is no systemd.
fn verified() -> Option<String> {
    let dir = tempfile::tempdir().unwrap();
    // It looks whether the program is there.
    let service = fs::read_to_string(manifests().join("plimsoll.service")).unwrap();
    fs::write(dir.path().join("plimsoll.service"), service.replace("/usr/bin/plimsoll", "/bin/true"))
        .unwrap();
    fs::write(dir.path().join("model.service"), "[Service]\nExecStart=/bin/true\n").unwrap();
    let drop_in = dir.path().join("model.service.d");
    fs::create_dir(&drop_in).unwrap();
    fs::copy(manifests().join("model-service.conf"), drop_in.join("plimsoll.conf")).unwrap();
    let units = ["plimsoll.service", "model.service"].map(|name| dir.path().join(name));
    let output = Command::new("systemd-analyze").args(["verify", "--man=no"]).args(units).output().ok()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    // Units of this machine that it finds on the way are not ours.
    Some(said.lines().filter(|line| line.contains("plimsoll") || line.contains("model")).collect())
}

#[test]
fn systemd_finds_nothing_wrong_with_the_units() {
    match verified() {
        Some(said) => assert_eq!(said, ""),
        None => eprintln!("no systemd-analyze here: the units were not verified"),
    }
}

/// Ordinary services are ordered after basic.target.
#[test]
fn the_service_is_up_before_ordinary_services() {
    let service = fs::read_to_string(manifests().join("plimsoll.service")).unwrap();
    for line in ["Type=notify", "DefaultDependencies=no", "WantedBy=basic.target"] {
        assert!(service.lines().any(|found| found == line), "{line}");
    }
    assert!(service.lines().any(|line| line.starts_with("Before=basic.target")));
}
