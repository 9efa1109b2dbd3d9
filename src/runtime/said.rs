//! What the API server said, in words for people.

use std::error::Error;
use std::fmt;

/// An error as logs and conditions show it.
///
/// The client prints a whole `Status` behind its message, every unset field included. Only the
/// message and the code are worth reading; what is no answer of the API server is shown as it is.
pub struct Said<'a>(pub &'a (dyn Error + 'static));

impl fmt::Display for Said<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut next = Some(self.0);
        while let Some(error) = next {
            let boxed = || error.downcast_ref::<Box<kube::Error>>().map(AsRef::as_ref);
            if let Some(kube::Error::Api(status)) = error.downcast_ref().or_else(boxed) {
                let said = match status.message.as_str() {
                    "" => &status.reason,
                    message => message,
                };
                return write!(formatter, "{said} (HTTP {})", status.code);
            }
            next = error.source();
        }
        write!(formatter, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;
    use kube::runtime::watcher;

    use super::*;

    #[test]
    fn an_answer_is_its_message_and_code_however_deep_it_is() {
        let refused = || {
            let status = Status::failure("namespaces \"nope\" not found", "NotFound");
            kube::Error::Api(status.with_code(404).boxed())
        };
        let said = "namespaces \"nope\" not found (HTTP 404)";
        assert_eq!(Said(&refused()).to_string(), said);
        let watch = watcher::Error::WatchFailed(refused());
        assert_eq!(Said(&watch).to_string(), said);
        let silent = Status::failure("", "Gone").with_code(410);
        let silent = kube::Error::Api(silent.boxed());
        assert_eq!(Said(&silent).to_string(), "Gone (HTTP 410)");
        assert_eq!(Said(&fmt::Error).to_string(), fmt::Error.to_string());
    }
}
