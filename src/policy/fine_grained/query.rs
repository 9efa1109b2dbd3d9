//! Queries of document-level security: whether OpenSearch can read one.
//!
//! The plugin takes any text and reads it when somebody searches: a slip in it then fails every
//! request to the index. What is checked here is the outline, the names of the queries and how they
//! are nested, and not what each says about fields.

mod clause;
mod json;
mod variable;

use self::clause::{Shape, compound, embedded, is_known, is_opaque, lookups, names};
use self::json::Node;
use super::nearest::{nearest, suggestion};

/// Why a text is no query.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is not JSON; says what is wrong, and at which line and column.
    #[error("the query is not JSON: {0}")]
    Json(String),
    /// It is wrapped as in the body of a search.
    #[error("the query stands by itself: leave \"query\" out around it")]
    Wrapped,
    /// Something else stands where a query has to be.
    #[error("an object has to be{}", within(.at))]
    NotAnObject {
        /// Where.
        at: String,
    },
    /// Something else stands where a list of queries has to be.
    #[error("a list has to be{}", within(.at))]
    NotAList {
        /// Where.
        at: String,
    },
    /// No query, or more than one, stands in an object.
    #[error("one query has to be{}, and there are {count}: combine them with bool", within(.at))]
    NotOne {
        /// Where.
        at: String,
        /// How many there are.
        count: usize,
    },
    /// There is no such query.
    #[error("{name:?}{} is no query that OpenSearch knows{}", within(.at), suggestion(.nearest.as_deref()))]
    Unknown {
        /// The name.
        name: String,
        /// Where.
        at: String,
        /// The name that may be meant.
        nearest: Option<String>,
    },
    /// A variable stands where a name has to be: what it says then, nobody can tell.
    #[error("{name:?}: a variable cannot be a name")]
    Named {
        /// The name.
        name: String,
    },
    /// Nobody can tell what a query asks.
    #[error("a {name} query{} hides what it asks: write that query itself", within(.at))]
    Opaque {
        /// The name.
        name: String,
        /// Where.
        at: String,
    },
    /// A query has no such part.
    #[error("{name:?}{} is no part of a {clause} query{}", within(.at), suggestion(.nearest.as_deref()))]
    Part {
        /// The name.
        name: String,
        /// The query.
        clause: &'static str,
        /// Where.
        at: String,
        /// The name that may be meant.
        nearest: Option<String>,
    },
    /// A query lacks a part.
    #[error("the {clause} query{} lacks {part:?}", within(.at))]
    Lacks {
        /// The query.
        clause: &'static str,
        /// The part.
        part: &'static str,
        /// Where.
        at: String,
    },
    /// The plugin has no such variable: every search would fail.
    #[error("${{{name}}} is no variable of the security plugin{}", suggestion(.nearest.as_deref()))]
    Variable {
        /// The name.
        name: String,
        /// The name that may be meant.
        nearest: Option<String>,
    },
    /// The variable stands for a list, whose items bring their own quotes.
    #[error("${{{name}}} is a list of quoted texts: write [${{{name}}}], without quotes")]
    List {
        /// The name.
        name: String,
    },
    /// The variable stands for bare text.
    #[error("${{{name}}} is text: put it in quotes")]
    Text {
        /// The name.
        name: String,
    },
}

/// Checks the text of a query, in which the variables of the plugin may be. Returns the indexes other
/// than its own in which it looks something up: the plugin does so with rights of its own, whatever
/// the caller may read.
pub fn check(text: &str) -> Result<Vec<String>, Error> {
    let text = variable::fill(text)?;
    let root = serde_json::from_str(&text).map_err(|error| Error::Json(error.to_string()))?;
    let mut found = Vec::new();
    query(&root, "", &mut found)?;
    Ok(found)
}

