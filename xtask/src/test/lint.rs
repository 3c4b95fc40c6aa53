//! Rules of this repository that no compiler checks.
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};

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

/// Checks every source file that git knows or would take.
pub(super) fn run() -> Result<Tally> {
    let root = build::root();
    let mut findings = Vec::new();
    for file in sources(root)? {
        let text = std::fs::read_to_string(root.join(&file)).with_context(|| file.clone())?;
        findings.extend(check(&file, &text));
    }
    match findings.len() {
        0 => Ok(Tally::default()),
        count => bail!("{count} findings:\n  {}", findings.join("\n  ")),
    }
}

fn sources(root: &Path) -> Result<Vec<String>> {
    // The checkout may belong to somebody else, as in a container.
    let output = std::process::Command::new("git")
        .args(["-c", "safe.directory=*", "ls-files", "--cached", "--others", "--exclude-standard", "*.rs"])
        .current_dir(root)
        .output()
        .context("running git")?;
    ensure!(output.status.success(), "git ls-files: {}", String::from_utf8_lossy(&output.stderr));
    let names = String::from_utf8_lossy(&output.stdout);
    // A file that was deleted and not committed is still listed.
    Ok(names.lines().filter(|name| root.join(name).is_file()).map(str::to_owned).collect())
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
