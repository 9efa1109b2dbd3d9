//! Manifests laid over a cluster's objects: what the cluster would have if they were applied.
//!
//! As with `kubectl apply`, an object keeps who it is (its UID, its age, its finalizers), a spec is
//! the one in the file, annotations and labels of namespaces add to those that are there, and what
//! cannot be applied leaves the cluster's object as it is.
//!
//! # Caveats
//!
//! `kubectl apply` leaves fields that it never wrote itself; here the whole spec is the file's.

use kube::api::ObjectMeta;

use super::manifest::{Error, Manifests, Sourced, UnusableGrant};
use crate::policy::fine_grained::definition::DefinitionKey;
use crate::policy::{Rejection, evidence};

/// Lays the manifests over a cluster's objects.
#[must_use]
pub fn lay(files: Manifests, cluster: Manifests) -> Manifests {
    let mut all = cluster;
    for (name, mut new) in files.domains {
        let Some(old) = all.domains.get(&name) else {
            all.domains.insert(name, new);
            continue;
        };
        if evidence::names(&old.object) == evidence::names(&new.object) {
            stay(&old.object.metadata, &mut new.object.metadata);
            all.domains.insert(name, new);
        } else {
            let rejection = Rejection::invalid(
                "spec",
                "domainName, accountId and region cannot change: make another object",
            );
            all.errors.push(of_domain(&name, &new, rejection));
        }
    }
    for (name, broken) in files.unusable_domains {
        if all.domains.contains_key(&name) {
            let errors = broken.object.iter().cloned();
            let errors = errors.map(|rejection| of_domain(&name, &broken, rejection));
            all.errors.extend(errors);
        } else {
            all.unusable_domains.insert(name, broken);
        }
    }
    for (name, mut new) in files.grants {
        let Some(old) = all.grants.get(&name) else {
            all.grants.insert(name, new);
            continue;
        };
        let domain = &old.object.spec.domain_ref.name;
        if *domain == new.object.spec.domain_ref.name {
            stay(&old.object.metadata, &mut new.object.metadata);
            all.grants.insert(name, new);
        } else {
            let rule = format!("it cannot change from {domain:?}: make another object");
            let rejection = Rejection::invalid("spec.domainRef.name", rule);
            all.unusable_grants.push(UnusableGrant {
                domain: domain.clone(),
                grant: name,
                broken: Sourced {
                    object: vec![rejection],
                    file: new.file,
                },
            });
        }
    }
    all.unusable_grants.extend(files.unusable_grants);
    for (key, mut new) in files.definitions {
        let is_same = |it: &DefinitionKey| {
            (it.kind, &it.namespace, &it.name) == (key.kind, &key.namespace, &key.name)
        };
        let old = all.definitions.keys().find(|it| is_same(it)).cloned();
        let old = old.and_then(|key| all.definitions.remove(&key));
        if let Some(old) = old {
            let (old, new) = (old.object.definition, &mut new.object.definition);
            new.key = old.key;
            new.created = old.created;
            new.is_deleting = old.is_deleting;
        }
        all.definitions
            .insert(new.object.definition.key.clone(), new);
    }
    for (namespace, labels) in files.labels {
        all.labels.entry(namespace).or_default().extend(labels);
    }
    all.errors.extend(files.errors);
    all
}

/// Gives a new object what makes it the one that is there.
fn stay(old: &ObjectMeta, new: &mut ObjectMeta) {
    new.uid.clone_from(&old.uid);
    new.creation_timestamp.clone_from(&old.creation_timestamp);
    new.deletion_timestamp.clone_from(&old.deletion_timestamp);
    new.finalizers.clone_from(&old.finalizers);
    let mut annotations = old.annotations.clone().unwrap_or_default();
    annotations.extend(new.annotations.take().unwrap_or_default());
    new.annotations = Some(annotations);
}

fn of_domain<T>(name: &str, sourced: &Sourced<T>, rejection: Rejection) -> Error {
    Error {
        file: sourced.file.clone(),
        object: format!("OpenSearchDomain {name}"),
        field: rejection.field,
        rule: rejection.rule,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::offline::manifest::{self, CLUSTER};

    const DOMAIN: &str = "apiVersion: opensearch-access.io/v1alpha1\nkind: OpenSearchDomain\n\
        metadata: {name: logs}\nspec: {domainName: logs, accountId: '111122223333', region: eu-west-1}\n";

    fn grant(access: &str) -> String {
        format!(
            "---\napiVersion: opensearch-access.io/v1alpha1\nkind: DomainAccess\n\
             metadata: {{name: a, namespace: team-a}}\nspec:\n  domainRef: {{name: logs}}\n  \
             principals: [{{account: {{id: '111122223333'}}}}]\n  access: {access}\n"
        )
    }

    fn manifests(text: &str) -> Manifests {
        manifest::read(&["-".into()], text.as_bytes())
    }

    /// Returns the domain and the grant as a cluster has them.
    fn cluster() -> Manifests {
        let mut all = manifests(&(DOMAIN.to_owned() + &grant("Read")));
        assert!(all.errors.is_empty(), "{:?}", all.errors);
        let grant = all.grants.values_mut().next().unwrap();
        grant.file = CLUSTER.to_owned();
        grant.object.metadata.uid = Some("u".to_owned());
        grant.object.metadata.finalizers = Some(vec!["f".to_owned()]);
        let labels = [("tier".to_owned(), "x".to_owned())].into();
        all.labels.insert("team-a".to_owned(), labels);
        all
    }

    #[test]
    fn a_file_takes_the_place_of_the_object_and_the_object_stays_who_it_is() {
        let all = lay(manifests(&grant("ReadWrite")), cluster());
        let [grant] = all.grants.values().collect::<Vec<_>>()[..] else {
            panic!("{all:?}")
        };
        let metadata = &grant.object.metadata;
        assert_eq!(grant.file, "-");
        assert_eq!(grant.object.spec.access.unwrap().as_str(), "ReadWrite");
        assert_eq!(metadata.uid.as_deref(), Some("u"));
        assert_eq!(metadata.finalizers, Some(vec!["f".to_owned()]));
        assert!(all.domains.contains_key("logs"));
    }

    #[test]
    fn what_cannot_be_applied_leaves_the_object_as_it_is() {
        for (file, part) in [
            (
                grant("Read").replace("{name: logs}", "{name: other}"),
                "cannot change",
            ),
            (grant("Everything"), "Everything"),
            (DOMAIN.replace("eu-west-1", "eu-west-2"), "cannot change"),
            (DOMAIN.replace("region", "regio"), "regio"),
        ] {
            let all = lay(manifests(&file), cluster());
            let grant = &all.grants.values().next().unwrap();
            assert_eq!(grant.object.spec.access.unwrap().as_str(), "Read");
            assert_eq!(all.domains["logs"].object.spec.region, "eu-west-1");
            let said = format!("{:?} {:?}", all.errors, all.unusable_grants);
            assert!(said.contains(part), "{file}: {said}");
        }
    }

    #[test]
    fn labels_of_a_namespace_add_to_those_that_are_there() {
        let namespace =
            "apiVersion: v1\nkind: Namespace\nmetadata: {name: team-a, labels: {new: z}}";
        let all = lay(manifests(namespace), cluster());
        let labels: Vec<&String> = all.labels["team-a"].keys().collect();
        assert_eq!(labels, ["new", "tier"]);
    }
}
