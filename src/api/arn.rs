//! The ARNs that appear in grants and domains, parsed.
//!
//! A principal that reaches a policy is one of these types and nothing else, so that `*`, an
//! account's root, a group, a wildcard or a session cannot be spelled by a tenant.

use std::fmt;

/// Why a string is not the ARN that a field wants.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The text has not the six parts of an IAM ARN.
    #[error("{0:?} is not an IAM ARN; write arn:PARTITION:iam::ACCOUNT:{1}/NAME")]
    Shape(String, &'static str),
    /// The partition is none that AWS has.
    #[error("{0:?} is not an AWS partition; the partitions are {list}", list = PARTITIONS.join(", "))]
    Partition(String),
    /// The account is not twelve digits.
    #[error("{0:?} is not an account id; an account id has 12 digits")]
    Account(String),
    /// The ARN names something other than the field is for.
    #[error("{0:?} is not the ARN of an IAM {1}")]
    Kind(String, &'static str),
    /// The name or path has characters that IAM does not allow; wildcards are among them.
    #[error(
        "{0:?} is not the path and name of an IAM {1}: letters, digits and + = , . @ - _ / only, no wildcards"
    )]
    Name(String, &'static str),
}

/// The partitions of AWS.
pub const PARTITIONS: [&str; 8] = [
    "aws",
    "aws-cn",
    "aws-us-gov",
    "aws-iso",
    "aws-iso-b",
    "aws-iso-e",
    "aws-iso-f",
    "aws-eusc",
];

/// Returns the partition that a region belongs to.
#[must_use]
pub fn partition_of(region: &str) -> &'static str {
    match region {
        r if r.starts_with("cn-") => "aws-cn",
        r if r.starts_with("us-gov-") => "aws-us-gov",
        r if r.starts_with("us-iso-") => "aws-iso",
        r if r.starts_with("us-isob-") => "aws-iso-b",
        r if r.starts_with("eu-isoe-") => "aws-iso-e",
        r if r.starts_with("us-isof-") => "aws-iso-f",
        r if r.starts_with("eusc-") => "aws-eusc",
        _ => "aws",
    }
}

/// Tells whether the text is an AWS account id.
#[must_use]
pub fn is_account_id(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit())
}

/// Why a text is not the ARN of an OpenSearch domain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not the ARN of a domain; write arn:PARTITION:es:REGION:ACCOUNT:domain/NAME, with the partition of the region"
)]
pub struct NotADomain(String);

/// What kind of IAM entity an ARN names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EntityKind {
    /// An IAM role.
    Role,
    /// An IAM user.
    User,
}

impl EntityKind {
    /// Returns the word by which ARNs and messages name the kind.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Role => "role",
            Self::User => "user",
        }
    }
}

/// The ARN of one IAM role or user, without wildcards.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntityArn {
    text: String,
    kind: EntityKind,
    partition_end: usize,
}

impl EntityArn {
    /// Parses the ARN of an entity of the given kind.
    ///
    /// # Errors
    ///
    /// Says which part of the text breaks which rule.
    pub fn parse(text: &str, kind: EntityKind) -> Result<Self, Error> {
        let word = kind.as_str();
        let shape = || Error::Shape(text.to_owned(), word);
        let mut parts = text.splitn(6, ':');
        let mut part = || parts.next().ok_or_else(shape);
        let (prefix, partition, service, region) = (part()?, part()?, part()?, part()?);
        let (account, resource) = (part()?, part()?);
        if prefix != "arn" || service != "iam" || !region.is_empty() {
            return Err(shape());
        }
        if !PARTITIONS.contains(&partition) {
            return Err(Error::Partition(partition.to_owned()));
        }
        if !is_account_id(account) {
            return Err(Error::Account(account.to_owned()));
        }
        let Some((found, name)) = resource.split_once('/') else {
            return Err(Error::Kind(text.to_owned(), word));
        };
        if found != word {
            return Err(Error::Kind(text.to_owned(), word));
        }
        let legal = |b: u8| b.is_ascii_alphanumeric() || b"+=,.@-_/".contains(&b);
        if name.is_empty()
            || name.starts_with('/')
            || name.ends_with('/')
            || name.contains("//")
            || !name.bytes().all(legal)
        {
            return Err(Error::Name(name.to_owned(), word));
        }
        Ok(Self {
            partition_end: "arn:".len() + partition.len(),
            text: text.to_owned(),
            kind,
        })
    }

    /// Returns the whole ARN.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns whether a role or a user is named.
    #[must_use]
    pub fn kind(&self) -> EntityKind {
        self.kind
    }

    /// Returns the partition, such as `aws`.
    #[must_use]
    pub fn partition(&self) -> &str {
        self.text
            .get("arn:".len()..self.partition_end)
            .unwrap_or_default()
    }

    /// Returns the account id.
    #[must_use]
    pub fn account(&self) -> &str {
        self.text.split(':').nth(4).unwrap_or_default()
    }

    /// Returns the entity's name, without its path: what IAM's API calls `RoleName`, `UserName`.
    #[must_use]
    pub fn name(&self) -> &str {
        self.text.rsplit('/').next().unwrap_or_default()
    }
}

