//! Go as that tree wants it: in a GOPATH, without modules, and without the network.
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::VERSION;
use super::source::Tree;
use crate::setup::apt;

/// The compiler and the tree.
pub(super) struct Go<'a> {
    tree: &'a Tree,
    /// Where what belongs to nobody may lie: the build cache, tools.
    pub(super) work: &'a Path,
}

impl<'a> Go<'a> {
    pub(super) fn new(tree: &'a Tree, work: &'a Path) -> Self {
        Self { tree, work }
    }

    /// The tree of Kubernetes.
    pub(super) fn sources(&self) -> PathBuf {
        self.tree.sources()
    }

    /// A command in the tree that finds compiler and packages.
    pub(super) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.sources()).env("GOROOT", &self.tree.goroot).env("GOPATH", &self.tree.gopath);
        command.env("GOCACHE", self.work.join("build")).env("GOENV", "off").env("GOFLAGS", "");
        // No C: what comes out runs in any guest.
        command.envs([
            ("GO111MODULE", "off"),
            ("GOPROXY", "off"),
            ("GOTOOLCHAIN", "local"),
            ("CGO_ENABLED", "0"),
        ]);
        let rest = std::env::var_os("PATH").unwrap_or_default();
        let path = std::iter::once(self.tree.goroot.join("bin")).chain(std::env::split_paths(&rest));
        command.env("PATH", std::env::join_paths(path).unwrap_or(rest.clone()));
        command
    }

    /// `go build` into a file or an existing directory.
    pub(super) fn build(&self, flags: &[&str], output: &Path, package: &str) -> Result<()> {
        let mut command = self.command(&self.tree.goroot.join("bin/go"));
        command.arg("build").args(flags).arg("-o").arg(output).arg(package);
        apt::run(&mut command).with_context(|| package.to_owned())
    }

    /// One of Kubernetes' programs, which says its version: clients are told v0.0.0-master otherwise.
    pub(super) fn program(&self, name: &str, into: &Path) -> Result<()> {
        println!("  building {name}");
        let package = "k8s.io/kubernetes/vendor/k8s.io/component-base/version";
        let mut parts = VERSION.split('.');
        let (major, minor) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let flags = format!(
            "-s -w -X {package}.gitVersion=v{VERSION} -X {package}.gitMajor={major} -X {package}.gitMinor={minor}"
        );
        self.build(&["-ldflags", &flags], &into.join(name), &format!("./cmd/{name}"))
    }
}
