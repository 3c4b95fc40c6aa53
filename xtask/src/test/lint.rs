//! Rules of this repository that no compiler checks.
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::build;
use crate::tally::Tally;

/// Words that mark unfinished work, or that hide a suppression without a reason. Split, so that this file passes.
const FORBIDDEN: [(&str, &str); 4] = [
    (concat!("TO", "DO"), "finish it, or file an issue"),
    (concat!("FIX", "ME"), "fix it, or file an issue"),
    (concat!("XX", "X "), "say what is meant"),
    (concat!("[al", "low("), "use #[expect(..., reason = \"...\")]"),
];
/// A file of one of these names has no one idea.
const NAMELESS: [&str; 7] = ["common", "helper", "helpers", "misc", "util", "utils", "manager"];

/// Checks every source file of the checkout.
pub(super) fn run() -> Result<Tally> {
    let root = build::root();
    let mut findings = Vec::new();
    for path in sources(root)? {
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy();
        findings.extend(check(&name, &text));
    }
    match findings.len() {
        0 => Ok(Tally::default()),
        count => bail!("{count} findings:\n  {}", findings.join("\n  ")),
    }
}

/// All Rust files below a directory but what was built and what is hidden.
fn sources(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            files.extend(sources(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn check(file: &str, text: &str) -> Vec<String> {
    let mut findings = Vec::new();
    let first = text.lines().next().unwrap_or_default();
    if !first.starts_with("//! ") {
        findings.push(format!("{file}:1: the first line says in `//! ...` what lives here"));
    }
    let stem = Path::new(file).file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    if NAMELESS.contains(&stem) {
        findings.push(format!("{file}: name the idea that lives here"));
    }
    for (number, line) in (1..).zip(text.lines()) {
        let bad = FORBIDDEN.iter().filter(|(word, _)| line.contains(word));
        findings.extend(bad.map(|(word, advice)| format!("{file}:{number}: `{word}`: {advice}")));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn a_file_says_what_it_holds_and_leaves_nothing_open() {
        assert!(check("a/tier.rs", "//! Tiers.\nfn main() {}\n").is_empty());
        let open = format!("fn main() {{}} // {} later\n", super::FORBIDDEN[0].0);
        assert_eq!(check("a/utils.rs", &open).len(), 3);
    }
}
