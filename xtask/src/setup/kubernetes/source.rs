//! Sources and compiler, by an apt configuration of our own: the system's is neither changed nor needed to have `deb-src`.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::{GO, VERSION};
use crate::setup::apt::{self, Need};
use crate::setup::has;

/// Unpacks Debian's source packages.
const NEEDS: [Need; 1] = [("dpkg-source", "dpkg-dev")];
/// The release whose package is complete.
const RELEASE: &str = "bookworm";
/// What its archive is signed with; the package debian-archive-keyring.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// Where it is, for a system that is not set up for Debian's archive.
const MIRROR: &str = "http://deb.debian.org/debian";
/// The vendored version of this library makes any program that a Go newer than 1.17 compiles die ("fatal error: fault") at the
/// first map that it walks through; Debian's own package of it is newer.
const REFLECT: &str = "github.com/modern-go/reflect2";

/// Everything unpacked.
pub(super) struct Tree {
    /// Where Debian's binary packages lie.
    packages: PathBuf,
    /// The compiler.
    pub(super) goroot: PathBuf,
    /// The workspace that holds the sources at [`Tree::sources`].
    pub(super) gopath: PathBuf,
}

impl Tree {
    /// The tree of Kubernetes itself.
    pub(super) fn sources(&self) -> PathBuf {
        self.gopath.join("src/k8s.io/kubernetes")
    }

    /// Debian's etcd.
    pub(super) fn etcd(&self) -> PathBuf {
        self.packages.join("usr/bin/etcd")
    }
}

/// Downloads and unpacks.
pub(super) fn fetch(work: &Path) -> Result<Tree> {
    ensure!(
        has("apt-get") && has("dpkg"),
        "Kubernetes comes as a source package of Debian {RELEASE}, and there is no apt-get"
    );
    ensure!(Path::new(KEYRING).is_file(), "no {KEYRING}: the package debian-archive-keyring brings it");
    apt::install(&NEEDS)?;
    let config = configure(&work.join("apt"))?;
    println!("  downloading Kubernetes {VERSION} and Go {GO}");
    let downloads = work.join("downloads");
    fs::create_dir(&downloads)?;
    let apt_get = |arguments: &[&str]| {
        apt::run(Command::new("apt-get").args(arguments).env("APT_CONFIG", &config).current_dir(&downloads))
    };
    apt_get(&["update", "-qq"])?;
    apt_get(&["source", "-qq", "--download-only", "kubernetes"])?;
    let go = ["go", "src"].map(|part| format!("golang-{GO}-{part}"));
    apt_get(&["download", "-qq", &go[0], &go[1], "etcd-server", "golang-github-modern-go-reflect2-dev"])?;
    unpack(work, &downloads)
}

/// Writes the configuration and returns its path.
fn configure(dir: &Path) -> Result<PathBuf> {
    for part in ["parts", "lists/partial", "cache/archives/partial"] {
        fs::create_dir_all(dir.join(part))?;
    }
    let sources = format!(
        "Types: deb deb-src\nURIs: {}\nSuites: {RELEASE}\nComponents: main\nSigned-By: {KEYRING}\n",
        mirror()?
    );
    fs::write(dir.join("parts/debian.sources"), sources)?;
    let dir_name = dir.to_str().context("the cache's path is not UTF-8")?;
    // The user that apt fetches as by itself may not write into a cache below somebody's home.
    let config = format!(
        "Dir::Etc::SourceList \"/dev/null\";\nDir::Etc::SourceParts \"{dir_name}/parts\";\n\
         Dir::State::Lists \"{dir_name}/lists\";\nDir::Cache \"{dir_name}/cache\";\nAPT::Sandbox::User \"root\";\n"
    );
    let path = dir.join("apt.conf");
    fs::write(&path, config)?;
    Ok(path)
}

/// The mirror of Debian's archive that this system uses, so that one nearby, or a snapshot, is honoured.
fn mirror() -> Result<String> {
    let format = ["--format", "$(REPO_URI) $(COMPONENT)", "Created-By: Packages"];
    let known = apt::output(Command::new("apt-get").arg("indextargets").args(format))?;
    let debian = |line: &str| {
        let uri = line.strip_suffix(" main")?.trim_end_matches('/');
        uri.ends_with("/debian").then(|| uri.to_owned())
    };
    Ok(known.lines().find_map(debian).unwrap_or_else(|| MIRROR.to_owned()))
}

fn unpack(work: &Path, downloads: &Path) -> Result<Tree> {
    println!("  unpacking");
    let tree = Tree { packages: work.join("packages"), goroot: work.join("go"), gopath: work.join("gopath") };
    for deb in with_extension(downloads, "deb")? {
        apt::run(Command::new("dpkg").arg("-x").arg(&deb).arg(&tree.packages))?;
    }
    // Debian's package is a tree of links into /usr/share, which does not exist here.
    let installed = tree.packages.join("usr/lib").join(format!("go-{GO}"));
    copy(&installed, &tree.goroot)?;
    fs::create_dir_all(tree.gopath.join("src/k8s.io"))?;
    let description = with_extension(downloads, "dsc")?.pop().context("apt-get downloaded no .dsc")?;
    let name = description.to_string_lossy().into_owned();
    ensure!(name.contains(&format!("really{VERSION}-")), "{name} is not version {VERSION}");
    // apt has checked its hash against the signed Release file; the maintainers' keyring is another package.
    apt::run(Command::new("dpkg-source").args(["--no-check", "-x"]).arg(&description).arg(tree.sources()))?;
    let vendored = tree.sources().join("vendor").join(REFLECT);
    fs::remove_dir_all(&vendored).with_context(|| vendored.display().to_string())?;
    copy(&tree.packages.join("usr/share/gocode/src").join(REFLECT), &vendored)?;
    Ok(tree)
}

/// Follows links.
fn copy(from: &Path, to: &Path) -> Result<()> {
    apt::run(Command::new("cp").args(["-rL", "--no-target-directory"]).args([from, to]))
}

fn with_extension(dir: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).with_context(|| dir.display().to_string())?.flatten();
    let named = entries.map(|entry| entry.path()).filter(|path| path.extension() == Some(extension.as_ref()));
    Ok(named.collect())
}
