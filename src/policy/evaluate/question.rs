//! A question as a person asks it, parsed into a [`Request`].

use std::net::IpAddr;

use jiff::Timestamp;

use super::{Context, Request};
use crate::api::arn::{PARTITIONS, is_account_id};
use crate::policy::permission::ActionSet;
use crate::policy::validate::{is_organization_id, is_resource_id};

/// The keys that only a request through a VPC endpoint has.
const OF_ENDPOINTS: [&str; 3] = ["aws:VpcSourceIp", "aws:SourceVpc", "aws:SourceVpce"];

/// A question, part by part, as it was asked.
#[derive(Debug, Clone, Default)]
pub struct Question {
    /// The caller's ARN; `None` for an unsigned request.
    pub principal: Option<String>,
    /// The action.
    pub action: String,
    /// The path; a query string does not count.
    pub path: String,
    /// The public address that the request comes from.
    pub source_ip: Option<String>,
    /// The organization of the caller's account.
    pub org_id: Option<String>,
    /// The VPC endpoint that the request comes through.
    pub vpce: Option<String>,
    /// Further condition keys with a value each; a key that comes again has several values.
    pub context: Vec<(String, String)>,
}

/// Why a question cannot be answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// The action is none of the data plane's.
    #[error("{0:?} is not an action on a domain's data; ask about one of {names}", names = ActionSet::all_names().join(", "))]
    Action(String),
    /// The principal is no ARN of a caller.
    #[error(
        "{0:?} is not the ARN of a caller; write arn:PARTITION:iam::ACCOUNT:role/NAME, arn:PARTITION:iam::ACCOUNT:user/NAME or arn:PARTITION:sts::ACCOUNT:assumed-role/ROLE/SESSION"
    )]
    Principal(String),
    /// The address is none.
    #[error("{0:?} is not an IP address")]
    SourceIp(String),
    /// The organization's id has another form.
    #[error("{0:?} is not an organization id, such as o-a1b2c3d4e5")]
    OrgId(String),
    /// An unsigned request has no organization.
    #[error(
        "an unsigned request is of no organization: name a principal, or leave the organization out"
    )]
    OrgOfNobody,
    /// The endpoint's id has another form.
    #[error("{0:?} is not a VPC endpoint id, such as vpce-0a1b2c3d")]
    Vpce(String),
    /// A request has either of the two.
    #[error(
        "a request through a VPC endpoint has no source address that AWS sees: leave one of the two out"
    )]
    TwoWays,
    /// The path is no path.
    #[error("{0:?} is not the path of a request; it begins with a slash")]
    Path(String),
}

impl Question {
    /// Checks the question, and adds what follows from its parts.
    ///
    /// A request from an address has none of the keys that VPC endpoints give, and one through an
    /// endpoint has no `aws:SourceIp`; the time is `now`, unless the question says another.
    pub fn parse(&self, now: Timestamp) -> Result<Request, Invalid> {
        let action =
            ActionSet::exact(&self.action).ok_or_else(|| Invalid::Action(self.action.clone()))?;
        if let Some(principal) = &self.principal
            && !is_caller(principal)
        {
            return Err(Invalid::Principal(principal.clone()));
        }
        let path = self.path.split(['?', '#']).next().unwrap_or_default();
        if !path.starts_with('/') {
            return Err(Invalid::Path(self.path.clone()));
        }
        let mut context = Context::default();
        match (&self.source_ip, &self.vpce) {
            (Some(_), Some(_)) => return Err(Invalid::TwoWays),
            (Some(address), None) => {
                if address.parse::<IpAddr>().is_err() {
                    return Err(Invalid::SourceIp(address.clone()));
                }
                for key in OF_ENDPOINTS {
                    context.set_absent(key);
                }
                context.set("aws:SourceIp", address);
            }
            (None, Some(endpoint)) => {
                if !is_resource_id(endpoint, "vpce-") {
                    return Err(Invalid::Vpce(endpoint.clone()));
                }
                context.set_absent("aws:SourceIp");
                context.set("aws:SourceVpce", endpoint);
            }
            (None, None) => {}
        }
        if let Some(id) = &self.org_id {
            if self.principal.is_none() {
                return Err(Invalid::OrgOfNobody);
            }
            if !is_organization_id(id) {
                return Err(Invalid::OrgId(id.clone()));
            }
            context.set("aws:PrincipalOrgID", id);
        }
        for (key, value) in &self.context {
            context.add(key, value);
        }
        context.set_default("aws:CurrentTime", &now.to_string());
        context.set_default("aws:EpochTime", &now.as_second().to_string());
        Ok(Request {
            principal: self.principal.clone(),
            action: action.to_owned(),
            path: path.to_owned(),
            context,
        })
    }
}

