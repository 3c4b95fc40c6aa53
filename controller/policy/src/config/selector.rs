//! Label selectors, in the grammar of `kubectl get -l`: which pods are meant, by their labels.

use std::collections::BTreeMap;

/// All of its requirements have to hold; without any, everything is meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector(Vec<Requirement>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    key: String,
    test: Test,
}

/// What a label has to be.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Test {
    There,
    Absent,
    OneOf(Vec<String>),
    /// A label that is not there is none of them either.
    NoneOf(Vec<String>),
}

impl Selector {
    /// Reads `app=chat,tier!=batch,zone in (a, b),!legacy,gpu`; `None` where it is no selector.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.trim().is_empty() {
            return Some(Self::default());
        }
        split(text).into_iter().map(requirement).collect::<Option<_>>().map(Self)
    }

    /// Whether something with these labels is meant.
    #[must_use]
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.iter().all(|Requirement { key, test }| {
            let value = labels.get(key);
            match test {
                Test::There => value.is_some(),
                Test::Absent => value.is_none(),
                Test::OneOf(values) => value.is_some_and(|value| values.contains(value)),
                Test::NoneOf(values) => value.is_none_or(|value| !values.contains(value)),
            }
        })
    }
}

/// At the commas that are in no parentheses.
fn split(text: &str) -> Vec<&str> {
    let mut inside = false;
    let outer = |c: char| {
        inside = (inside || c == '(') && c != ')';
        c == ',' && !inside
    };
    text.split(outer).map(str::trim).collect()
}

fn requirement(text: &str) -> Option<Requirement> {
    let (key, test) = if let Some(key) = text.strip_prefix('!') {
        (key, Test::Absent)
    } else if let Some(all) = text.strip_suffix(')') {
        let (before, values) = all.split_once('(')?;
        let (key, word) = before.trim_end().rsplit_once(char::is_whitespace)?;
        let values: Vec<String> = values.split(',').map(|value| value.trim().to_owned()).collect();
        match word {
            "in" => (key, Test::OneOf(values)),
            "notin" => (key, Test::NoneOf(values)),
            _ => return None,
        }
    } else if let Some((key, value)) = text.split_once("!=") {
        (key, Test::NoneOf(vec![value.trim().to_owned()]))
    } else if let Some((key, value)) = text.split_once('=') {
        let value = value.strip_prefix('=').unwrap_or(value);
        (key, Test::OneOf(vec![value.trim().to_owned()]))
    } else {
        (text, Test::There)
    };
    let key = key.trim();
    let sound = match &test {
        Test::OneOf(values) | Test::NoneOf(values) => values.iter().all(|v| v.is_empty() || name(v)),
        Test::There | Test::Absent => true,
    };
    (sound && qualified(key)).then(|| Requirement { key: key.to_owned(), test })
}

/// `name` or `prefix/name`.
fn qualified(key: &str) -> bool {
    match key.split_once('/') {
        Some((prefix, last)) => super::kubernetes::dns(prefix) && name(last),
        None => name(key),
    }
}

/// The form of a label's name and of its value.
fn name(text: &str) -> bool {
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    text.len() <= 63
        && ends(text.chars().next())
        && ends(text.chars().next_back())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn means(selector: &str, labels: &[(&str, &str)]) -> bool {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Selector::parse(selector).expect(selector).matches(&labels)
    }

    #[test]
    fn it_means_what_kubectl_means() {
        let chat = [("app", "chat"), ("tier", "web"), ("plimsoll.dev/managed", "true")];
        for yes in [
            "",
            "app",
            "app=chat",
            "app==chat",
            "app = chat , tier != batch",
            "app in (chat, embed),tier notin (batch)",
            "!gpu",
            "gpu!=none",
            "gpu notin (a,b)",
            "plimsoll.dev/managed!=false",
        ] {
            assert!(means(yes, &chat), "{yes}");
        }
        for no in
            ["gpu", "app=embed", "app!=chat", "!app", "app in (embed)", "app notin (chat)", "app=chat,gpu"]
        {
            assert!(!means(no, &chat), "{no}");
        }
        assert!(means("plimsoll.dev/managed!=false", &[]), "a pod without the label is managed");
        assert!(!means("plimsoll.dev/managed!=false", &[("plimsoll.dev/managed", "false")]));
    }

    #[test]
    fn what_is_none_is_refused() {
        for bad in [
            "=", "a=b=c", "a,,b", "a in b", "a in (b", "a)", "in (a)", "a b", "!", "-a", "a=-", "x/y/z",
            "a>5",
        ] {
            assert_eq!(Selector::parse(bad), None, "{bad}");
        }
    }
}