/// Checks one query, and finds the indexes in which it looks something up.
fn query(node: &Node, at: &str, found: &mut Vec<String>) -> Result<(), Error> {
    let here = || at.to_owned();
    let Node::Object(members) = node else {
        return Err(Error::NotAnObject { at: here() });
    };
    let [(name, body)] = members.as_slice() else {
        let count = members.len();
        return Err(Error::NotOne { at: here(), count });
    };
    if at.is_empty() && name == "query" {
        return Err(Error::Wrapped);
    }
    if let Some(name) = variable_name(body) {
        return Err(Error::Named { name });
    }
    if !is_known(name) {
        return Err(Error::Unknown {
            name: name.clone(),
            at: here(),
            nearest: nearest(name, names()).map(str::to_owned),
        });
    }
    if is_opaque(name) {
        let name = name.clone();
        return Err(Error::Opaque { name, at: here() });
    }
    let at = below(at, name);
    let Node::Object(members) = body else {
        return Err(Error::NotAnObject { at });
    };
    if let Some(compound) = compound(name) {
        parts(compound, members, &at, found)?;
    }
    for (place, node) in embedded(name, members) {
        query(node, &below(&at, &place), found)?;
    }
    let indexes = lookups(name, members).into_iter();
    found.extend(indexes.map(str::to_owned));
    Ok(())
}

/// Finds a name that a variable is part of.
fn variable_name(node: &Node) -> Option<String> {
    match node {
        Node::Object(members) => members.iter().find_map(|(name, node)| {
            let named = name.contains("${").then(|| name.clone());
            named.or_else(|| variable_name(node))
        }),
        Node::Array(items) => items.iter().find_map(variable_name),
        Node::Text(_) | Node::Other => None,
    }
}

/// Checks the queries that a query is made of.
fn parts(
    compound: &clause::Compound,
    members: &[(String, Node)],
    at: &str,
    found: &mut Vec<String>,
) -> Result<(), Error> {
    let names = || compound.names();
    for (name, _) in members {
        if !names().any(|it| it == name) {
            return Err(Error::Part {
                name: name.clone(),
                clause: compound.name,
                at: at.to_owned(),
                nearest: nearest(name, names()).map(str::to_owned),
            });
        }
    }
    for &(part, shape) in compound.parts {
        let at_part = below(at, part);
        let lacks = || Error::Lacks {
            clause: compound.name,
            part,
            at: at.to_owned(),
        };
        let member = members.iter().find(|(name, _)| name == part);
        match member.map(|(_, node)| node) {
            Some(Node::Array(items)) if shape != Shape::One => {
                if items.is_empty() && compound.complete {
                    return Err(lacks());
                }
                for (index, item) in items.iter().enumerate() {
                    query(item, &format!("{at_part}[{index}]"), found)?;
                }
            }
            Some(_) if shape == Shape::List => return Err(Error::NotAList { at: at_part }),
            Some(node) => query(node, &at_part, found)?,
            None if compound.complete => return Err(lacks()),
            None => {}
        }
    }
    Ok(())
}

fn below(at: &str, name: &str) -> String {
    if at.is_empty() {
        name.to_owned()
    } else {
        format!("{at}.{name}")
    }
}

