//! A section of the tree while it is read: takes keys one by one, collects every mistake, never stops at the first.

use super::error::{ConfigError, Problem};
use super::nearest::nearest;
use super::node::Node;
use super::scalar::Kind;

/// Where all mistakes end up.
pub(super) type Errors = Vec<ConfigError>;

/// One map of the tree.
pub(super) struct Section<'a> {
    path: String,
    entries: &'a [(String, Node)],
    known: Vec<&'static str>,
    errors: &'a mut Errors,
    /// Mistakes before this section: whether it is clean is seen by comparing.
    before: usize,
}

impl<'a> Section<'a> {
    /// Opens a node as a section. Nothing written is an empty section; another kind of value is a mistake.
    pub(super) fn open(path: String, node: &'a Node, errors: &'a mut Errors) -> Self {
        let before = errors.len();
        let entries: &[_] = match node {
            Node::Map(entries) => entries,
            Node::Null => &[],
            other => {
                let problem =
                    Problem::Value { found: other.to_string(), expected: "a section with keys".into() };
                errors.push(ConfigError { path: path.clone(), problem });
                &[]
            }
        };
        Self { path, entries, known: Vec::new(), errors, before }
    }

    /// Reads a key into its place, which keeps its default where the key is absent or wrong.
    pub(super) fn set<K: Kind>(&mut self, key: &'static str, place: &mut K::Value, kind: &K) {
        if let Some(value) = self.get(key, kind) {
            *place = value;
        }
    }

    /// Reads a key; `None` where it is absent or wrong.
    pub(super) fn get<K: Kind>(&mut self, key: &'static str, kind: &K) -> Option<K::Value> {
        let node = self.node(key)?;
        let value = kind.read(node);
        if value.is_none() {
            self.wrong(key, node, kind.expected());
        }
        value
    }

    /// Reads a key that has to be there.
    pub(super) fn need<K: Kind>(&mut self, key: &'static str, kind: &K) -> Option<K::Value> {
        if !self.has(key) {
            self.known.push(key);
            self.push(key, Problem::Missing { expected: kind.expected() });
            return None;
        }
        self.get(key, kind)
    }

    /// Reads a key as a list of one kind of value.
    pub(super) fn list<K: Kind>(&mut self, key: &'static str, kind: &K) -> Option<Vec<K::Value>> {
        let node = self.node(key)?;
        let Node::List(items) = node else {
            self.wrong(key, node, format!("a list, each item {}", kind.expected()));
            return None;
        };
        let mut values = Vec::new();
        for (at, item) in items.iter().enumerate() {
            match kind.read(item) {
                Some(value) => values.push(value),
                None => self.wrong(&format!("{key}[{at}]"), item, kind.expected()),
            }
        }
        (values.len() == items.len()).then_some(values)
    }

    /// Reads a key as a section of its own; an absent one is an empty one.
    pub(super) fn section<T>(&mut self, key: &'static str, read: impl FnOnce(&mut Section<'_>) -> T) -> T {
        let node = self.node(key).unwrap_or(&Node::Null);
        within(self.path_of(key), node, self.errors, read)
    }

    /// Reads a section that has been read before onto other defaults; its mistakes are for the caller.
    pub(super) fn again<T>(
        &self,
        key: &'static str,
        read: impl FnOnce(&mut Section<'_>) -> T,
    ) -> Result<T, Errors> {
        let node = self.entries.iter().find(|(name, _)| name == key).map_or(&Node::Null, |(_, node)| node);
        let mut errors = Errors::new();
        let value = within(self.path_of(key), node, &mut errors, read);
        if errors.is_empty() { Ok(value) } else { Err(errors) }
    }

    /// Takes over mistakes found elsewhere.
    pub(super) fn blame(&mut self, errors: Errors) {
        self.errors.extend(errors);
    }

    /// Says that a key is known that is read by other means.
    pub(super) fn expect(&mut self, key: &'static str) {
        self.known.push(key);
    }

    /// Reads a key as a section that may be left out.
    pub(super) fn optional<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut Section<'_>) -> T,
    ) -> Option<T> {
        let node = self.node(key)?;
        Some(within(self.path_of(key), node, self.errors, read))
    }

    /// Reads a key as a list of sections.
    pub(super) fn sections<T>(
        &mut self,
        key: &'static str,
        mut read: impl FnMut(&mut Section<'_>) -> T,
    ) -> Vec<T> {
        let items: &[Node] = match self.node(key) {
            None | Some(Node::Null) => &[],
            Some(Node::List(items)) => items,
            Some(other) => {
                self.wrong(key, other, "a list of sections".into());
                &[]
            }
        };
        let path = self.path_of(key);
        let each = |(at, item)| within(format!("{path}[{at}]"), item, self.errors, &mut read);
        items.iter().enumerate().map(each).collect()
    }

    /// Whether the key stands there.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|(name, _)| name == key)
    }

    /// Says that a key contradicts another one.
    pub(super) fn conflict(&mut self, key: &str, sentence: String) {
        self.push(key, Problem::Conflict(sentence));
    }

    /// Whether everything read so far was right: only then is it worth while to look for contradictions.
    pub(super) fn clean(&self) -> bool {
        self.errors.len() == self.before
    }

    fn node(&mut self, key: &'static str) -> Option<&'a Node> {
        self.known.push(key);
        self.entries.iter().find(|(name, _)| name == key).map(|(_, node)| node)
    }

    fn wrong(&mut self, key: &str, node: &Node, expected: String) {
        self.push(key, Problem::Value { found: node.to_string(), expected });
    }

    fn push(&mut self, key: &str, problem: Problem) {
        let path = self.path_of(key);
        self.errors.push(ConfigError { path, problem });
    }

    fn path_of(&self, key: &str) -> String {
        match (self.path.as_str(), key) {
            ("", key) => key.to_owned(),
            (path, "") => path.to_owned(),
            (path, key) => format!("{path}.{key}"),
        }
    }

    /// Refuses what nobody asked for: keys that do not exist, and keys that stand there twice.
    fn close(&mut self) {
        for (at, (key, _)) in self.entries.iter().enumerate() {
            if !self.known.contains(&key.as_str()) {
                let meant = nearest(key, &self.known);
                let known = self.known.clone();
                self.push(&shown(key), Problem::Unknown { meant, known });
            } else if self.entries[..at].iter().any(|(earlier, _)| earlier == key) {
                self.push(key, Problem::Repeated);
            }
        }
    }
}

/// Opens, reads and closes one section.
pub(super) fn within<T>(
    path: String,
    node: &Node,
    errors: &mut Errors,
    read: impl FnOnce(&mut Section<'_>) -> T,
) -> T {
    let mut section = Section::open(path, node, errors);
    let value = read(&mut section);
    section.close();
    value
}

/// A key as part of a path: on one line, and never empty.
fn shown(key: &str) -> String {
    let plain =
        !key.is_empty() && key.len() <= 64 && key.chars().all(|c| c.is_alphanumeric() || "_-./".contains(c));
    if plain { key.to_owned() } else { Node::Text(key.to_owned()).to_string() }
}
