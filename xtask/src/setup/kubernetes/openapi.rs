//! The one generated file that the source package leaves out: the description of the API, which the API server serves.
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::compile::Go;
use crate::setup::apt;

/// What marks a package whose types are described.
const TAG: &str = "+k8s:openapi-gen=";
/// The generator, from the tree itself.
const GENERATOR: &str = "./vendor/k8s.io/kube-openapi/cmd/openapi-gen";
/// Trees with the tag whose types the API server does not serve.
const OTHERS: [&str; 2] = ["code-generator", "sample-apiserver"];

/// Builds the generator and runs it as the tree's own Makefile does.
pub(super) fn generate(go: &Go<'_>) -> Result<()> {
    println!("  generating the description of the API");
    let generator = go.work.join("openapi-gen");
    go.build(&[], &generator, GENERATOR)?;
    let sources = go.sources();
    let mut dirs = BTreeSet::new();
    for part in ["cmd", "pkg", "plugin"] {
        tagged(&sources.join(part), part, &mut dirs)?;
    }
    // The vendor directory links to these.
    tagged(&sources.join("staging/src/k8s.io"), "vendor/k8s.io", &mut dirs)?;
    let inputs: Vec<_> = dirs.iter().map(|dir| format!("k8s.io/kubernetes/{dir}")).collect();
    let mut command = go.command(&generator);
    command.args([
        "--logtostderr",
        "-p",
        "k8s.io/kubernetes/pkg/generated/openapi",
        "-O",
        "zz_generated.openapi",
    ]);
    command.args(["-h", "vendor/k8s.io/code-generator/hack/boilerplate.go.txt", "-i", &inputs.join(",")]);
    apt::run(command.arg("-r").arg(go.work.join("violations")))
}

/// Adds all directories below `dir` with a tagged Go file, under the name that the compiler knows them by.
fn tagged(dir: &Path, name: &str, found: &mut BTreeSet<String>) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let entry = entry?;
        let (path, file) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        if entry.file_type()?.is_dir() {
            if !OTHERS.contains(&file.as_str()) {
                tagged(&path, &format!("{name}/{file}"), found)?;
            }
        } else if file.ends_with(".go") && !found.contains(name) && has_tag(&path)? {
            found.insert(name.to_owned());
        }
    }
    Ok(())
}

fn has_tag(file: &Path) -> Result<bool> {
    let text = fs::read(file).with_context(|| file.display().to_string())?;
    Ok(text.windows(TAG.len()).any(|window| window == TAG.as_bytes()))
}
