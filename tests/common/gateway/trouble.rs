//! What goes wrong at a gateway on purpose.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};

/// One way in which a request goes wrong.
#[derive(Clone, Debug)]
pub(crate) enum Trouble {
    /// It is answered so, and not passed on.
    Answer(StatusCode, Value),
    /// Its connection is reset, and it is not passed on.
    Reset,
    /// It is passed on later.
    Late(Duration),
    /// It is passed on, and answered so all the same; without a status its connection is reset.
    AppliedThen(Option<StatusCode>, Value),
}

impl Trouble {
    /// Another writer was first: the plugin's own words.
    pub(crate) fn conflict() -> Self {
        let message = "[rolesmapping]: version conflict, required seqNo [12], primary term [1]. current document has seqNo [13] and primary term [1]";
        let body = json!({"status": "CONFLICT", "message": message});
        Self::Answer(StatusCode::CONFLICT, body)
    }

    /// A node could not be told of what was stored.
    pub(crate) fn persisted() -> Self {
        let message = "Failed to update configuration on all nodes";
        let body = json!({"status": "INTERNAL_SERVER_ERROR", "message": message});
        Self::AppliedThen(Some(StatusCode::INTERNAL_SERVER_ERROR), body)
    }
}

/// What is to go wrong next.
#[derive(Debug, Default)]
pub(crate) struct Troubles(Mutex<VecDeque<(Method, String, Trouble)>>);

impl Troubles {
    /// Has the next requests of a method, below a path, go wrong.
    pub(crate) fn next(&self, times: usize, method: Method, path: &str, trouble: &Trouble) {
        let mut troubles = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let one = (method, path.to_owned(), trouble.clone());
        troubles.extend(std::iter::repeat_n(one, times));
    }

    /// Lets everything go well again.
    pub(crate) fn clear(&self) {
        let mut troubles = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        troubles.clear();
    }

    /// Tells how many requests are still to go wrong.
    pub(crate) fn left(&self) -> usize {
        let troubles = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        troubles.len()
    }

    pub(super) fn take(&self, method: &Method, path: &str) -> Option<Trouble> {
        let mut troubles = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let meant = |(of, below, _): &(Method, String, Trouble)| {
            of == method && path.starts_with(below.as_str())
        };
        let at = troubles.iter().position(meant)?;
        troubles.remove(at).map(|(_, _, trouble)| trouble)
    }
}
