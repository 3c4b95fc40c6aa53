//! A real control plane and kubelet, built from the last Debian release that ships their whole source.
//!
//! No registry has these programs. Debian bookworm's source package `kubernetes` is the complete upstream tree with its vendored
//! dependencies; later releases are stripped to kubectl. 35 MB of it, 85 MB of compiler and etcd, four minutes on two processors.
mod compile;
mod openapi;
mod source;

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::{cache, is_program};

/// Its version, which Debian calls 1.20.5+really1.20.2.
const VERSION: &str = "1.20.2";
/// What it is built with: the oldest compiler in Debian that is new enough for the tree's `reflect2`.
const GO: &str = "1.19";
/// What is built, the one that most others wait for first: the packages that they share are compiled with it.
const PROGRAMS: [&str; 5] =
    ["kube-apiserver", "kubectl", "kube-controller-manager", "kube-scheduler", "kubelet"];
/// What Debian ships built.
const ETCD: &str = "etcd";

/// The directory of etcd, kube-apiserver, kube-controller-manager, kube-scheduler, kubelet and kubectl: from the cache, else built there.
pub(crate) fn kubernetes() -> Result<PathBuf> {
    let root = cache()?.join(format!("kubernetes-{VERSION}-go{GO}"));
    if !complete(&root) {
        // Other checkouts share the cache, and two builds of this at once would take the whole machine.
        let lock = cache()?.join("kubernetes.lock");
        let lock = File::create(&lock).with_context(|| lock.display().to_string())?;
        lock.lock().context("waiting for another build of Kubernetes")?;
        if !complete(&root) {
            make(&root).with_context(|| format!("building Kubernetes {VERSION}"))?;
        }
    }
    Ok(root)
}

fn complete(root: &Path) -> bool {
    PROGRAMS.iter().chain([&ETCD]).all(|program| is_program(&root.join(program)))
}

/// Sources, compiler and build cache (2.6 GB) are gone afterwards; 450 MB of programs stay.
fn make(root: &Path) -> Result<()> {
    let work = root.with_extension("partial");
    // What an interrupted build left.
    if work.exists() {
        fs::remove_dir_all(&work).with_context(|| work.display().to_string())?;
    }
    fs::create_dir_all(&work).with_context(|| work.display().to_string())?;
    let made = build(&work, root);
    fs::remove_dir_all(&work).with_context(|| work.display().to_string())?;
    made
}

fn build(work: &Path, root: &Path) -> Result<()> {
    println!("  Kubernetes {VERSION} is built from source, once (about five minutes on two processors)");
    let programs = work.join("programs");
    fs::create_dir(&programs)?;
    let tree = source::fetch(work)?;
    fs::copy(tree.etcd(), programs.join(ETCD)).context("etcd")?;
    let go = compile::Go::new(&tree, work);
    openapi::generate(&go)?;
    for program in PROGRAMS {
        go.program(program, &programs)?;
    }
    // Renamed when complete: an interrupted set-up leaves no half of it.
    fs::rename(&programs, root).with_context(|| root.display().to_string())
}
