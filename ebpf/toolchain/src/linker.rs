//! Where a `bpf-linker` for a given LLVM is.

use std::env;
use std::path::PathBuf;

use crate::install;

/// The one that `cargo xtask setup` installed, else the first in PATH. Whether one of PATH fits can't be asked:
/// `bpf-linker --version` does not name its LLVM. It is somebody's choice, so it is believed.
pub(crate) fn find(llvm: u32, path: &[PathBuf], cache: Option<PathBuf>) -> Option<PathBuf> {
    let cached = cache.map(|cache| install::linker_root(&cache, llvm).join("bin"));
    cached.iter().chain(path).map(|dir| dir.join("bpf-linker")).find(|file| file.is_file())
}

/// The directories of PATH.
pub(crate) fn path_dirs() -> Vec<PathBuf> {
    env::var_os("PATH").map(|path| env::split_paths(&path).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    fn put(dir: &Path) -> PathBuf {
        fs::create_dir_all(dir).unwrap();
        fs::write(dir.join("bpf-linker"), "").unwrap();
        dir.join("bpf-linker")
    }

    #[test]
    fn the_cached_one_wins_if_it_fits() {
        let root = tempfile::tempdir().unwrap();
        let (cache, path) = (root.path().join("cache"), root.path().join("path"));
        assert_eq!(find(22, std::slice::from_ref(&path), Some(cache.clone())), None);
        let in_path = put(&path);
        let cached = put(&install::linker_root(&cache, 22).join("bin"));
        assert_eq!(find(22, std::slice::from_ref(&path), Some(cache.clone())), Some(cached));
        assert_eq!(find(23, std::slice::from_ref(&path), Some(cache)), Some(in_path.clone()));
        assert_eq!(find(22, &[path], None), Some(in_path));
    }
}
