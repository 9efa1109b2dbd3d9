//! The fixed names that the operator puts on objects.

/// The API group of the custom resources, and the prefix of every annotation.
pub const GROUP: &str = "opensearch-access.io";

/// The finalizer that keeps a grant or a domain until what it wrote is revoked.
pub const FINALIZER: &str = "opensearch-access.io/revoke";

/// The field manager of every write to the API server.
pub const FIELD_MANAGER: &str = "opensearch-access";

/// The annotation on an `OpenSearchDomain` by which an admin lets a held mass revocation proceed.
///
/// Its value is the number of grants that may vanish at once, as the condition's message states
/// it. The operator takes it off once nothing is held any more, so that an old acknowledgement
/// covers no later loss.
pub const ACKNOWLEDGE_REVOCATION: &str = "opensearch-access.io/acknowledge-revocation";
