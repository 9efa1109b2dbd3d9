//! Where manifests come from, and which objects are the operator's.

use serde_json::json;

use super::program::{DOMAIN, Folder, Planned, grant, role, run};
use super::{folder, read_write};

fn grants_a_and_nothing_else(planned: &Planned) {
    assert_eq!(
        (planned.code, planned.errors.as_str()),
        (2, ""),
        "{planned:?}"
    );
    assert_eq!(
        planned.logs()["added"],
        json!([read_write("a")]),
        "{planned:?}"
    );
}

#[test]
fn manifests_come_from_files_folders_and_standard_input() {
    let folder = folder();
    let path = |name: &str| folder.file(name).to_str().unwrap().to_owned();
    let (domain, access) = (path("domain.yaml"), path("a.yaml"));
    grants_a_and_nothing_else(&folder.plan(&[]));
    let args = ["plan", "-o", "json", "-f", &domain, "--filename", &access];
    grants_a_and_nothing_else(&run(args, ""));
    let both = format!("{DOMAIN}---\n{}", grant("a", "  access: ReadWrite"));
    grants_a_and_nothing_else(&run(["plan", "-o", "json", "-f", "-"], &both));
    let args = ["plan", "-o", "json", "-f", &domain, "-f", "-"];
    grants_a_and_nothing_else(&run(args, &grant("a", "  access: ReadWrite")));

    let twice = run(["plan", "-o", "json", "-f", "-", "-f", "-"], &both);
    assert_eq!(twice.code, 1);
    assert!(
        twice
            .errors
            .contains("-: standard input can be read once only"),
        "{twice:?}"
    );
}

#[test]
fn a_folder_is_read_to_its_bottom_without_what_is_hidden_or_no_manifest() {
    let folder = Folder::new([
        ("platform/domains/logs.yml", DOMAIN),
        ("a.yaml", &grant("a", "  access: ReadWrite")),
        ("README.md", "# no manifest"),
        (".git/b.yaml", &grant("b", "  access: ReadWrite")),
        (".c.yaml", &grant("c", "  access: ReadWrite")),
        ("empty.yaml", ""),
        ("comment.yaml", "# nothing\n---\n"),
    ]);
    grants_a_and_nothing_else(&folder.plan(&[]));
}

#[test]
fn a_volumes_links_are_not_manifests_of_their_own() {
    let folder = Folder::new([("..data_1/a.yaml", &*grant("a", "  access: ReadWrite"))]);
    folder.write("..data_1/domain.yaml", DOMAIN);
    std::os::unix::fs::symlink("..data_1", folder.file("..data")).unwrap();
    for name in ["a.yaml", "domain.yaml"] {
        std::os::unix::fs::symlink(format!("..data/{name}"), folder.file(name)).unwrap();
    }
    grants_a_and_nothing_else(&folder.plan(&[]));
}

#[test]
fn json_is_read_too() {
    let folder = Folder::new([("domain.yaml", DOMAIN)]);
    let object = json!({
        "apiVersion": "opensearch-access.io/v1alpha1",
        "kind": "DomainAccess",
        "metadata": {"name": "a", "namespace": "team-a"},
        "spec": {
            "domainRef": {"name": "logs"},
            "principals": [{"iamRole": {"arn": role("a")}}],
            "access": "ReadWrite",
        },
    });
    folder.write("a.json", &format!("{object:#}"));
    grants_a_and_nothing_else(&folder.plan(&[]));
}

#[test]
fn a_list_is_its_items() {
    let indented = |text: &str| text.trim().replace('\n', "\n    ");
    let list = format!(
        "apiVersion: v1\nkind: List\nitems:\n  - {}\n  - {}\n  - {}\n",
        indented(DOMAIN),
        indented("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}"),
        indented(&grant("a", "  access: ReadWrite")),
    );
    grants_a_and_nothing_else(&run(["plan", "-o", "json", "-f", "-"], &list));
}

#[test]
fn what_kubectl_prints_can_be_planned() {
    let fields = r#"metadata:
  name: a
  namespace: team-a
  creationTimestamp: "2026-01-01T00:00:00Z"
  generation: 2
  resourceVersion: "7"
  uid: 27852162-4453-4dd1-9f95-033847fd09fd
  finalizers: [opensearch-access.io/revoke]
  managedFields: [{manager: kubectl, operation: Apply, apiVersion: v1, fieldsType: FieldsV1,
    fieldsV1: {"f:spec": {"f:access": {}}}}]
status: {observedGeneration: 2, conditions: [{type: Ready, status: "True", reason: Reconciled,
  message: "", lastTransitionTime: "2026-01-01T00:00:00Z"}]}"#;
    let manifest = grant("a", "  access: ReadWrite");
    let manifest = manifest.replace("metadata: {name: a, namespace: team-a}", fields);
    let folder = Folder::new([("domain.yaml", DOMAIN), ("a.yaml", &manifest)]);
    grants_a_and_nothing_else(&folder.plan(&[]));
}

#[test]
fn objects_of_other_groups_are_passed_by() {
    let folder = folder();
    folder.write(
        "deployment.yaml",
        "apiVersion: apps/v1\nkind: Deployment\nspec: {odd: [}]}",
    );
    let broken = folder.plan(&[]);
    assert!(
        broken.errors.contains("deployment.yaml: not YAML"),
        "what is no YAML is nobody's"
    );
    folder.write(
        "deployment.yaml",
        "apiVersion: apps/v1\nkind: Deployment\nspec: {odd: 1}\n---\n\
         apiVersion: opensearchservice.services.k8s.aws/v1alpha1\nkind: Domain\nmetadata: {}\n---\n\
         apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [a.yaml]\n",
    );
    grants_a_and_nothing_else(&folder.plan(&[]));

    let others = Folder::new([(
        "x.yaml",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}",
    )]);
    let nothing = others.plan(&[]);
    assert_eq!(
        (nothing.code, nothing.json()),
        (0, json!({"domains": {}})),
        "{nothing:?}"
    );
}

#[test]
fn a_grant_without_a_namespace_is_of_the_default_one() {
    let manifest = grant("a", "  access: ReadWrite").replace(", namespace: team-a", "");
    let consent = DOMAIN.replace("[team-a]", "[default]");
    let folder = Folder::new([("domain.yaml", &*consent), ("a.yaml", &manifest)]);
    grants_a_and_nothing_else(&folder.plan(&[]));
}

#[test]
fn namespaces_are_selected_by_the_labels_in_their_manifests() {
    let domain = DOMAIN.replace(
        "namespaces: [team-a]",
        "namespaceSelector: {matchLabels: {tier: search}}",
    );
    let folder = Folder::new([
        ("domain.yaml", &*domain),
        ("a.yaml", &grant("a", "  access: ReadWrite")),
        (
            "namespace.yaml",
            "apiVersion: v1\nkind: Namespace\nmetadata: {name: team-a, labels: {tier: search}}",
        ),
    ]);
    grants_a_and_nothing_else(&folder.plan(&[]));

    folder.write(
        "namespace.yaml",
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: team-a}",
    );
    let refused = folder.plan(&[]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert_eq!(
        refused.logs()["refused"][0]["reason"],
        "NotPermitted",
        "{refused:?}"
    );

    let name = "namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: team-a}}";
    folder.write("domain.yaml", &DOMAIN.replace("namespaces: [team-a]", name));
    grants_a_and_nothing_else(&folder.plan(&[]));
}
