//! Ceilings: whatever an accepted grant permits, request by request, its ceiling permits too.

use std::collections::{BTreeMap, BTreeSet};

use fastrand::Rng;
use ipnet::IpNet;
use opensearch_access::policy::compile::Compiler;
use opensearch_access::policy::document::Document;
use opensearch_access::policy::domain::Domain;
use opensearch_access::policy::service_account::Resolutions;
use opensearch_access::policy::validate::{self, DomainFacts, Principal, ValidatedGrant};
use serde_json::{Value, json};

use crate::naive::{self, Atom, DOMAIN};
use crate::world::{grant, now};

const NAMESPACE: &str = "team-a";

/// Calls that only read, where clients post them.
const READS: [&str; 9] = [
    "_search",
    "_msearch",
    "_count",
    "_mget",
    "_field_caps",
    "_validate/query",
    "_explain/*",
    "_search/point_in_time",
    "_search/scroll",
];

/// Calls that name their indexes, or an earlier search, in the body, with what they need.
const BY_BODY: [(&str, &[&str]); 5] = [
    ("_search/scroll", &["Post"]),
    ("_search", &["Post"]),
    ("_msearch", &["Post"]),
    ("_mget", &["Post"]),
    ("_bulk", &["Post", "Put"]),
];

/// Paths as people, and people who mean harm, write them.
const PATHS: [&str; 24] = [
    "team-a-*",
    "team-a",
    "team-a-1",
    "team-a*",
    "team-*",
    "team-b",
    "team-b-*",
    "a",
    "*",
    "",
    "/",
    "team-a-1/_search",
    "team-a-1/_bulk",
    "team-a-*/_doc/*",
    "team-a-1/../team-b",
    "team-a-1/..",
    "_all",
    "_plugins/_security/api/roles",
    ".opendistro_security",
    "team-a%2f",
    "team-a-1,team-b",
    "team-a-1//_search",
    "TEAM-A-1",
    "team-a-?",
];

const BOUNDS: [&str; 12] = [
    "{{namespace}}-*",
    "{{namespace}}",
    "{{namespace}}*",
    "team-*",
    "team-a-1",
    "shared-*/_search",
    "a*",
    "team-a-1/_search",
    "t*-1",
    "team-b",
    "team-a-*/_doc",
    "{{namespace}}-1/*",
];

const LEVELS: [&str; 3] = ["Read", "ReadWrite", "Admin"];

const ACTIONS: [&str; 9] = [
    "es:*",
    "es:ESHttp*",
    "es:ESHttpGet",
    "es:ESHttpHead",
    "es:ESHttpPost",
    "es:ESHttpPut",
    "es:ESHttpPatch",
    "es:ESHttpDelete",
    "es:ESCrossClusterGet",
];

fn some(of: &[&str], most: usize, random: &mut Rng) -> Vec<String> {
    let count = random.usize(0..=most);
    let mut found: Vec<String> = (0..count)
        .map(|_| (*random.choice(of).unwrap()).to_owned())
        .collect();
    found.sort();
    found.dedup();
    found
}

/// Sets a level, or actions.
fn access(object: &mut Value, random: &mut Rng) {
    let actions = some(&ACTIONS, 4, random);
    if actions.is_empty() {
        object["access"] = (*random.choice(&LEVELS).unwrap()).into();
    } else {
        object["actions"] = actions.into();
    }
}

fn ceiling(random: &mut Rng) -> Value {
    let mut ceiling = json!({
        "paths": some(&BOUNDS, 3, random),
        "principals": {
            "accounts": some(&["111122223333", "444455556666"], 3, random),
            "arns": some(&["arn:aws:iam::111122223333:role/{{namespace}}-*",
                "arn:aws:iam::555566667777:role/*x", "arn:aws:iam::444455556666:user/*"], 2, random),
            "wholeAccounts": some(&["444455556666"], 1, random),
            "organizationIds": some(&["o-a1b2c3d4e5"], 1, random),
        },
        "sourceIps": some(&["203.0.113.0/24", "10.0.0.0/8", "2001:db8::/32"], 2, random),
    });
    let bounded = ceiling["sourceIps"]
        .as_array()
        .is_some_and(|it| !it.is_empty());
    if bounded && random.bool() {
        ceiling["anonymous"] = true.into();
    }
    if random.u8(..4) == 0 {
        ceiling["maxDuration"] = "24h".into();
    }
    access(&mut ceiling, random);
    ceiling
}

