//! The rules of `OpenSearchDomain`.

use serde_json::json;

use super::case::Place::{Ceiling, Consent, Domain, Object};
use super::case::ROLE;

super::cases! {
    a_domain_has_a_name_that_grants_can_refer_to: Object "" {
        rule: "the name of an OpenSearchDomain has at most 63 characters",
        broken: [{"metadata": {"name": "a".repeat(64)}}],
        legal: [{"metadata": {"name": "a".repeat(63)}}],
    }
    a_domain_stays_the_domain_that_it_is: Domain "" {
        rule: "domainName, accountId and region cannot change: create another OpenSearchDomain",
        update: {},
        broken: [
            {"domainName": "another"},
            {"accountId": "444455556666"},
            {"region": "eu-west-2"},
        ],
        legal: [{}, {"suspend": true}],
    }
    the_role_to_assume_is_of_the_domains_account: Domain "" {
        rule: "assumeRole.arn must be a role of the domain's account, accountId",
        broken: [{"assumeRole": {"arn": "arn:aws:iam::444455556666:role/a"}}],
        legal: [{"assumeRole": {"arn": ROLE}}],
    }
    a_domain_has_a_name_that_aws_allows: Domain "domainName" {
        rule: "must be 3 to 28 lowercase letters, digits and hyphens, beginning with a letter",
        broken: [
            {"domainName": ""},
            {"domainName": "ab"},
            {"domainName": "1abc"},
            {"domainName": "Logs"},
            {"domainName": "my_domain"},
            {"domainName": "my.domain"},
        ],
        legal: [{"domainName": "abc"}, {"domainName": "a-1"}],
    }
    the_account_of_a_domain_has_twelve_digits: Domain "accountId" {
        rule: "must be an AWS account id: 12 digits",
        broken: [{"accountId": ""}, {"accountId": "11112222333"}, {"accountId": "11112222333a"}],
        legal: [{"accountId": "000000000000"}],
    }
    a_region_is_one_of_aws: Domain "region" {
        rule: "must be an AWS region, such as eu-west-1",
        broken: [
            {"region": ""},
            {"region": "eu-west"},
            {"region": "west-1"},
            {"region": "EU-WEST-1"},
            {"region": "eu-west-1a"},
            {"region": "eu-west-1.example.com"},
        ],
        legal: [{"region": "us-gov-west-1"}, {"region": "eusc-de-east-1"}],
    }
    the_role_to_assume_is_named_by_its_arn: Domain "assumeRole.arn" {
        rule: "must be the ARN of one IAM role, arn:PARTITION:iam::ACCOUNT:role/NAME",
        broken: [
            {"assumeRole": {"arn": "operator"}},
            {"assumeRole": {"arn": "arn:aws:iam::111122223333:user/a"}},
            {"assumeRole": {"arn": "arn:aws:iam::111122223333:role/*"}},
            {"assumeRole": {"arn": "arn:aws-eu:iam::111122223333:role/a"}},
        ],
        legal: [{"assumeRole": {"arn": "arn:aws:iam::111122223333:role/x/operator"}}],
    }
    the_master_user_is_named_by_its_arn: Domain "fineGrainedAccess.masterUserArn" {
        rule: "must be the ARN of one IAM role or user",
        broken: [
            {"fineGrainedAccess": {"masterUserArn": "admin"}},
            {"fineGrainedAccess": {"masterUserArn": "arn:aws:iam::111122223333:root"}},
            {"fineGrainedAccess": {"masterUserArn": "arn:aws:iam::111122223333:group/a"}},
            {"fineGrainedAccess": {"masterUserArn": "arn:aws:iam::111122223333:role/*"}},
        ],
        legal: [
            {"fineGrainedAccess": {"masterUserArn": ROLE}},
            {"fineGrainedAccess": {"masterUserArn": "arn:aws:iam::111122223333:user/a"}},
        ],
    }
    an_interval_is_at_least_ten_seconds: Domain "interval" {
        rule: "must be a duration of at least 10s, such as 10m or 1h",
        broken: [
            {"interval": ""},
            {"interval": "9s"},
            {"interval": "10"},
            {"interval": "1d"},
            {"interval": "1h30m"},
            {"interval": "010m"},
            {"interval": "+10m"},
            {"interval": "100000h"},
        ],
        legal: [{"interval": "10s"}, {"interval": "1m"}, {"interval": "24h"}],
    }
    consent_names_namespaces_or_selects_them: Consent "" {
        rule: "set exactly one of namespaces and namespaceSelector",
        broken: [
            {"namespaces": null},
            {"namespaces": []},
            {"namespaceSelector": {"matchLabels": {"a": "b"}}},
        ],
        legal: [
            {},
            {"namespaces": null, "namespaceSelector": {"matchLabels": {"a": "b"}}},
        ],
    }
    consent_is_not_for_every_namespace: Consent "" {
        rule: "an empty namespaceSelector would consent to every namespace: name labels",
        broken: [
            {"namespaces": null, "namespaceSelector": {}},
            {
                "namespaces": null,
                "namespaceSelector": {"matchLabels": {}, "matchExpressions": []},
            },
        ],
        legal: [
            {"namespaces": null, "namespaceSelector": {"matchExpressions": [
                {"key": "a", "operator": "Exists"},
            ]}},
        ],
    }
    consent_is_by_names_without_wildcards: Consent "namespaces" {
        rule: "must be names of namespaces, without wildcards; namespaceSelector selects by labels",
        broken: [
            {"namespaces": [""]},
            {"namespaces": ["*"]},
            {"namespaces": ["team-*"]},
            {"namespaces": ["Team-A"]},
            {"namespaces": ["team-a", "team.b"]},
        ],
        legal: [{"namespaces": ["team-a", "0"]}],
    }
    a_ceiling_has_exactly_one_of_access_and_actions: Ceiling "" {
        rule: "set exactly one of access and actions",
        broken: [{"access": null}, {"access": null, "actions": []}, {"actions": ["es:*"]}],
        legal: [{"access": null, "actions": ["es:*"]}],
    }
    a_ceiling_for_the_anonymous_has_addresses: Ceiling "" {
        rule: "anonymous needs sourceIps: the addresses that unsigned requests may come from",
        broken: [{"anonymous": true}, {"anonymous": true, "sourceIps": []}],
        legal: [{"anonymous": true, "sourceIps": ["198.51.100.7"]}, {"anonymous": false}],
    }
    the_paths_of_a_ceiling_begin_with_an_index_name: Ceiling "paths" {
        rule: "a path begins with an index name (lowercase letters, digits, . _ - * and \
               {{namespace}}), without a leading slash, '..' or percent-encoding",
        broken: [
            {"paths": [""]},
            {"paths": ["/a"]},
            {"paths": ["*"]},
            {"paths": ["_search"]},
            {"paths": [".{{namespace}}"]},
            {"paths": ["a..b"]},
            {"paths": ["a/"]},
            {"paths": ["a%2Fb"]},
            {"paths": ["{{team}}-*"]},
            {"paths": ["{namespace}-*"]},
            {"paths": ["a/{{namespace}}"]},
        ],
        legal: [{"paths": [
            "a",
            "{{namespace}}-*",
            "{{namespace}}",
            "logs-{{namespace}}/_search",
            "a/_doc/B*",
        ]}],
    }
    the_addresses_of_a_ceiling_are_addresses_or_blocks: Ceiling "sourceIps" {
        rule: "each source must be an IP address or a CIDR block, such as 203.0.113.0/24",
        broken: [
            {"sourceIps": ["198.51.100"]},
            {"sourceIps": ["203.0.113.0/33"]},
            {"sourceIps": ["::ffff:198.51.100.7"]},
        ],
        legal: [{"sourceIps": ["198.51.100.7", "203.0.113.0/24", "2001:db8::/32", "0.0.0.0/0"]}],
    }
    the_longest_time_of_a_ceiling_is_a_duration: Ceiling "maxDuration" {
        rule: "must be a duration, such as 12h or 90d",
        broken: [
            {"maxDuration": ""},
            {"maxDuration": "90"},
            {"maxDuration": "0d"},
            {"maxDuration": "09d"},
            {"maxDuration": "1w"},
            {"maxDuration": "1.5h"},
        ],
        legal: [{"maxDuration": "1s"}, {"maxDuration": "90d"}],
    }
    the_accounts_of_a_ceiling_have_twelve_digits: Ceiling "principals.accounts" {
        rule: "must be AWS account ids: 12 digits",
        broken: [{"principals": {"accounts": ["*"]}}, {"principals": {"accounts": ["1111222233"]}}],
        legal: [{"principals": {"accounts": ["111122223333"]}}],
    }
    the_patterns_of_a_ceiling_are_of_one_account: Ceiling "principals.arns" {
        rule: "must be patterns of role or user ARNs with a full account id, such as \
               arn:aws:iam::111122223333:role/{{namespace}}-*",
        broken: [
            {"principals": {"arns": ["*"]}},
            {"principals": {"arns": ["arn:aws:iam::*:role/a"]}},
            {"principals": {"arns": ["arn:*:iam::111122223333:role/a"]}},
            {"principals": {"arns": ["arn:aws:iam::111122223333:*"]}},
            {"principals": {"arns": ["arn:aws:iam::111122223333:role/"]}},
            {"principals": {"arns": ["arn:aws:iam::111122223333:group/a"]}},
            {"principals": {"arns": ["arn:aws:iam::111122223333:role/{{team}}-*"]}},
            {"principals": {"arns": ["arn:aws:iam::111122223333:role/a?"]}},
        ],
        legal: [{"principals": {"arns": [
            ROLE,
            "arn:aws:iam::111122223333:role/*",
            "arn:aws:iam::111122223333:user/{{namespace}}/*",
            "arn:aws-cn:iam::111122223333:role/{{namespace}}-*",
        ]}}],
    }
    the_whole_accounts_of_a_ceiling_have_twelve_digits: Ceiling "principals.wholeAccounts" {
        rule: "must be AWS account ids: 12 digits",
        broken: [{"principals": {"wholeAccounts": ["*"]}}],
        legal: [{"principals": {"wholeAccounts": ["111122223333"]}}],
    }
    the_organizations_of_a_ceiling_have_their_ids: Ceiling "principals.organizationIds" {
        rule: "must be organization ids, such as o-a1b2c3d4e5",
        broken: [{"principals": {"organizationIds": ["*"]}}],
        legal: [{"principals": {"organizationIds": ["o-a1b2c3d4e5"]}}],
    }
}
