//! The queries that OpenSearch and the plugins of Amazon OpenSearch Service have, and those among
//! them that are made of others.
//!
//! Deprecated names are not among them: the plugin has OpenSearch refuse those.

use super::json::Node;

/// How queries stand in a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// One query.
    One,
    /// A query, or a list of them.
    Many,
    /// A list of queries.
    List,
}

/// A query that is made of others.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Compound {
    pub(super) name: &'static str,
    /// The parts that hold queries.
    pub(super) parts: &'static [(&'static str, Shape)],
    /// The parts that do not, but for those that every query has.
    options: &'static [&'static str],
    /// Whether none of the parts may be left out.
    pub(super) complete: bool,
}

impl Compound {
    const fn new(
        name: &'static str,
        parts: &'static [(&'static str, Shape)],
        options: &'static [&'static str],
    ) -> Self {
        Self {
            name,
            parts,
            options,
            complete: true,
        }
    }

    const fn optional(mut self) -> Self {
        self.complete = false;
        self
    }

    /// Returns the names of all parts.
    pub(super) fn names(&self) -> impl Iterator<Item = &'static str> {
        let parts = self.parts.iter().map(|(name, _)| *name);
        parts.chain(self.options.iter().copied()).chain(COMMON)
    }
}

/// What every query has.
const COMMON: [&str; 2] = ["boost", "_name"];

use Shape::{List, Many, One};

const COMPOUND: &[Compound] = &[
    Compound::new(
        "bool",
        &[
            ("must", Many),
            ("should", Many),
            ("filter", Many),
            ("must_not", Many),
        ],
        &["minimum_should_match", "adjust_pure_negative"],
    )
    .optional(),
    Compound::new(
        "boosting",
        &[("positive", One), ("negative", One)],
        &["negative_boost"],
    ),
    Compound::new("constant_score", &[("filter", One)], &[]),
    Compound::new("dis_max", &[("queries", Many)], &["tie_breaker"]),
    Compound::new(
        "function_score",
        &[("query", One)],
        &[
            "functions",
            "boost_mode",
            "score_mode",
            "max_boost",
            "min_score",
            "script_score",
            "random_score",
            "field_value_factor",
            "weight",
            "gauss",
            "linear",
            "exp",
        ],
    )
    .optional(),
    Compound::new(
        "has_child",
        &[("query", One)],
        &[
            "type",
            "max_children",
            "min_children",
            "score_mode",
            "ignore_unmapped",
            "inner_hits",
        ],
    ),
    Compound::new(
        "has_parent",
        &[("query", One)],
        &["parent_type", "score", "ignore_unmapped", "inner_hits"],
    ),
    Compound::new(
        "hybrid",
        &[("queries", Many)],
        &["filter", "pagination_depth"],
    ),
    Compound::new(
        "nested",
        &[("query", One)],
        &["path", "score_mode", "ignore_unmapped", "inner_hits"],
    ),
    Compound::new("script_score", &[("query", One)], &["script", "min_score"]),
    Compound::new("span_containing", &[("big", One), ("little", One)], &[]),
    Compound::new("span_field_masking", &[("query", One)], &["field"]),
    Compound::new("span_first", &[("match", One)], &["end"]),
    Compound::new("span_multi", &[("match", One)], &[]),
    Compound::new("span_near", &[("clauses", List)], &["slop", "in_order"]),
    Compound::new(
        "span_not",
        &[("include", One), ("exclude", One)],
        &["dist", "pre", "post"],
    ),
    Compound::new("span_or", &[("clauses", List)], &[]),
    Compound::new("span_within", &[("big", One), ("little", One)], &[]),
];

/// The queries that are not made of others.
const SIMPLE: &[&str] = &[
    "agentic",
    "combined_fields",
    "distance_feature",
    "exists",
    "fuzzy",
    "geo_bounding_box",
    "geo_distance",
    "geo_polygon",
    "geo_shape",
    "ids",
    "intervals",
    "knn",
    "match",
    "match_all",
    "match_bool_prefix",
    "match_none",
    "match_phrase",
    "match_phrase_prefix",
    "more_like_this",
    "multi_match",
    "neural",
    "neural_sparse",
    "parent_id",
    "percolate",
    "prefix",
    "query_string",
    "range",
    "rank_feature",
    "regexp",
    "script",
    "simple_query_string",
    "sltr",
    "span_gap",
    "span_term",
    "template",
    "term",
    "terms",
    "terms_set",
    "wildcard",
    "wrapper",
    "xy_shape",
];