fn asked(random: &mut Rng) -> Value {
    let arn = |arn: &str| json!({"iamRole": {"arn": arn}});
    let principals = [
        arn("arn:aws:iam::111122223333:role/team-a-x"),
        arn("arn:aws:iam::111122223333:role/team-b-x"),
        arn("arn:aws:iam::555566667777:role/path/x"),
        arn("arn:aws:iam::444455556666:role/y"),
        json!({"iamUser": {"arn": "arn:aws:iam::444455556666:user/z"}}),
        json!({"account": {"id": "444455556666"}}),
        json!({"account": {"id": "111122223333"}}),
        json!({"anonymous": {}}),
    ];
    // Most are sound, so that many are accepted.
    let sound = [
        "team-a-*",
        "team-a-1",
        "team-a",
        "team-a-1/_search",
        "team-a-*/_doc/*",
    ];
    let mut paths = if random.u8(..3) == 0 {
        some(&PATHS, 2, random)
    } else {
        some(&sound, 2, random)
    };
    if random.u8(..8) == 0 {
        let letters = "ab*-._/t%{}1".as_bytes();
        let drawn = (0..random.usize(1..8)).map(|_| char::from(*random.choice(letters).unwrap()));
        paths.push(drawn.collect());
    }
    let mut spec = json!({
        "principals": [random.choice(&principals).unwrap()],
        "paths": paths,
        "conditions": {
            "sourceIps": if random.bool() { Vec::new() } else { some(&["203.0.113.7", "203.0.113.128/25", "10.1.0.0/16", "198.51.100.0/24",
                "2001:db8:1::/48", "2001:db0::/29"], 2, random) },
            "principalOrgIds": some(&["o-a1b2c3d4e5", "o-zzzzzzzzzz"], 1, random),
        },
    });
    if random.u8(..4) == 0 {
        spec["expiresAt"] = (*random
            .choice(&["2026-06-01T12:00:00Z", "2026-07-01T00:00:00Z"])
            .unwrap())
        .into();
    }
    access(&mut spec, random);
    spec
}

/// The requests that are tried.
fn requests() -> Vec<(String, String)> {
    let indexes = [
        "team-a-1",
        "team-a-1-x",
        "team-a",
        "team-b",
        "team-b-1",
        "a",
        "shared-1",
        "other",
        "",
    ];
    let tails = [
        "",
        "_search",
        "_bulk",
        "_doc/1",
        "_doc/_search",
        "_mget",
        "_search/scroll",
        "_explain/1",
        "_delete_by_query",
        "_search/point_in_time",
    ];
    let mut paths = vec![
        "_plugins/_security/api/roles".to_owned(),
        ".opendistro_security/_search".to_owned(),
        "_all/_search".to_owned(),
        "*".to_owned(),
        "team-a-1,team-b/_search".to_owned(),
    ];
    for index in indexes {
        for tail in tails {
            paths.push(format!("{index}/{tail}").trim_matches('/').to_owned());
        }
    }
    let methods = ["Get", "Head", "Post", "Put", "Patch", "Delete"];
    let mut requests: Vec<(String, String)> = paths
        .iter()
        .flat_map(|path| methods.map(|method| (method.to_owned(), path.clone())))
        .collect();
    requests.push(("Cross".to_owned(), String::new()));
    requests
}

/// The ceiling, as its documentation says.
struct Bound<'a> {
    ceiling: &'a Value,
    fine_grained: bool,
}

