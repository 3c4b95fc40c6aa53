//! A cgroup for one test, removed with all that runs in it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::world::PATIENCE;

const ROOT: &str = "/sys/fs/cgroup";

pub(super) struct Group {
    path: PathBuf,
    /// Inode of the directory: the kernel's cgroup id.
    pub(super) id: u64,
}

impl Group {
    /// A cgroup below the root.
    pub(super) fn new(name: &str) -> Self {
        Self::make(Path::new(ROOT), name)
    }

    /// A cgroup below this one.
    pub(super) fn child(&self, name: &str) -> Self {
        Self::make(&self.path, name)
    }

    fn make(parent: &Path, name: &str) -> Self {
        fs::write(parent.join("cgroup.subtree_control"), "+memory").expect("the memory controller is there");
        let path = parent.join(name);
        fs::create_dir(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let id = fs::metadata(&path).expect("just made").ino();
        Self { path, id }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Writes one of its files.
    pub(super) fn set(&self, name: &str, value: &str) {
        let file = self.file(name);
        fs::write(&file, value).unwrap_or_else(|error| panic!("{} <- {value}: {error}", file.display()));
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // A test that failed half-way leaves processes; a directory that stays fails the next test by its name.
        let _ = fs::write(self.file("cgroup.kill"), "1");
        let end = Instant::now() + PATIENCE;
        while fs::remove_dir(&self.path).is_err() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
