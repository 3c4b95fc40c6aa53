//! Packs the guest's root filesystem: init, modules, the caller's files and the libraries they are linked with.
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use cpio::newc::{self, ModeFileType};
use plimsoll_init::{MODULES_DIR, SPEC_PATH, Spec};

use super::{Boot, modules};
use crate::elf::{is_elf, libraries, stripped};

/// One node of the archive.
enum Node {
    Dir,
    File { mode: u32, content: Vec<u8> },
    Link { target: PathBuf },
}

/// Guest path to node. Sorted, so that a directory comes before what is in it.
type Tree = BTreeMap<PathBuf, Node>;

/// Writes the initramfs, uncompressed: inflating it would cost the emulator more than reading it.
pub(super) fn write(boot: &Boot, init: &Path, to: &Path) -> Result<()> {
    let mut tree = Tree::new();
    add_file(&mut tree, init, Path::new("/init"))?;
    for (host, guest) in boot.files.iter().filter(|(_, guest)| !guest.starts_with("/data")) {
        add_file(&mut tree, host, guest)?;
    }
    // An operating system has libraries of its own.
    for (host, _) in boot.trees.iter().filter(|_| boot.system.is_none()) {
        for library in libraries_of_all(host)? {
            add_file(&mut tree, &library, &library)?;
        }
    }
    for (place, target) in &boot.links {
        add(&mut tree, place, Node::Link { target: target.clone() });
    }
    for (number, (name, content)) in modules::modules(boot)?.into_iter().enumerate() {
        let place = Path::new(MODULES_DIR).join(format!("{number:02}-{name}.ko"));
        add(&mut tree, &place, Node::File { mode: 0o644, content });
    }
    let spec = serde_json::to_vec(&spec(boot))?;
    add(&mut tree, Path::new(SPEC_PATH), Node::File { mode: 0o644, content: spec });
    archive(tree, to).with_context(|| to.display().to_string())
}

fn spec(boot: &Boot) -> Spec {
    let swap = match boot.swap {
        super::Swap::None => plimsoll_init::Swap::None,
        super::Swap::Zram { mib } => plimsoll_init::Swap::Zram { bytes: u64::from(mib) << 20 },
        super::Swap::Disk { .. } => plimsoll_init::Swap::Disk,
    };
    let defaults =
        [("PATH", "/bin:/usr/bin:/usr/sbin:/"), ("HOME", "/"), ("TERM", "linux"), ("RUST_BACKTRACE", "1")];
    let mut env: BTreeMap<_, _> = defaults.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    env.extend(boot.env.clone());
    Spec {
        command: boot.command.clone(),
        env,
        swap,
        data: boot.data_mib.is_some(),
        interactive: boot.interactive,
        system: boot.system.is_some(),
    }
}

/// Adds a file and, for a program, the libraries that it needs at the places where it looks for them.
fn add_file(tree: &mut Tree, host: &Path, guest: &Path) -> Result<()> {
    let mut content = std::fs::read(host).with_context(|| host.display().to_string())?;
    let mode = std::fs::metadata(host)?.permissions().mode() & 0o7777;
    let program = content.starts_with(b"\x7fELF");
    if program {
        content = stripped(host)?;
    }
    add(tree, guest, Node::File { mode, content });
    if program {
        for library in libraries(host)? {
            if !tree.contains_key(&library) {
                let content = std::fs::read(&library).with_context(|| library.display().to_string())?;
                add(tree, &library, Node::File { mode: 0o755, content });
            }
        }
    }
    Ok(())
}

fn add(tree: &mut Tree, place: &Path, node: Node) {
    for dir in place.ancestors().skip(1).filter(|dir| *dir != Path::new("/") && *dir != Path::new("")) {
        tree.entry(dir.to_owned()).or_insert(Node::Dir);
    }
    tree.insert(place.to_owned(), node);
}

/// What the programs and libraries in a directory of the host are linked with, outside of it.
fn libraries_of_all(dir: &Path) -> Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    let mut pending = vec![dir.to_owned()];
    while let Some(path) = pending.pop() {
        if path.is_dir() {
            let entries = std::fs::read_dir(&path).with_context(|| path.display().to_string())?;
            pending.extend(entries.flatten().map(|entry| entry.path()));
        } else if is_elf(&path)? {
            found.extend(libraries(&path)?.into_iter().filter(|library| !library.starts_with(dir)));
        }
    }
    Ok(found)
}

/// Writes the tree as a newc archive. /dev/console comes from the archive that is built into every kernel.
fn archive(tree: Tree, to: &Path) -> Result<()> {
    let mut file = BufWriter::new(File::create(to)?);
    for (number, (place, node)) in (1..).zip(tree) {
        let (kind, mode, content) = match node {
            Node::Dir => (ModeFileType::Directory, 0o755, Vec::new()),
            Node::File { mode, content } => (ModeFileType::Regular, mode, content),
            Node::Link { target } => (ModeFileType::Symlink, 0o777, target.into_os_string().into_vec()),
        };
        let name = place.strip_prefix("/").unwrap_or(&place).to_string_lossy().into_owned();
        let entry = newc::Builder::new(&name).ino(number).mode(mode).set_mode_file_type(kind);
        let mut writer = entry.write(&mut file, u32::try_from(content.len())?);
        writer.write_all(&content)?;
        writer.finish()?;
    }
    newc::trailer(&mut file)?.flush()?;
    Ok(())
}
