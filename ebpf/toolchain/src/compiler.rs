//! Compilers that can produce eBPF: which are here, and what each lacks.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::linker::path_dirs;

/// The target that all programs are compiled for: every machine that Plimsoll supports is little-endian.
pub(crate) const TARGET: &str = "bpfel-unknown-none";

/// A `rustc` that can compile for BPF.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compiler {
    /// The compiler itself, never rustup's proxy: the proxy would obey the workspace's `rust-toolchain.toml`.
    pub rustc: PathBuf,
    /// Where its libraries lie.
    pub sysroot: PathBuf,
    /// Its version, as it says it.
    pub version: String,
    /// Major version of its LLVM, which the linker has to match.
    pub llvm: u32,
    /// Where `core` comes from.
    pub core: Core,
}

/// Where a compiler's `core` for BPF comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Core {
    /// It was shipped compiled.
    Prebuilt,
    /// Cargo compiles it from `rust-src`.
    Source,
}

impl Compiler {
    /// Every usable compiler, the preferred first.
    #[must_use]
    pub fn find_all() -> Vec<Self> {
        let mut rustcs = vec![PathBuf::from("/usr/bin/rustc")];
        rustcs.extend(path_dirs().iter().map(|dir| dir.join("rustc")));
        rustcs.extend(nightly());
        let mut found: Vec<Self> = Vec::new();
        for rustc in rustcs.into_iter().filter(|rustc| rustc.is_file()) {
            if let Some(compiler) = Self::probe(&rustc)
                && found.iter().all(|other| other.sysroot != compiler.sysroot)
            {
                found.push(compiler);
            }
        }
        found.sort_by_key(|compiler| compiler.core == Core::Source);
        found
    }

    /// Asks one compiler; `None` where it does not run or has no `core` for BPF.
    #[must_use]
    pub fn probe(rustc: &Path) -> Option<Self> {
        let sysroot = PathBuf::from(ask(rustc, &["--print", "sysroot"])?.trim());
        let said = ask(rustc, &["-vV"])?;
        let (version, llvm) = parse_version(&said)?;
        let core = core_of(&sysroot, version.contains("nightly"))?;
        // Behind a proxy the compiler proper is the one in the sysroot.
        let own = sysroot.join("bin/rustc");
        let rustc = if own.is_file() { own } else { rustc.to_owned() };
        Some(Self { rustc, sysroot, version, llvm, core })
    }
}

impl fmt::Display for Compiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}, LLVM {})", self.rustc.display(), self.version, self.llvm)
    }
}

/// rustup's nightly, if it is installed. Newer versions of rustup would fetch it: they are told not to.
fn nightly() -> Option<PathBuf> {
    let mut rustup = Command::new("rustup");
    rustup.args(["which", "--toolchain", "nightly", "rustc"]).env("RUSTUP_AUTO_INSTALL", "0");
    stdout_of(&mut rustup).map(|path| PathBuf::from(path.trim()))
}

fn ask(rustc: &Path, args: &[&str]) -> Option<String> {
    // rustup's proxy fetches what `rust-toolchain.toml` names; a search must not.
    stdout_of(Command::new(rustc).args(args).env("RUSTUP_AUTO_INSTALL", "0"))
}

fn stdout_of(command: &mut Command) -> Option<String> {
    let output = command.output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// First line and LLVM major of `rustc -vV`.
fn parse_version(said: &str) -> Option<(String, u32)> {
    let version = said.lines().next()?.trim();
    let llvm = said.lines().find_map(|line| line.strip_prefix("LLVM version:"))?;
    let major = llvm.trim().split('.').next()?.parse().ok()?;
    version.starts_with("rustc ").then(|| (version.to_owned(), major))
}

fn core_of(sysroot: &Path, nightly: bool) -> Option<Core> {
    let rustlib = sysroot.join("lib/rustlib");
    if has_core(&rustlib.join(TARGET).join("lib")) {
        return Some(Core::Prebuilt);
    }
    // `-Z build-std` is nightly's.
    (nightly && rustlib.join("src/rust/library/core").is_dir()).then_some(Core::Source)
}

fn has_core(lib: &Path) -> bool {
    let Ok(entries) = lib.read_dir() else { return false };
    entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("libcore-"))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A directory that looks like a sysroot, with a compiler that answers as told.
    fn sysroot(version: &str, llvm: &str, files: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for file in files.iter().chain(&["bin/rustc"]) {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let script = format!(
            "#!/bin/sh\ncase $1 in\n--print) echo {};;\n-vV) echo '{version}'; echo 'LLVM version: {llvm}';;\nesac\n",
            root.path().display()
        );
        let rustc = root.path().join("bin/rustc");
        fs::write(&rustc, script).unwrap();
        fs::set_permissions(&rustc, fs::Permissions::from_mode(0o755)).unwrap();
        root
    }

    fn check(version: &str, llvm: &str, files: &[&str], expected: Option<(u32, Core)>) {
        let root = sysroot(version, llvm, files);
        let found = Compiler::probe(&root.path().join("bin/rustc"));
        assert_eq!(
            found.map(|found| (found.llvm, found.core)),
            expected,
            "{version}, LLVM {llvm}, {files:?}"
        );
    }

    const PREBUILT: &str = "lib/rustlib/bpfel-unknown-none/lib/libcore-1.rlib";
    const SOURCE: &str = "lib/rustlib/src/rust/library/core/Cargo.toml";

    #[test]
    fn a_compiler_needs_core() {
        check("rustc 1.96.0 (x)", "22.1.8", &[PREBUILT], Some((22, Core::Prebuilt)));
        check("rustc 1.99.0-nightly (x)", "23.1.0", &[SOURCE], Some((23, Core::Source)));
        check("rustc 1.99.0-nightly (x)", "23.1.0", &[SOURCE, PREBUILT], Some((23, Core::Prebuilt)));
        check("rustc 1.96.0 (x)", "22.1.8", &[SOURCE], None);
        check("rustc 1.96.0 (x)", "22.1.8", &[], None);
    }

    #[test]
    fn a_compiler_needs_a_version() {
        check("cc 12", "22.1.8", &[PREBUILT], None);
        check("rustc 1.96.0 (x)", "unknown", &[PREBUILT], None);
        assert_eq!(Compiler::probe(Path::new("/nonexistent/rustc")), None);
    }
}
