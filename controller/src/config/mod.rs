//! Reads the configuration file. What it may say is decided by `plimsoll_policy::config`; here are the file and its YAML.

mod effective;
mod environment;
mod yaml;

pub use effective::effective;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

pub use self::environment::overridden;
use plimsoll_policy::config::{Config, ConfigError, Size, read};
use plimsoll_policy::units::Bytes;

/// The documented default, which is also the manual.
pub const DEFAULT: &str = include_str!("../../../manifests/plimsoll.yaml");

/// Nobody writes a megabyte of configuration; whoever names a device or a core dump should not wait for it.
const LARGEST: u64 = 1 << 20;

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file can't be opened or read.
    #[error("cannot read configuration {}", path.display())]
    Unreadable {
        /// Its path.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        error: std::io::Error,
    },
    /// The file is longer than any configuration.
    #[error("configuration {} is larger than 1 MiB", .0.display())]
    TooLarge(PathBuf),
    /// The file is no text.
    #[error("configuration {} is not UTF-8 text: invalid byte at offset {offset}", path.display())]
    NotText {
        /// Its path.
        path: PathBuf,
        /// Offset of the first invalid byte.
        offset: usize,
    },
    /// The file is no YAML.
    #[error("configuration {} is not valid YAML: {error}", path.display())]
    Syntax {
        /// Its path.
        path: PathBuf,
        /// The parser's words, with line, column and the lines around it.
        error: String,
    },
    /// What the file says is right on some hosts and not on this one.
    #[error(
        "configuration {} has {} on hosts {size}:{}", path.display(), counted(errors.len()), listed(errors)
    )]
    WrongHere {
        /// Its path.
        path: PathBuf,
        /// The size of this host.
        size: Size,
        /// Every contradiction between what is given and what the preset has for hosts of this size.
        errors: Vec<ConfigError>,
    },
    /// The environment overrides a key with something that is no value for it.
    #[error("{variable} overrides the configuration, and is wrong:{}", listed(errors))]
    Environment {
        /// The variable.
        variable: &'static str,
        /// What is wrong with it.
        errors: Vec<ConfigError>,
    },
    /// The file is YAML, and what it says is wrong.
    #[error("configuration {} has {}:{}", path.display(), counted(errors.len()), listed(errors))]
    Wrong {
        /// Its path.
        path: PathBuf,
        /// Every mistake.
        errors: Vec<ConfigError>,
    },
}

/// Reads and checks a configuration file.
///
/// # Errors
/// The first reason for which the file can't be read, or all the mistakes in it.
pub fn load(path: &Path) -> Result<Config, LoadError> {
    let bytes = bounded(path)?;
    let text = String::from_utf8(bytes).map_err(|error| LoadError::NotText {
        path: path.to_owned(),
        offset: error.utf8_error().valid_up_to(),
    })?;
    parse(path, &text)
}

/// The configuration as it is on a host with this much memory; `path` is what errors call it.
///
/// # Errors
/// Every contradiction between the thresholds given and those of the preset.
pub fn resolve(path: &Path, config: Config, total: Bytes) -> Result<Config, LoadError> {
    let here = |errors| LoadError::WrongHere { path: path.to_owned(), size: Size::of(total), errors };
    config.resolve(total).map_err(here)
}

/// Checks the text of a configuration; `path` is what errors call it.
///
/// # Errors
/// A mistake in the YAML, or all the mistakes in what it says.
pub fn parse(path: &Path, text: &str) -> Result<Config, LoadError> {
    let tree = yaml::tree(text).map_err(|error| LoadError::Syntax { path: path.to_owned(), error })?;
    read(&tree).map_err(|errors| LoadError::Wrong { path: path.to_owned(), errors })
}

/// Reads at most one byte more than allowed, so that an endless file is seen to be one.
fn bounded(path: &Path) -> Result<Vec<u8>, LoadError> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(LARGEST + 1).read_to_end(&mut bytes))
        .map_err(|error| LoadError::Unreadable { path: path.to_owned(), error })?;
    if bytes.len() as u64 > LARGEST { Err(LoadError::TooLarge(path.to_owned())) } else { Ok(bytes) }
}

fn counted(mistakes: usize) -> String {
    if mistakes == 1 { "a mistake".into() } else { format!("{mistakes} mistakes") }
}

fn listed(errors: &[ConfigError]) -> String {
    errors.iter().map(|error| format!("\n  {error}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_default_is_the_default() {
        assert_eq!(parse(Path::new("default"), DEFAULT).unwrap(), Config::default());
    }

    /// The thresholds in the manual are commented out, since the preset has them.
    #[test]
    fn the_thresholds_shown_are_those_of_a_small_host() {
        let shown = |section: &str| -> Vec<String> {
            let lines = DEFAULT.lines().skip_while(|line| *line != section).skip(1);
            let lines = lines.take_while(|line| line.is_empty() || line.starts_with(' '));
            lines
                .filter_map(|line| line.strip_prefix("  #")?.split_once(": ").map(|_| line))
                .map(|line| line.replacen('#', "", 1))
                .filter(|line| !line.starts_with("   "))
                .collect()
        };
        let check = |section: &str, keys: &[&str]| {
            let shown = shown(section);
            let found = shown.iter().filter_map(|line| Some(line.trim().split_once(':')?.0));
            assert_eq!(found.collect::<Vec<_>>(), keys);
            parse(Path::new("shown"), &format!("{section}\n{}\n", shown.join("\n"))).unwrap()
        };
        let keys =
            ["elevated", "constrained", "critical", "emergency", "dwell", "leave", "dwell_down", "thrash"];
        assert_eq!(check("host:", &keys).host, Config::default().host);
        assert_eq!(check("gpu:", &keys[..4]).gpu, Config::default().gpu);
    }

    /// The examples in the manual are commented out; what is shown there has to be true all the same.
    #[test]
    fn the_shipped_examples_are_valid() {
        let examples: String = DEFAULT
            .lines()
            .skip_while(|line| !line.starts_with("workloads:"))
            .skip(1)
            .map_while(|line| line.strip_prefix("#"))
            .fold(String::from("workloads:\n"), |text, line| text + line + "\n");
        assert!(parse(Path::new("examples"), &examples).unwrap().workloads.len() >= 3, "{examples}");
    }
}
