//! The rights in Kubernetes that the operator needs, and all that it has in these tests.

/// A right that is missing shows: the operator warns of each refusal, and such a warning fails the
/// test. What is left out is left out on purpose:
/// - no `create`, `update` or `delete` on the custom resources: specs are their authors'
/// - no Secrets, no Pods, no write to Namespaces
/// - no tokens of service accounts: their metadata says which role they claim
/// - `ConfigMaps` and Leases in the operator's own namespace only, and read one by one
///
/// `patch` on the custom resources is for finalizers, on their `status` for conditions; Events of
/// a domain, which has no namespace, go to `default`, those of a grant to the grant's.
pub(crate) const MANIFESTS: &str = r"
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: opensearch-access}
rules:
  - apiGroups: [opensearch-access.io]
    resources: [opensearchdomains, domainaccesses, domainroles, domaintenants, domainactiongroups]
    verbs: [get, list, watch, patch]
  - apiGroups: [opensearch-access.io]
    resources: [opensearchdomains/status, domainaccesses/status, domainroles/status, domaintenants/status, domainactiongroups/status]
    verbs: [patch]
  - apiGroups: ['']
    resources: [namespaces]
    verbs: [list, watch]
  - apiGroups: ['']
    resources: [serviceaccounts]
    verbs: [get, list, watch]
  - apiGroups: [events.k8s.io]
    resources: [events]
    verbs: [create, patch]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: opensearch-access}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: opensearch-access}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: operator}]
---
apiVersion: v1
kind: Namespace
metadata: {name: opensearch-access}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: opensearch-access, namespace: opensearch-access}
rules:
  - apiGroups: ['']
    resources: [configmaps]
    verbs: [get, create, update, delete]
  - apiGroups: [coordination.k8s.io]
    resources: [leases]
    verbs: [get, create, update]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: opensearch-access, namespace: opensearch-access}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: opensearch-access}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: operator}]
";