impl Bound<'_> {
    /// Tells whether an action is allowed at all.
    fn has(&self, method: &str, reading: bool) -> bool {
        match self.ceiling["access"].as_str() {
            Some("Read") => ["Get", "Head"].contains(&method) || (reading && method == "Post"),
            Some(_) => method != "Cross",
            None => {
                naive::texts(&self.ceiling["actions"])
                    .iter()
                    .any(|action| match action.as_str() {
                        "es:*" | "es:ESHttp*" => method != "Cross",
                        "es:ESCrossClusterGet" => method == "Cross",
                        exact => exact.strip_prefix("es:ESHttp") == Some(method),
                    })
            }
        }
    }

    fn allows(&self, method: &str, path: &str) -> bool {
        if method == "Cross" {
            return self.has(method, false);
        }
        let ends_in_read = (0..path.len())
            .filter(|at| *at == 0 || path.as_bytes()[at - 1] == b'/')
            .any(|at| READS.iter().any(|read| naive::matches(read, &path[at..])));
        let paths = naive::texts(&self.ceiling["paths"]);
        let below = paths.is_empty()
            || paths.iter().any(|bound| {
                let bound = bound.replace("{{namespace}}", NAMESPACE);
                naive::matches(&bound, path) || naive::matches(&format!("{bound}/*"), path)
            });
        let by_body = BY_BODY.iter().any(|(door, methods)| {
            path == *door
                && methods.contains(&method)
                && (self.fine_grained || *door == "_search/scroll")
        });
        (below || by_body) && self.has(method, ends_in_read)
    }

    fn names(&self, principal: &Principal, grant: &ValidatedGrant) -> bool {
        let list = |field: &str| naive::texts(&self.ceiling["principals"][field]);
        match principal {
            Principal::Anyone => {
                self.ceiling["anonymous"] == true && !grant.restrictions.source_ips.is_empty()
            }
            Principal::Account(account) => list("wholeAccounts").contains(account),
            Principal::ServiceAccount(_) => unreachable!("no world here has one"),
            Principal::Entity(arn) => {
                let ids = &grant.restrictions.principal_org_ids;
                list("accounts").iter().any(|it| it == arn.account())
                    || list("arns").iter().any(|it| {
                        naive::matches(&it.replace("{{namespace}}", NAMESPACE), arn.as_str())
                    })
                    || (!ids.is_empty()
                        && ids.iter().all(|id| list("organizationIds").contains(id)))
            }
        }
    }

    fn reaches(&self, block: &IpNet) -> bool {
        let bounds = naive::texts(&self.ceiling["sourceIps"]);
        let contains = |bound: &String| {
            let bound: IpNet = bound.parse().unwrap();
            match (bound, block) {
                (IpNet::V4(_), IpNet::V4(_)) | (IpNet::V6(_), IpNet::V6(_)) => {
                    bound.network() <= block.network() && block.broadcast() <= bound.broadcast()
                }
                _ => false,
            }
        };
        bounds.is_empty() || bounds.iter().any(contains)
    }
}

fn permits(atoms: &BTreeSet<Atom>, method: &str, path: &str) -> bool {
    let (action, resource) = match method {
        "Cross" => ("es:ESCrossClusterGet".to_owned(), DOMAIN.to_owned()),
        method => (format!("es:ESHttp{method}"), format!("{DOMAIN}/{path}")),
    };
    let mut atoms = atoms.iter().filter(|atom| atom.action == action);
    atoms.any(|atom| naive::matches(&atom.resource, &resource))
}

#[test]
fn an_accepted_grant_permits_no_more_than_its_ceiling() {
    let requests = requests();
    let (mut accepted, mut permitted, mut refused) = (0, 0, 0);
    for seed in 0..6_000 {
        let mut random = Rng::with_seed(seed);
        let ceiling = ceiling(&mut random);
        let facts = DomainFacts {
            fine_grained: random.bool(),
            ..DomainFacts::default()
        };
        let object = json!({
            "metadata": {"name": "logs"},
            "spec": {"domainName": "logs", "accountId": "111122223333", "region": "eu-west-1",
                "consent": [{"namespaces": [NAMESPACE], "ceiling": ceiling}]},
        });
        let domain = Domain::parse(&serde_json::from_value(object).unwrap())
            .unwrap_or_else(|broken| panic!("{ceiling}: {broken:?}"));
        let spec = asked(&mut random);
        let none = Resolutions::default();
        let object = grant(NAMESPACE, "g", &spec);
        let Ok(grant) = validate::grant(
            &object,
            &domain,
            facts,
            &none,
            Some(&BTreeMap::new()),
            now(),
        ) else {
            refused += 1;
            continue;
        };
        accepted += 1;
        let bound = Bound {
            ceiling: &ceiling,
            fine_grained: facts.fine_grained,
        };
        let context = format!("{ceiling} {spec} {facts:?}");
        for principal in &grant.principals {
            assert!(bound.names(principal, &grant), "{principal:?}: {context}");
        }
        for block in &grant.restrictions.source_ips {
            assert!(bound.reaches(block), "{block}: {context}");
        }
        if ceiling["maxDuration"] == "24h" {
            let most = now() + jiff::SignedDuration::from_hours(24);
            assert!(grant.expires_at.is_some_and(|end| end <= most), "{context}");
        }
        let compiled = Compiler::new(&domain, facts)
            .grant(&grant)
            .permissions
            .to_statements();
        let policy = Document::new(compiled).to_value().unwrap();
        let atoms = naive::meaning(&policy).atoms;
        for (method, path) in &requests {
            if permits(&atoms, method, path) {
                permitted += 1;
                assert!(
                    bound.allows(method, path),
                    "{method} {path:?}: {context}\n{policy}"
                );
            }
        }
    }
    assert!(
        accepted > 200 && refused > 500 && permitted > 10_000,
        "{accepted} accepted, {refused} refused, {permitted} requests permitted"
    );
}