/// Tells whether a text is the ARN of somebody who can sign a request: a role stands for its
/// sessions.
fn is_caller(text: &str) -> bool {
    let parts: Vec<&str> = text.splitn(6, ':').collect();
    let &["arn", partition, service, "", account, resource] = parts.as_slice() else {
        return false;
    };
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"+=,.@-_".contains(&b);
    let words: Vec<&str> = resource.split('/').collect();
    let spelled = words
        .iter()
        .all(|word| !word.is_empty() && word.bytes().all(legal));
    let kind = matches!(
        (service, words.as_slice()),
        ("iam", ["root"] | ["role" | "user", _, ..])
            | ("sts", ["assumed-role", _, _] | ["federated-user", _])
    );
    PARTITIONS.contains(&partition) && is_account_id(account) && spelled && kind
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(principal: &str) -> Question {
        Question {
            principal: Some(principal.to_owned()),
            action: "es:eshttpget".to_owned(),
            path: "/a?pretty".to_owned(),
            ..Question::default()
        }
    }

    #[test]
    fn callers_are_roles_users_and_sessions() {
        for text in [
            "arn:aws:iam::111122223333:role/a",
            "arn:aws:iam::111122223333:role/teams/a",
            "arn:aws-cn:iam::111122223333:user/ann@example.com",
            "arn:aws:iam::111122223333:root",
            "arn:aws:sts::111122223333:assumed-role/a/session",
            "arn:aws:sts::111122223333:federated-user/a",
        ] {
            let request = question(text).parse(Timestamp::UNIX_EPOCH).unwrap();
            assert_eq!(request.action, "es:ESHttpGet");
            assert_eq!(request.path, "/a");
        }
        for text in [
            "",
            "*",
            "111122223333",
            "role/a",
            "arn:aws:iam::111122223333:role/*",
            "arn:aws:iam::111122223333:role/",
            "arn:aws:iam::1111:role/a",
            "arn:aws:iam::111122223333:group/a",
            "arn:aws:sts::111122223333:assumed-role/a",
            "arn:aws-x:iam::111122223333:role/a",
            "arn:aws:es:eu-west-1:111122223333:domain/logs",
        ] {
            let invalid = question(text).parse(Timestamp::UNIX_EPOCH).unwrap_err();
            assert_eq!(invalid, Invalid::Principal(text.to_owned()));
        }
    }

    #[test]
    fn an_action_is_one_of_the_data_plane() {
        for action in [
            "es:ESHttp*",
            "es:*",
            "es:UpdateDomainConfig",
            "ESHttpGet",
            "",
        ] {
            let question = Question {
                action: action.to_owned(),
                ..question("arn:aws:iam::111122223333:role/a")
            };
            assert_eq!(
                question.parse(Timestamp::UNIX_EPOCH),
                Err(Invalid::Action(action.to_owned()))
            );
        }
    }

    #[test]
    fn parts_that_do_not_go_together_are_refused() {
        let ask = |change: &dyn Fn(&mut Question)| {
            let mut question = question("arn:aws:iam::111122223333:role/a");
            change(&mut question);
            question.parse(Timestamp::UNIX_EPOCH).err()
        };
        let set = |text: &str| Some(text.to_owned());
        assert_eq!(ask(&|_| ()), None);
        assert_eq!(
            ask(&|it| it.source_ip = set("203.0.113.0/24")),
            Some(Invalid::SourceIp("203.0.113.0/24".to_owned()))
        );
        let both = ask(&|it| {
            it.source_ip = set("203.0.113.9");
            it.vpce = set("vpce-0a1b2c3d");
        });
        assert_eq!(both, Some(Invalid::TwoWays));
        let nobody = ask(&|it| {
            it.principal = None;
            it.org_id = set("o-a1b2c3d4e5");
        });
        assert_eq!(nobody, Some(Invalid::OrgOfNobody));
        assert_eq!(
            ask(&|it| it.path = "a".to_owned()),
            Some(Invalid::Path("a".to_owned()))
        );
    }
}
