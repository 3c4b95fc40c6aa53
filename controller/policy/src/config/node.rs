//! The generic tree that configuration text is parsed into; what kind of text it was is no matter here.

use std::fmt;

/// One value of the tree. Maps keep order and repeated keys, so that the reader can refuse them by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Node {
    /// Nothing was written.
    #[default]
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Int(i128),
    /// A number with a fraction.
    Float(f64),
    /// Everything else that is one value.
    Text(String),
    /// A sequence.
    List(Vec<Node>),
    /// Keys with values, as written.
    Map(Vec<(String, Node)>),
}

/// The most characters of a value that an error message repeats.
const SHOWN: usize = 60;

/// How the value is shown in an error message: on one line and not too long.
impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("nothing"),
            Self::Bool(value) => value.fmt(f),
            Self::Int(value) => value.fmt(f),
            Self::Float(value) => write!(f, "{value:?}"),
            Self::Text(text) => shorten(text, f),
            Self::List(items) => write!(f, "a list of {}", items.len()),
            Self::Map(_) => f.write_str("a section"),
        }
    }
}

fn shorten(text: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => write!(f, "{:?}...", &text[..end]),
        None => write!(f, "{text:?}"),
    }
}
