//! The margins of admission, which the environment may override: they depend on the machine more than on the fleet, and whoever
//! starts a container has its environment at hand and not its files.

use plimsoll_policy::config::{Admission, Config, Node, read};

use super::LoadError;

type Margin = fn(&mut Admission) -> &mut plimsoll_policy::units::Bytes;

const MARGINS: [(&str, &str, Margin); 3] = [
    ("PLIMSOLL_MARGIN_NORMAL", "margin_normal", |admission| &mut admission.margin_normal),
    ("PLIMSOLL_MARGIN_ELEVATED", "margin_elevated", |admission| &mut admission.margin_elevated),
    ("PLIMSOLL_MARGIN_CONSTRAINED", "margin_constrained", |admission| &mut admission.margin_constrained),
];

/// The configuration with what the environment overrides; `variable` looks one up.
///
/// # Errors
/// The first variable that holds no amount of memory, in the words that its key would get.
pub fn overridden(
    mut config: Config,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Config, LoadError> {
    for (name, key, margin) in MARGINS {
        let Some(text) = variable(name) else { continue };
        let section = Node::Map(vec![(key.into(), Node::Text(text))]);
        let tree = Node::Map(vec![("admission".into(), section)]);
        let mut read = read(&tree).map_err(|errors| LoadError::Environment { variable: name, errors })?;
        *margin(&mut config.admission) = *margin(&mut read.admission);
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
    fn each_margin_can_be_overridden() {
        assert_eq!(with("HOME", "/root").unwrap(), Config::default());
        for (name, _, margin) in MARGINS {
            let mut expected = Config::default();
            *margin(&mut expected.admission) = Bytes::mib(4096);
            assert_eq!(with(name, "4GiB").unwrap(), expected, "{name}");
        }
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        let error = with("PLIMSOLL_MARGIN_NORMAL", "4").unwrap_err().to_string();
        assert!(
            error.contains("PLIMSOLL_MARGIN_NORMAL") && error.contains("admission.margin_normal: is"),
            "{error}"
        );
    }
}
