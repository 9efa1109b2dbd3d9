//! What can go wrong on purpose, per operation: each fault a number of times, or until it is
//! cleared.

use std::time::Duration;

/// One way in which a call goes wrong. All but [`Fault::Delay`] need a valid signature to show.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// Refuses with `ThrottlingException` 429, `Rate exceeded` (awsQuery: `Throttling` 400).
    Throttle,
    /// Refuses with `InternalException` 500 (awsQuery: `ServiceFailure`), without applying
    /// anything.
    Internal,
    /// Refuses with `AccessDeniedException` 403 (awsQuery: `AccessDenied`).
    AccessDenied,
    /// Refuses with a code, a status and a message of the test's own.
    Refuse(&'static str, u16, String),
    /// Resets the connection before anything is applied.
    ResetBefore,
    /// Applies the call, then resets the connection instead of answering.
    ResetAfter,
    /// Waits before doing anything else; combines with the others.
    Delay(Duration),
}

/// How often a fault shows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Times {
    Exactly(u32),
    UntilCleared,
}

struct Rule {
    operation: String,
    domain: Option<String>,
    fault: Fault,
    times: Times,
}

/// The faults that are set at the moment, in the order in which they were injected.
#[derive(Default)]
pub(crate) struct Faults(Vec<Rule>);

impl Faults {
    /// Sets a fault on an operation, or on all of them by the name `*`; on one domain's calls only,
    /// if one is given.
    pub(crate) fn inject(
        &mut self,
        operation: &str,
        domain: Option<&str>,
        fault: Fault,
        times: Times,
    ) {
        self.0.push(Rule {
            operation: operation.to_owned(),
            domain: domain.map(str::to_owned),
            fault,
            times,
        });
    }

    /// Clears the faults of an operation, or all of them by the name `*`.
    pub(crate) fn clear(&mut self, operation: &str) {
        self.0
            .retain(|rule| operation != "*" && rule.operation != operation);
    }

    /// Clears the faults of one domain.
    pub(crate) fn clear_on(&mut self, domain: &str) {
        self.0.retain(|rule| rule.domain.as_deref() != Some(domain));
    }

    /// Takes what this call has to suffer: all delays, and the first fault that decides how it
    /// ends.
    pub(crate) fn take(&mut self, operation: &str, domain: Option<&str>) -> Vec<Fault> {
        let mut suffered: Vec<Fault> = Vec::new();
        let mut decided = false;
        for rule in &mut self.0 {
            let meant = (rule.operation == "*" || rule.operation == operation)
                && (rule.domain.is_none() || rule.domain.as_deref() == domain)
                && rule.times != Times::Exactly(0);
            let delays = matches!(rule.fault, Fault::Delay(_));
            if !meant || (decided && !delays) {
                continue;
            }
            decided = decided || !delays;
            if let Times::Exactly(left) = &mut rule.times {
                *left -= 1;
            }
            suffered.push(rule.fault.clone());
        }
        self.0.retain(|rule| rule.times != Times::Exactly(0));
        suffered
    }
}