/// Spells a place; the outermost needs no words.
fn within(at: &str) -> String {
    if at.is_empty() {
        String::new()
    } else {
        format!(" in {at}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_taken() {
        for text in [
            r#"{"match_all": {}}"#,
            r#"{"term": {"team": "a"}}"#,
            r#"{"term": {"user": "${user.name}"}}"#,
            r#"{"terms": {"role": [${user.roles}]}}"#,
            r#"{"terms": {"role": ["x", ${user.roles}, "y"]}}"#,
            r#"{"terms": {"role": [${user_securityRoles}]}}"#,
            r#"{"terms": {"a": ["${attr.internal.a}", ${attr.jwt.b}]}}"#,
            r#"{"range": {"level": {"lte": ${attr.internal.level}}}}"#,
            r#"{"term": {"a": "${nothing:-default}"}}"#,
            r#"{"term": {"a": "$ {user} \"${user_name}\" $"}}"#,
            r#"{"terms": {"id": {"index": "acl", "id": "${user.name}", "path": "ids"}}}"#,
            r#"{"bool": {}}"#,
            r#"{"bool": {"must": {"match": {"a": "b"}}, "filter": [{"exists": {"field": "c"}}],
                "must_not": [], "minimum_should_match": 1, "boost": 2.0, "_name": "x"}}"#,
            r#"{"bool": {"should": [{"bool": {"must": [{"ids": {"values": ["1"]}}]}}]}}"#,
            r#"{"nested": {"path": "a", "query": {"wildcard": {"a.b": "c*"}}, "score_mode": "avg"}}"#,
            r#"{"constant_score": {"filter": {"prefix": {"a": "b"}}, "boost": 1}}"#,
            r#"{"dis_max": {"queries": [{"match_none": {}}, {"match_all": {}}], "tie_breaker": 0.7}}"#,
            r#"{"boosting": {"positive": {"match_all": {}}, "negative": {"match_none": {}}, "negative_boost": 0.5}}"#,
            r#"{"function_score": {"functions": [{"filter": {"match_all": {}}, "weight": 2}]}}"#,
            r#"{"function_score": {"query": {"match_all": {}}, "random_score": {}}}"#,
            r#"{"has_child": {"type": "a", "query": {"match_all": {}}}}"#,
            r#"{"script_score": {"query": {"match_all": {}}, "script": {"source": "1"}}}"#,
            r#"{"span_near": {"clauses": [{"span_term": {"a": "b"}}, {"span_gap": {"a": 2}}], "slop": 1}}"#,
            r#"{"knn": {"v": {"vector": [1, 2], "k": 3, "filter": {"term": {"a": 1}}}}}"#,
            r#"{"geo_distance": {"distance": "1km", "pin": [0, 0]}}"#,
            r#"{"query_string": {"query": "a:b"}}"#,
            " {\n\t\"match_all\" : { } } ",
        ] {
            assert_eq!(check(text).map(drop), Ok(()), "{text}");
        }
    }

    #[test]
    fn what_is_looked_up_elsewhere_is_found() {
        for (text, indexes) in [
            (r#"{"term": {"index": "x"}}"#, &[][..]),
            (r#"{"terms": {"index": ["x"]}}"#, &[]),
            (
                r#"{"terms": {"id": {"index": "acl", "id": "${user.name}", "path": "ids"}}}"#,
                &["acl"],
            ),
            (
                r#"{"bool": {"must": [{"nested": {"path": "p", "query":
                    {"terms": {"a": {"index": "one", "id": "1", "path": "b"}}}}}],
                    "filter": {"percolate": {"field": "q", "index": "two", "id": "1"}}}}"#,
                &["one", "two"],
            ),
            (
                r#"{"function_score": {"functions": [{"weight": 2, "filter":
                    {"geo_shape": {"a": {"indexed_shape": {"index": "shapes", "id": "1"}}}}}]}}"#,
                &["shapes"],
            ),
            (
                r#"{"terms": {"x": {"index": "one", "path": "p", "query":
                    {"terms": {"y": {"index": "two", "id": "1", "path": "q"}}}}}}"#,
                &["two", "one"],
            ),
            (
                r#"{"terms": {"x": {"index": ${attr.jwt.i}, "id": "1", "path": "p"}}}"#,
                &["?"],
            ),
            (
                r#"{"more_like_this": {"like": [{"_index": "one", "_id": "1"}, "text"],
                    "unlike": {"_index": "two", "_id": "1"}}}"#,
                &["one", "two"],
            ),
        ] {
            let found = check(text).unwrap();
            assert_eq!(found, indexes, "{text}");
        }
    }

    #[test]
    fn what_is_none_says_where() {
        for (text, expected) in [
            (
                "",
                "the query is not JSON: EOF while parsing a value at line 1 column 0",
            ),
            ("[]", "an object has to be"),
            (
                "{}",
                "one query has to be, and there are 0: combine them with bool",
            ),
            (
                "{\"term\": {\n\"a\": }}",
                "the query is not JSON: expected value at line 2 column 6",
            ),
            (
                r#"{"term": {"a": "b"}} x"#,
                "the query is not JSON: trailing characters at line 1 column 22",
            ),
            (
                r#"{"bool": {"must": [], "must": []}}"#,
                "the query is not JSON: \"must\" is there twice at line 1 column 28",
            ),
            (
                r#"{"term": {"a": 1}, "match": {"b": 2}}"#,
                "one query has to be, and there are 2: combine them with bool",
            ),
            (
                r#"{"terms": {"x": {"${n:-index}": "acl", "id": "1", "path": "p"}}}"#,
                "\"${n:-index}\": a variable cannot be a name",
            ),
            (
                r#"{"bool": {"must": {"wrapper": {"query": "e30="}}}}"#,
                "a wrapper query in bool.must hides what it asks: write that query itself",
            ),
            (
                r#"{"query": {"match_all": {}}}"#,
                "the query stands by itself: leave \"query\" out around it",
            ),
            (
                r#"{"trem": {"a": 1}}"#,
                "\"trem\" is no query that OpenSearch knows: did you mean \"term\"?",
            ),
            (
                r#"{"foobar": {}}"#,
                "\"foobar\" is no query that OpenSearch knows",
            ),
            (r#"{"term": "a"}"#, "an object has to be in term"),
            (r#"{"match_all": []}"#, "an object has to be in match_all"),
        ] {
            let error = check(text).expect_err(text);
            assert_eq!(error.to_string(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_none_within_others_says_where() {
        for (text, expected) in [
            (
                r#"{"bool": {"must": [{"match_all": {}}, {"mach": {"a": 1}}]}}"#,
                "\"mach\" in bool.must[1] is no query that OpenSearch knows: did you mean \"match\"?",
            ),
            (
                r#"{"bool": {"mustNot": []}}"#,
                "\"mustNot\" in bool is no part of a bool query: did you mean \"must_not\"?",
            ),
            (
                r#"{"bool": {"filter": {"bool": {"shuold": []}}}}"#,
                "\"shuold\" in bool.filter.bool is no part of a bool query: did you mean \"should\"?",
            ),
            (
                r#"{"bool": {"must": "a"}}"#,
                "an object has to be in bool.must",
            ),
            (
                r#"{"bool": {"must": {"a": {}, "b": {}}}}"#,
                "one query has to be in bool.must, and there are 2: combine them with bool",
            ),
            (
                r#"{"constant_score": {"filter": []}}"#,
                "an object has to be in constant_score.filter",
            ),
            (
                r#"{"constant_score": {"query": {"match_all": {}}}}"#,
                "\"query\" in constant_score is no part of a constant_score query",
            ),
            (
                r#"{"nested": {"path": "a"}}"#,
                "the nested query in nested lacks \"query\"",
            ),
            (
                r#"{"dis_max": {"queries": []}}"#,
                "the dis_max query in dis_max lacks \"queries\"",
            ),
            (
                r#"{"span_or": {"clauses": {"span_term": {"a": "b"}}}}"#,
                "a list has to be in span_or.clauses",
            ),
            (
                r#"{"nested": {"path": "a", "query": {"query": {}}}}"#,
                "\"query\" in nested.query is no query that OpenSearch knows",
            ),
            (
                r#"{"dis_max": {"queries": [{"term": 1}]}}"#,
                "an object has to be in dis_max.queries[0].term",
            ),
            (
                r#"{"function_score": {"functions": [{}, {"filter": {"trem": {}}}]}}"#,
                "\"trem\" in function_score.functions[1].filter is no query that OpenSearch knows: did you mean \"term\"?",
            ),
            (
                r#"{"knn": {"v": {"filter": {"trem": {}}}}}"#,
                "\"trem\" in knn.v.filter is no query that OpenSearch knows: did you mean \"term\"?",
            ),
        ] {
            let error = check(text).expect_err(text);
            assert_eq!(error.to_string(), expected, "{text}");
        }
    }

    #[test]
    fn variables_stand_where_they_can_be_read() {
        for (text, expected) in [
            (
                r#"{"term": {"a": "${user.nmae}"}}"#,
                "${user.nmae} is no variable of the security plugin: did you mean \"user.name\"?",
            ),
            (
                r#"{"term": {"a": ${user.name}}}"#,
                "${user.name} is text: put it in quotes",
            ),
            (
                r#"{"terms": {"a": ["${user.roles}"]}}"#,
                "${user.roles} is a list of quoted texts: write [${user.roles}], without quotes",
            ),
            (
                r#"{"terms": {"a": ${user.roles}}}"#,
                "${user.roles} is a list of quoted texts: write [${user.roles}], without quotes",
            ),
        ] {
            let error = check(text).expect_err(text);
            assert_eq!(error.to_string(), expected, "{text}");
        }
    }

    #[test]
    fn a_deep_query_is_refused_and_breaks_nothing() {
        let deep = format!(
            "{}{}",
            r#"{"bool":{"must":"#.repeat(5_000),
            "}}".repeat(5_000)
        );
        assert!(matches!(check(&deep), Err(Error::Json(_))));
    }
}
