//! An OCI layout as one archive that is the same bytes whenever it is made.
use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::Value;

/// containerd takes the image's whole name from the second; others read the first, which is the standard's.
const NAMES: [&str; 2] = ["org.opencontainers.image.ref.name", "io.containerd.image.name"];

/// Packs a layout, with the image's name in its index.
pub(super) fn write(layout: &Path, name: &str, to: &Path) -> Result<()> {
    if let Some(dir) = to.parent() {
        fs::create_dir_all(dir)?;
    }
    let mut archive = tar::Builder::new(BufWriter::new(File::create(to)?));
    add(&mut archive, "oci-layout", &fs::read(layout.join("oci-layout"))?)?;
    let index = fs::read(layout.join("index.json"))?;
    add(&mut archive, "index.json", &named(&index, name)?)?;
    for blob in sorted(&layout.join("blobs/sha256"))? {
        let digest = blob.file_name().and_then(|name| name.to_str()).context("a digest is text")?;
        add(&mut archive, &format!("blobs/sha256/{digest}"), &fs::read(&blob)?)?;
    }
    archive.into_inner()?.into_inner().map_err(std::io::IntoInnerError::into_error)?;
    Ok(())
}

/// The index, which is not addressed by its digest, with both names on the one image that it lists.
fn named(index: &[u8], name: &str) -> Result<Vec<u8>> {
    let mut index: Value = serde_json::from_slice(index).context("index.json")?;
    let image = index.pointer_mut("/manifests/0").and_then(Value::as_object_mut);
    let image = image.context("index.json lists no image")?;
    let names = NAMES.iter().map(|key| ((*key).to_owned(), Value::from(name))).collect();
    image.insert("annotations".to_owned(), Value::Object(names));
    Ok(serde_json::to_vec(&index)?)
}

fn sorted(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).with_context(|| dir.display().to_string())?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    files.sort();
    Ok(files)
}

fn add<W: std::io::Write>(archive: &mut tar::Builder<W>, place: &str, content: &[u8]) -> Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    header.set_mtime(0);
    archive.append_data(&mut header, place, content)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_layout_gives_the_same_bytes_and_both_names() {
        let dir = tempfile::tempdir().unwrap();
        let put = |place: &str, content: &str| {
            let path = dir.path().join(place);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        };
        put("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#);
        put("index.json", r#"{"schemaVersion":2,"manifests":[{"digest":"sha256:b","size":1}]}"#);
        put("blobs/sha256/b", "b");
        put("blobs/sha256/a", "a");
        let [one, two] = ["1.tar", "2.tar"].map(|name| dir.path().join(name));
        write(dir.path(), "localhost/x:1", &one).unwrap();
        put("blobs/sha256/a", "a");
        write(dir.path(), "localhost/x:1", &two).unwrap();
        assert_eq!(fs::read(&one).unwrap(), fs::read(&two).unwrap());
        let mut archive = tar::Archive::new(File::open(&one).unwrap());
        let places: Vec<String> = archive
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap().path().unwrap().display().to_string())
            .collect();
        assert_eq!(places, ["oci-layout", "index.json", "blobs/sha256/a", "blobs/sha256/b"]);
        let index = named(&fs::read(dir.path().join("index.json")).unwrap(), "localhost/x:1").unwrap();
        let index: Value = serde_json::from_slice(&index).unwrap();
        assert!(NAMES.iter().all(|key| index["manifests"][0]["annotations"][key] == "localhost/x:1"));
    }
}
