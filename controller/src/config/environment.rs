//! The keys that the environment may override: they depend on the machine, or on being a container, more than on the fleet, and
//! whoever starts a container has its environment at hand and not its files. So one file serves hosts and pods.

use plimsoll_policy::config::{Config, Node, read};

use super::{LoadError, yaml};

/// Takes one key from the second.
type Copy = fn(&mut Config, &Config);

/// A variable, its key's section and name, and how the key is taken over.
const OVERRIDES: [(&str, &str, &str, Copy); 5] = [
    ("PLIMSOLL_MARGIN_NORMAL", "admission", "margin_normal", |to, from| {
        to.admission.margin_normal = from.admission.margin_normal;
    }),
    ("PLIMSOLL_MARGIN_ELEVATED", "admission", "margin_elevated", |to, from| {
        to.admission.margin_elevated = from.admission.margin_elevated;
    }),
    ("PLIMSOLL_MARGIN_CONSTRAINED", "admission", "margin_constrained", |to, from| {
        to.admission.margin_constrained = from.admission.margin_constrained;
    }),
    ("PLIMSOLL_KUBERNETES", "kubernetes", "enabled", |to, from| {
        to.kubernetes.enabled = from.kubernetes.enabled;
    }),
    ("PLIMSOLL_LISTEN", "daemon", "listen", |to, from| {
        to.daemon.listen.clone_from(&from.daemon.listen);
    }),
];

/// The configuration with what the environment overrides; `variable` looks one up.
///
/// # Errors
/// The first variable that holds no value for its key, in the words that the key would get.
pub fn overridden(
    mut config: Config,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Config, LoadError> {
    for (name, section, key, copy) in OVERRIDES {
        let Some(text) = variable(name) else { continue };
        // A value in the environment reads like one in the file.
        let value = yaml::tree(&text).unwrap_or(Node::Text(text));
        let tree = Node::Map(vec![(section.into(), Node::Map(vec![(key.into(), value)]))]);
        let read = read(&tree).map_err(|errors| LoadError::Environment { variable: name, errors })?;
        copy(&mut config, &read);
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use plimsoll_policy::units::Bytes;

    use super::*;

    fn with(name: &'static str, value: &'static str) -> Result<Config, LoadError> {
        overridden(Config::default(), |asked| (asked == name).then(|| value.to_owned()))
    }

    #[test]
    fn each_key_can_be_overridden_and_nothing_else_is() {
        type Change = fn(&mut Config);
        let changes: [(&str, &str, Change); 5] = [
            ("PLIMSOLL_MARGIN_NORMAL", "4GiB", |to| to.admission.margin_normal = Bytes::mib(4096)),
            ("PLIMSOLL_MARGIN_ELEVATED", "4GiB", |to| to.admission.margin_elevated = Bytes::mib(4096)),
            ("PLIMSOLL_MARGIN_CONSTRAINED", "4GiB", |to| to.admission.margin_constrained = Bytes::mib(4096)),
            ("PLIMSOLL_KUBERNETES", "true", |to| to.kubernetes.enabled = true),
            ("PLIMSOLL_LISTEN", "0.0.0.0:9478", |to| {
                to.daemon.listen = Some(([0, 0, 0, 0], 9478).into());
            }),
        ];
        assert_eq!(with("HOME", "/root").unwrap(), Config::default());
        assert_eq!(changes.map(|(name, ..)| name), OVERRIDES.map(|(name, ..)| name));
        for (name, value, change) in changes {
            let mut expected = Config::default();
            change(&mut expected);
            assert_eq!(with(name, value).unwrap(), expected, "{name}");
        }
        assert_eq!(with("PLIMSOLL_LISTEN", "none").unwrap().daemon.listen, None);
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        let refused = |name, value| with(name, value).unwrap_err().to_string();
        let error = refused("PLIMSOLL_MARGIN_NORMAL", "4");
        assert!(error.contains("PLIMSOLL_MARGIN_NORMAL") && error.contains("admission.margin_normal: is"));
        assert!(refused("PLIMSOLL_KUBERNETES", "maybe").contains("kubernetes.enabled: is"));
        assert!(refused("PLIMSOLL_LISTEN", "a: {").contains("daemon.listen: is"));
    }
}
