//! The images of the node's pods, in one archive: a shell and the loads of the kernel tests, and the pause container that holds a pod together.
use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::{elf, setup};

/// The sandbox of every pod.
pub(super) const PAUSE: &str = "localhost/pause:1";
/// Its program does nothing, for ever. Every runtime's own is called `pause`, and a sandbox is known by that.
pub(super) const PAUSING: [&str; 5] = ["/usr/bin/pause", "batch-job", "--idle", "--to-mib", "1"];
/// What the containers of pods run.
pub(super) const WORKLOAD: &str = "localhost/workload:1";
/// What busybox is called by in scripts of pods.
const APPLETS: [&str; 8] = ["sh", "sleep", "cat", "echo", "httpd", "wget", "kill", "mkdir"];

/// Writes both images, which share their only layer, as `docker save` would.
pub(super) fn write(workload: &Path, work: &Path, to: &Path) -> Result<()> {
    let layer = work.join("layer.tar");
    pack(workload, &layer)?;
    let digest = sha256(&layer)?;
    let mut archive = tar::Builder::new(BufWriter::new(File::create(to)?));
    archive.append_path_with_name(&layer, "layer.tar")?;
    let mut manifest = Vec::new();
    for (tag, file, command) in
        [(PAUSE, "pause.json", json!(PAUSING)), (WORKLOAD, "workload.json", json!(["/bin/sh"]))]
    {
        add(&mut archive, file, 0o644, config(&command, &digest).to_string().as_bytes())?;
        manifest.push(json!({ "Config": file, "RepoTags": [tag], "Layers": ["layer.tar"] }));
    }
    add(&mut archive, "manifest.json", 0o644, Value::from(manifest).to_string().as_bytes())?;
    archive.into_inner()?.into_inner().map_err(std::io::IntoInnerError::into_error)?;
    Ok(())
}

fn config(command: &Value, layer: &str) -> Value {
    json!({
        "architecture": "amd64", "os": "linux",
        "config": { "Cmd": command, "Env": ["PATH=/bin:/usr/bin"] },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{layer}")] },
    })
}

/// The only layer: busybox, the loads, and what they are linked with.
fn pack(workload: &Path, to: &Path) -> Result<()> {
    let mut layer = tar::Builder::new(BufWriter::new(File::create(to)?));
    let busybox = setup::find("busybox").context("no busybox")?;
    add(&mut layer, "bin/busybox", 0o755, &std::fs::read(busybox)?)?;
    let applets = APPLETS.map(|applet| (format!("bin/{applet}"), "busybox"));
    for (place, target) in applets.into_iter().chain([("usr/bin/pause".into(), "plimsoll-workload")]) {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        header.set_mode(0o777);
        layer.append_link(&mut header, place, target)?;
    }
    add(&mut layer, "usr/bin/plimsoll-workload", 0o755, &elf::stripped(workload)?)?;
    for library in elf::libraries(workload)? {
        add(&mut layer, &inside(&library), 0o755, &std::fs::read(&library)?)?;
    }
    layer.into_inner()?.into_inner().map_err(std::io::IntoInnerError::into_error)?;
    Ok(())
}

fn inside(path: &Path) -> String {
    path.to_string_lossy().trim_start_matches('/').to_owned()
}

fn add<W: std::io::Write>(
    archive: &mut tar::Builder<W>,
    place: &str,
    mode: u32,
    content: &[u8],
) -> Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(mode);
    header.set_mtime(0);
    archive.append_data(&mut header, PathBuf::from(place), content)?;
    Ok(())
}

fn sha256(file: &Path) -> Result<String> {
    let output = Command::new("sha256sum").arg("--").arg(file).output().context("running sha256sum")?;
    ensure!(output.status.success(), "sha256sum: {}", String::from_utf8_lossy(&output.stderr).trim());
    let text = String::from_utf8(output.stdout)?;
    Ok(text.split_whitespace().next().context("sha256sum said nothing")?.to_owned())
}