impl fmt::Display for EntityArn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The ARN of an OpenSearch domain.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomainArn(String);

impl DomainArn {
    /// Builds the ARN of the named domain.
    #[must_use]
    pub fn new(region: &str, account: &str, name: &str) -> Self {
        Self(format!(
            "arn:{}:es:{region}:{account}:domain/{name}",
            partition_of(region)
        ))
    }

    /// Parses the ARN of a domain itself, without a path below it.
    ///
    /// # Errors
    ///
    /// Says the form that the text has not.
    pub fn parse(text: &str) -> Result<Self, NotADomain> {
        let parts: Vec<&str> = text.split(':').collect();
        let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let word = |part: &str| !part.is_empty() && part.bytes().all(legal);
        match parts.as_slice() {
            ["arn", partition, "es", region, account, resource]
                if word(region)
                    && *partition == partition_of(region)
                    && is_account_id(account)
                    && resource.strip_prefix("domain/").is_some_and(word) =>
            {
                Ok(Self(text.to_owned()))
            }
            _ => Err(NotADomain(text.to_owned())),
        }
    }

    /// Returns the domain that a policy's resource lies on: the domain itself, or paths below it.
    ///
    /// `None` where the resource names no one domain, for a wildcard say.
    #[must_use]
    pub fn of_resource(resource: &str) -> Option<Self> {
        let mut parts = resource.splitn(3, '/');
        let (domain, name) = (parts.next()?, parts.next()?);
        Self::parse(&format!("{domain}/{name}")).ok()
    }

    /// Returns the account id.
    #[must_use]
    pub fn account(&self) -> &str {
        self.0.split(':').nth(4).unwrap_or_default()
    }

    /// Returns the ARN of the domain itself, which only `es:ESCrossClusterGet` is granted on.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the resource for URI paths under the domain; the path has no leading slash.
    #[must_use]
    pub fn resource(&self, path: &str) -> String {
        format!("{}/{path}", self.0)
    }

    /// Returns the partition, such as `aws`.
    #[must_use]
    pub fn partition(&self) -> &str {
        self.0.split(':').nth(1).unwrap_or_default()
    }
}

impl fmt::Display for DomainArn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn role_arns_with_a_path_keep_it_and_give_their_name() {
        let arn = EntityArn::parse(
            "arn:aws:iam::111122223333:role/teams/a/reader",
            EntityKind::Role,
        )
        .unwrap();
        assert_eq!(
            (arn.partition(), arn.account(), arn.name()),
            ("aws", "111122223333", "reader")
        );
    }

    #[test]
    fn nothing_but_one_entity_can_be_spelled() {
        for (text, kind) in [
            ("*", EntityKind::Role),
            ("arn:aws:iam::111122223333:root", EntityKind::Role),
            ("arn:aws:iam::111122223333:role/*", EntityKind::Role),
            ("arn:aws:iam::111122223333:role/a?", EntityKind::Role),
            ("arn:aws:iam::*:role/a", EntityKind::Role),
            ("arn:aws:iam::11112222333:role/a", EntityKind::Role),
            ("arn:aws:iam::111122223333:group/a", EntityKind::User),
            ("arn:aws:iam::111122223333:user/a", EntityKind::Role),
            (
                "arn:aws:sts::111122223333:assumed-role/a/b",
                EntityKind::Role,
            ),
            ("arn:aws-xx:iam::111122223333:role/a", EntityKind::Role),
            ("arn:aws:iam::111122223333:role/", EntityKind::Role),
            ("arn:aws:iam::111122223333:role/a\",\"*", EntityKind::Role),
            ("arn:aws:iam::111122223333:role/a\n", EntityKind::Role),
            (" arn:aws:iam::111122223333:role/a", EntityKind::Role),
        ] {
            assert!(EntityArn::parse(text, kind).is_err(), "{text}");
        }
    }

    #[test]
    fn a_resource_names_its_domain_or_none() {
        let domain = DomainArn::new("eu-west-1", "111122223333", "logs");
        let arn = "arn:aws:es:eu-west-1:111122223333:domain/logs";
        assert_eq!(DomainArn::parse(arn), Ok(domain.clone()));
        for rest in ["", "/", "/*", "/a/_search"] {
            let found = DomainArn::of_resource(&format!("{arn}{rest}"));
            assert_eq!(found.as_ref(), Some(&domain), "{rest}");
        }
        for resource in [
            "*",
            "",
            "arn:aws:es:*:111122223333:domain/logs/*",
            "arn:aws:es:eu-west-1:111122223333:domain/lo*",
            "arn:aws-cn:es:eu-west-1:111122223333:domain/logs/*",
            "arn:aws:s3:eu-west-1:111122223333:domain/logs",
            "arn:aws:es:eu-west-1:1:domain/logs",
        ] {
            assert_eq!(DomainArn::of_resource(resource), None, "{resource}");
        }
        assert!(DomainArn::parse(&format!("{arn}/*")).is_err());
    }

    #[test]
    fn a_domain_arn_takes_the_partition_of_its_region() {
        assert_eq!(
            DomainArn::new("cn-north-1", "111122223333", "logs").as_str(),
            "arn:aws-cn:es:cn-north-1:111122223333:domain/logs"
        );
    }
}