/// Tells whether there is a query of this name.
pub(super) fn is_known(name: &str) -> bool {
    names().any(|it| it == name)
}

/// Returns the names of all queries.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    let compound = COMPOUND.iter().map(|it| it.name);
    SIMPLE.iter().copied().chain(compound)
}

/// Returns how a query is made of others, where it is.
pub(super) fn compound(name: &str) -> Option<&'static Compound> {
    COMPOUND.iter().find(|it| it.name == name)
}

/// Returns the queries that stand in a query other than as its parts, each with its place.
pub(super) fn embedded<'a>(name: &str, members: &'a [(String, Node)]) -> Vec<(String, &'a Node)> {
    let filter = |node: &'a Node| node.member("filter");
    match name {
        "function_score" => {
            let functions = members.iter().find(|(name, _)| name == "functions");
            let functions = match functions {
                Some((_, Node::Array(functions))) => functions.as_slice(),
                _ => &[],
            };
            let functions = functions.iter().enumerate();
            let filters = functions.filter_map(|(index, it)| {
                Some((format!("functions[{index}].filter"), filter(it)?))
            });
            filters.collect()
        }
        "knn" | "neural" => {
            let fields = members.iter();
            let filters =
                fields.filter_map(|(field, it)| Some((format!("{field}.filter"), filter(it)?)));
            filters.collect()
        }
        "terms" => {
            let fields = members.iter();
            let queries = fields
                .filter_map(|(field, it)| Some((format!("{field}.query"), it.member("query")?)));
            queries.collect()
        }
        "hybrid" => {
            let filters = members.iter().filter(|(name, _)| name == "filter");
            filters.map(|(name, it)| (name.clone(), it)).collect()
        }
        _ => Vec::new(),
    }
}

/// Returns the indexes other than its own in which a query looks something up.
pub(super) fn lookups<'a>(name: &str, members: &'a [(String, Node)]) -> Vec<&'a str> {
    // What is no text is no name of an index: nothing covers it.
    let text = |node: Option<&'a Node>| match node? {
        Node::Text(text) => Some(text.as_str()),
        _ => Some("?"),
    };
    let member = |name: &str| {
        let found = members.iter().find(|(it, _)| it == name);
        found.map(|(_, node)| node)
    };
    match name {
        "terms" => {
            let fields = members.iter();
            let indexes = fields.filter_map(|(_, it)| text(it.member("index")));
            indexes.collect()
        }
        "geo_shape" | "xy_shape" => {
            let shapes = members.iter();
            let shapes = shapes.filter_map(|(_, it)| it.member("indexed_shape"));
            shapes.filter_map(|it| text(it.member("index"))).collect()
        }
        "more_like_this" => {
            let lists = ["like", "unlike"].into_iter().filter_map(member);
            let items = lists.flat_map(|node| match node {
                Node::Array(items) => items.as_slice(),
                one => std::slice::from_ref(one),
            });
            items.filter_map(|it| text(it.member("_index"))).collect()
        }
        "percolate" => text(member("index")).into_iter().collect(),
        _ => Vec::new(),
    }
}

/// Tells whether a query hides what it asks, so that nobody can tell what it reads.
pub(super) fn is_opaque(name: &str) -> bool {
    matches!(name, "agentic" | "sltr" | "template" | "wrapper")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_query_is_there_once() {
        let all: BTreeSet<&str> = names().collect();
        assert_eq!(all.len(), names().count());
        assert_eq!(all.len(), SIMPLE.len() + COMPOUND.len());
        assert!(SIMPLE.is_sorted());
    }

    #[test]
    fn the_parts_of_a_query_are_there_once() {
        for compound in COMPOUND {
            let names: BTreeSet<&str> = compound.names().collect();
            assert_eq!(names.len(), compound.names().count(), "{}", compound.name);
        }
    }

    #[test]
    fn what_opensearch_registers_is_known() {
        for name in [
            "bool",
            "term",
            "nested",
            "more_like_this",
            "simple_query_string",
            "has_parent",
        ] {
            assert!(is_known(name), "{name}");
        }
        for name in ["query", "filter", "must", "type", "common", ""] {
            assert!(!is_known(name), "{name}");
        }
    }
}
