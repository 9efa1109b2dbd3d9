//! JSON as far as the outline of a query needs it.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// A value, without what it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Node {
    /// An object; no name is there twice, as OpenSearch refuses that.
    Object(Vec<(String, Node)>),
    Array(Vec<Node>),
    Text(String),
    Other,
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Outline)
    }
}

impl Node {
    /// Returns a member of an object.
    pub(super) fn member(&self, name: &str) -> Option<&Self> {
        let Self::Object(members) = self else {
            return None;
        };
        let found = members.iter().find(|(it, _)| it == name);
        found.map(|(_, node)| node)
    }
}

struct Outline;

impl<'de> Visitor<'de> for Outline {
    type Value = Node;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut members: Vec<(String, Node)> = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            if members.iter().any(|(other, _)| *other == name) {
                return Err(A::Error::custom(format!("{name:?} is there twice")));
            }
            members.push((name, map.next_value()?));
        }
        Ok(Node::Object(members))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Node::Array(items))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_str<E>(self, text: &str) -> Result<Node, E> {
        Ok(Node::Text(text.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outline_is_read() {
        let text = r#"{"a": [1, -1, 1.5, "x", null, true], "b": {"c": {}}}"#;
        let node: Node = serde_json::from_str(text).expect("it is JSON");
        let inner = Node::Object(vec![("c".to_owned(), Node::Object(Vec::new()))]);
        let mut items = vec![Node::Other; 6];
        items[3] = Node::Text("x".to_owned());
        let expected = vec![
            ("a".to_owned(), Node::Array(items)),
            ("b".to_owned(), inner),
        ];
        assert_eq!(node, Node::Object(expected));
    }
}
