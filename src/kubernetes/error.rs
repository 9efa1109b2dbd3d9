//! What the API server, or the way to it, refuses: for a person at a command line.

use kube::config::KubeconfigError;

/// Why the cluster could not be read; each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no kubeconfig, or it does not have the context; nor is this a pod.
    #[error(
        "no cluster to read: {0}; name a file with --kubeconfig or KUBECONFIG, and a context with --kube-context"
    )]
    Kubeconfig(#[from] KubeconfigError),
    /// The API server does not serve the custom resources.
    #[error(
        "the cluster does not know {0}: install the definitions (opensearch-access crds | kubectl apply -f -), or choose another cluster with --kube-context"
    )]
    NoKind(&'static str),
    /// The user has no right to it.
    #[error(
        "the cluster does not let you {doing}: {message}; ask for a role with `list` on namespaces and all kinds of the group opensearch-access.io, and `get` on configmaps in the operator's namespace"
    )]
    Forbidden {
        /// What was under way.
        doing: &'static str,
        /// What the API server said; it names the user and the resource.
        message: String,
    },
    /// The credentials of the kubeconfig are not taken.
    #[error(
        "the cluster does not take your credentials: log in again, or choose another context with --kube-context"
    )]
    Unauthorized,
    /// The API server did not answer, or said something else.
    #[error("failed to {doing}: {message}")]
    Failed {
        /// What was under way.
        doing: &'static str,
        /// What is known.
        message: String,
    },
    /// The record is not one that this version reads.
    #[error(
        "ConfigMap {0} holds no record that this version can read: use the operator's own version of the program"
    )]
    Record(String),
}

impl Error {
    /// Wraps an error of the API server.
    pub(super) fn of(doing: &'static str) -> impl FnOnce(kube::Error) -> Self {
        move |error| match error {
            kube::Error::Api(status) if status.is_forbidden() => Self::Forbidden {
                doing,
                message: status.message.clone(),
            },
            kube::Error::Api(status) if status.code == 401 => Self::Unauthorized,
            kube::Error::Api(status) => Self::Failed {
                doing,
                message: format!("{} (HTTP {})", status.message, status.code),
            },
            // It prints its own causes.
            error => Self::Failed {
                doing,
                message: error.to_string(),
            },
        }
    }
}
