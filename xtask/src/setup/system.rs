//! The operating system of the node VM: Debian with systemd, containerd and runc, as an ext4 image in the cache.
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::apt::{self, Need};
use super::{cache, path_with_sbin};
use crate::build;
use crate::vm::Kernel;

const NEEDS: [Need; 2] = [("mmdebstrap", "mmdebstrap"), ("mke2fs", "e2fsprogs")];
/// Bookworm: its containerd 1.6 and runc 1.1 are what nodes run that are not quite new.
const SUITE: &str = "bookworm";
const MIRROR: &str = "http://deb.debian.org/debian";
/// Beyond the essential ones. kubelet wants mount, conntrack and ethtool; busybox is for images.
const PACKAGES: [&str; 16] = [
    "systemd",
    "systemd-sysv",
    "dbus",
    "kmod",
    "procps",
    "iproute2",
    "iptables",
    "containerd",
    "runc",
    "crun",
    "containernetworking-plugins",
    "ca-certificates",
    "conntrack",
    "ethtool",
    "mount",
    "busybox-static",
];
/// Documentation nobody reads there.
const LEFT_OUT: [&str; 4] = ["doc", "man", "locale", "info"];
/// Makes a node of a plain Debian; lies beside the files that it adds.
const FINISH: &str = "tests/node/finish.sh";
/// Room for images and what containers write. The file is sparse.
const MIB: u64 = 4096;

/// The image, made in about half a minute when packages, our files or the kernel have changed. It is never written to.
pub(crate) fn system(kernel: &Kernel) -> Result<PathBuf> {
    let image = cache()?.join(format!("node-{}-{:016x}.img", kernel.release, made_of(kernel)?));
    if !image.is_file() {
        apt::install(&NEEDS)?;
        println!("  assembling a node from Debian {SUITE} (half a minute, once)");
        let work = tempfile::tempdir_in(cache()?)?;
        let tree = work.path().join("tree");
        bootstrap(&tree)?;
        let finish = build::root().join(FINISH);
        let arguments = [finish.as_path(), &tree, Path::new(&kernel.release), &kernel.modules];
        apt::run(Command::new("sh").args(arguments).env("PATH", path_with_sbin()))?;
        let half = work.path().join("image");
        pack(&tree, &half)?;
        // Renamed when complete: an interrupted set-up leaves no half of it.
        fs::rename(&half, &image).with_context(|| image.display().to_string())?;
    }
    Ok(image)
}

fn bootstrap(tree: &Path) -> Result<()> {
    let mut command = Command::new("mmdebstrap");
    // A directory whose files belong to root can only be made by root.
    command.args(["--mode=root", "--format=directory", "--variant=minbase", "--quiet"]);
    command.arg(format!("--include={}", PACKAGES.join(",")));
    command.args(LEFT_OUT.map(|what| format!("--dpkgopt=path-exclude=/usr/share/{what}/*")));
    apt::run(command.arg(SUITE).arg(tree).arg(MIRROR).env("PATH", path_with_sbin()))
}

/// Packs a tree into an ext4 image. No journal: whatever a boot writes is forgotten.
fn pack(tree: &Path, image: &Path) -> Result<()> {
    File::create(image)?.set_len(MIB << 20)?;
    let options = ["-q", "-F", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-d"];
    apt::run(Command::new("mke2fs").args(options).args([tree, image]).env("PATH", path_with_sbin()))
}

/// Other packages, other files or another kernel are another image.
fn made_of(kernel: &Kernel) -> Result<u64> {
    let mut hasher = DefaultHasher::new();
    (SUITE, PACKAGES, LEFT_OUT, MIB, &kernel.release).hash(&mut hasher);
    let dir = build::root().join(FINISH);
    hash_tree(dir.parent().context("a script lies in a directory")?, &mut hasher)?;
    Ok(hasher.finish())
}

/// Names and contents of the files that the image is given.
fn hash_tree(dir: &Path, hasher: &mut DefaultHasher) -> Result<()> {
    let entries = fs::read_dir(dir).with_context(|| dir.display().to_string())?;
    let mut paths: Vec<_> = entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    paths.sort();
    for path in paths {
        path.file_name().hash(hasher);
        if path.is_dir() {
            hash_tree(&path, hasher)?;
        } else {
            fs::read(&path).with_context(|| path.display().to_string())?.hash(hasher);
        }
    }
    Ok(())
}
