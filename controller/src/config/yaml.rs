//! YAML text to a tree, with repeated keys kept so that the reader can name them.

use std::fmt;

use plimsoll_policy::config::Node;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::DuplicateKeyPolicy;

/// Parses text; the error is in words, with line and column and the lines around it.
pub(super) fn tree(text: &str) -> Result<Node, String> {
    let options = serde_saphyr::options! {
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        // `no`, `off` and `0755` are text to whoever writes them as a name.
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        // Nobody here reads them, and a parser that keeps them refuses long ones.
        emit_comments: false,
    };
    serde_saphyr::from_str_with_options::<Tree>(text, options).map(|Tree(node)| node).map_err(|error| {
        let words = error.to_string();
        words.strip_prefix("error: ").map_or_else(|| words.clone(), str::to_owned)
    })
}

/// `Node` belongs to the pure crate, which knows of no YAML: hence a wrapper.
struct Tree(Node);

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor).map(Self)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value, a list or keys with values")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Int(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Int(value.into()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Node, E> {
        Ok(Node::Int(value))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Node, E> {
        // Beyond any range that the reader allows: it will say so.
        Ok(i128::try_from(value).map_or_else(|_| Node::Text(value.to_string()), Node::Int))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Float(value))
    }

    fn visit_str<E>(self, text: &str) -> Result<Node, E> {
        Ok(Node::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(Tree(node)) = items.next_element()? {
            list.push(node);
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node, A::Error> {
        let mut map = Vec::new();
        while let Some((key, Tree(node))) = entries.next_entry::<String, Tree>()? {
            map.push((key, node));
        }
        Ok(Node::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(entries: &[(&str, Node)]) -> Node {
        Node::Map(entries.iter().map(|(key, node)| ((*key).to_owned(), node.clone())).collect())
    }

    #[test]
    fn scalars_are_what_they_look_like() {
        let text = "a: 5s\nb: 80%\nc: 12\nd: none\ne: true\nf: ~\ng: 0.8\nh: no\ni: -3\nj: 0755\n";
        let word = |text: &str| Node::Text(text.into());
        let expected = map(&[
            ("a", word("5s")),
            ("b", word("80%")),
            ("c", Node::Int(12)),
            ("d", word("none")),
            ("e", Node::Bool(true)),
            ("f", Node::Null),
            ("g", Node::Float(0.8)),
            ("h", word("no")),
            ("i", Node::Int(-3)),
            ("j", word("0755")),
        ]);
        assert_eq!(tree(text).unwrap(), expected);
    }

    #[test]
    fn nothing_but_comments_is_nothing() {
        assert_eq!(tree("# all defaults\n").unwrap(), Node::Null);
        assert_eq!(tree("").unwrap(), Node::Null);
    }

    #[test]
    fn repeated_keys_arrive() {
        assert_eq!(tree("a: 1\na: 2\n").unwrap(), map(&[("a", Node::Int(1)), ("a", Node::Int(2))]));
    }

    #[test]
    fn an_error_says_where() {
        let error = tree("host:\n  reserve: [1\npace: 2\n").unwrap_err();
        assert!(error.contains("line 3"), "{error}");
    }
}
