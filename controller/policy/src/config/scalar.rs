//! What one key takes: the kinds of single values, each with its allowed range, in one place with its wording.

use std::fmt::Display;

use super::node::Node;
use super::quantity;
use crate::units::{Bytes, Share, Span};

/// A kind of value.
pub(super) trait Kind {
    /// What it is read into.
    type Value;
    /// The value, or `None` where the node is none of this kind or out of range.
    fn read(&self, node: &Node) -> Option<Self::Value>;
    /// What is accepted, as the end of "expected ...".
    fn expected(&self) -> String;
}

/// A whole number from the first to the second.
pub(super) struct Whole(pub(super) i128, pub(super) i128);

impl Kind for Whole {
    type Value = i128;
    fn read(&self, node: &Node) -> Option<i128> {
        match node {
            Node::Int(number) if (self.0..=self.1).contains(number) => Some(*number),
            _ => None,
        }
    }
    fn expected(&self) -> String {
        format!("a whole number from {} to {}", self.0, self.1)
    }
}

/// An amount of memory.
pub(super) struct Memory(pub(super) Bytes, pub(super) Bytes);

impl Kind for Memory {
    type Value = Bytes;
    fn read(&self, node: &Node) -> Option<Bytes> {
        within(quantity_of(node, quantity::bytes)?, &self.0, &self.1)
    }
    fn expected(&self) -> String {
        format!("an amount of memory from {} to {}, written like 64MiB or 8GiB", self.0, self.1)
    }
}

/// A length of time.
pub(super) struct Time(pub(super) Span, pub(super) Span);

impl Kind for Time {
    type Value = Span;
    fn read(&self, node: &Node) -> Option<Span> {
        within(quantity_of(node, quantity::span)?, &self.0, &self.1)
    }
    fn expected(&self) -> String {
        format!("a time from {} to {}, written like 250ms, 5s or 2m", said(self.0), said(self.1))
    }
}

/// A share.
pub(super) struct Part(pub(super) Share, pub(super) Share);

impl Kind for Part {
    type Value = Share;
    fn read(&self, node: &Node) -> Option<Share> {
        within(quantity_of(node, quantity::share)?, &self.0, &self.1)
    }
    fn expected(&self) -> String {
        format!("a share from {} to {}, written like 80%", self.0, self.1)
    }
}

/// `true` or `false`.
pub(super) struct Flag;

impl Kind for Flag {
    type Value = bool;
    fn read(&self, node: &Node) -> Option<bool> {
        match node {
            Node::Bool(value) => Some(*value),
            _ => None,
        }
    }
    fn expected(&self) -> String {
        "true or false".into()
    }
}

/// One of some values, by the word that it displays as.
pub(super) struct OneOf<'a, T>(pub(super) &'a [T]);

impl<T: Copy + Display> Kind for OneOf<'_, T> {
    type Value = T;
    fn read(&self, node: &Node) -> Option<T> {
        let Node::Text(text) = node else { return None };
        self.0.iter().copied().find(|value| value.to_string() == *text)
    }
    fn expected(&self) -> String {
        let words: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        words.join(" or ")
    }
}

/// Text that has a certain form: the test it must pass, and its description.
pub(super) struct Form(pub(super) fn(&str) -> bool, pub(super) &'static str);

impl Kind for Form {
    type Value = String;
    fn read(&self, node: &Node) -> Option<String> {
        let text = plain(node)?;
        (self.0)(&text).then_some(text)
    }
    fn expected(&self) -> String {
        self.1.into()
    }
}

/// A value that can be left out on purpose, by the word `none`.
pub(super) struct OrNone<K>(pub(super) K);

impl<K: Kind> Kind for OrNone<K> {
    type Value = Option<K::Value>;
    fn read(&self, node: &Node) -> Option<Self::Value> {
        match node {
            Node::Text(text) if text == "none" => Some(None),
            node => self.0.read(node).map(Some),
        }
    }
    fn expected(&self) -> String {
        format!("none, or {}", self.0.expected())
    }
}

/// Names and numbers of users, units and the like: YAML takes `1000` for a number, we want its text.
fn plain(node: &Node) -> Option<String> {
    match node {
        Node::Text(text) => Some(text.clone()),
        Node::Int(number) => Some(number.to_string()),
        _ => None,
    }
}

/// Zero needs no unit; every other number does.
fn quantity_of<T: Default>(node: &Node, parse: fn(&str) -> Option<T>) -> Option<T> {
    match node {
        Node::Text(text) => parse(text),
        Node::Int(0) => Some(T::default()),
        _ => None,
    }
}

fn within<T: PartialOrd>(value: T, least: &T, most: &T) -> Option<T> {
    (*least <= value && value <= *most).then_some(value)
}

/// A span as it would be written in the file: `Span` displays for logs, `0.5s` and not `500ms`.
fn said(span: Span) -> String {
    const UNITS: [(u64, &str); 4] =
        [(3_600_000_000_000, "h"), (60_000_000_000, "m"), (1_000_000_000, "s"), (1_000_000, "ms")];
    UNITS
        .iter()
        .find(|(size, _)| span.0 >= *size && span.0.is_multiple_of(*size))
        .map_or_else(|| "0".into(), |(size, unit)| format!("{}{unit}", span.0 / size))
}
