//! How long a reconcile tries to write to a domain's security plugin.
//!
//! A plugin that can be read and does not take writes would otherwise keep the door from being seen
//! to, and with it every revocation.

use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::roles::NotMapped;
use crate::api::condition::Reason;
use crate::policy::plan::Plan;
use crate::security::error::Error as SecurityError;

/// While somebody waits to be shut out...
const REVOKING: Duration = Duration::from_secs(2);

/// ...and otherwise.
const USUAL: Duration = Duration::from_secs(30);

/// Until when writes are tried.
pub struct Patience {
    until: Instant,
    /// Why the plugin takes no writes at present, once one has shown it.
    down: Mutex<Option<NotMapped>>,
}

impl Patience {
    /// Begins to wait before the door is seen to.
    pub fn before_door(plan: &Plan) -> Self {
        let revokes = !plan.removed.is_empty() || !plan.identity_removals.is_empty();
        Self::of(if revokes { REVOKING } else { USUAL })
    }

    /// Begins to wait after that.
    pub fn after_door() -> Self {
        Self::of(USUAL)
    }

    fn of(limit: Duration) -> Self {
        Self {
            until: Instant::now() + limit,
            down: Mutex::default(),
        }
    }

    /// Tries a write for as long as there is time, unless another has shown that there is no sense
    /// in it.
    ///
    /// # Cancellation
    ///
    /// What is given up may have been stored: it is on record before it is tried.
    pub async fn within<T>(
        &self,
        write: impl Future<Output = Result<T, SecurityError>>,
    ) -> Result<T, NotMapped> {
        if let Some(why) = self.down() {
            return Err(why);
        }
        let late = || {
            NotMapped {
            reason: Reason::Unavailable,
            message: "the security plugin does not take everything in time; the rest is tried again by itself"
                .to_owned(),
        }
        };
        if Instant::now() >= self.until {
            return Err(late());
        }
        let result = timeout_at(self.until, write).await.map_err(|_| late())?;
        result.map_err(|error| {
            let why = NotMapped::of(&error);
            if matches!(
                error,
                SecurityError::Busy { .. } | SecurityError::Unreachable { .. }
            ) {
                let mut down = self.down.lock().unwrap_or_else(PoisonError::into_inner);
                *down = Some(why.clone());
            }
            why
        })
    }

    fn down(&self) -> Option<NotMapped> {
        let down = self.down.lock().unwrap_or_else(PoisonError::into_inner);
        down.clone()
    }
}
