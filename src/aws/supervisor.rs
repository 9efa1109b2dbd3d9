//! What the calls to AWS report to, and ask before they write.

use std::fmt::Debug;
use std::sync::Arc;

use aws_sdk_opensearch::config::interceptors::BeforeTransmitInterceptorContextRef;
use aws_sdk_opensearch::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_opensearch::error::BoxError;

/// Counts calls, and says whether this process may write; whoever runs the calls implements it.
pub trait Supervisor: Debug + Send + Sync {
    /// Tells whether this process may write now.
    fn may_write(&self) -> bool;

    /// Takes note of how a call ended; both names are constants of the program.
    fn called(&self, operation: &'static str, code: &'static str);
}

/// Supervises a process that only looks: no write of it is ever sent.
#[derive(Debug, Clone, Copy)]
pub struct ReadOnly;

impl Supervisor for ReadOnly {
    fn may_write(&self) -> bool {
        false
    }

    fn called(&self, _operation: &'static str, _code: &'static str) {}
}

/// A write was not sent, since the process may not write any more.
#[derive(Debug, thiserror::Error)]
#[error("this process may not write")]
pub(super) struct MayNotWrite;

/// Asks the supervisor as the last thing before each try of a write leaves the process.
///
/// Any earlier would be too early: a process that was stopped for a while between the question and
/// the write, or between two tries, must not write when it goes on.
#[derive(Debug)]
pub(super) struct Gate(pub(super) Arc<dyn Supervisor>);

impl Intercept for Gate {
    fn name(&self) -> &'static str {
        "Gate"
    }

    fn read_before_transmit(
        &self,
        _context: &BeforeTransmitInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if self.0.may_write() {
            Ok(())
        } else {
            Err(MayNotWrite.into())
        }
    }
}
