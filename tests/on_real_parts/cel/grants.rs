//! The rules of `DomainAccess`.

use serde_json::json;

use super::case::Place::Grant;
use super::case::ROLE;

super::cases! {
    a_grant_has_exactly_one_of_access_and_actions: Grant "" {
        rule: "set exactly one of access and actions",
        broken: [
            {"access": null},
            {"access": null, "actions": []},
            {"actions": ["es:ESHttpGet"]},
        ],
        legal: [{"access": null, "actions": ["es:ESHttpGet"]}, {"actions": []}],
    }
    admin_access_has_no_paths: Grant "" {
        rule: "access Admin is for the whole domain: leave paths out, or ask for ReadWrite",
        broken: [{"access": "Admin", "paths": ["a"]}],
        legal: [
            {"access": "Admin"},
            {"access": "Admin", "paths": []},
            {"access": "ReadWrite", "paths": ["a"]},
        ],
    }
    a_search_from_another_cluster_has_no_paths: Grant "" {
        rule: "es:ESCrossClusterGet is for the whole domain: put it into a grant without paths",
        broken: [{"access": null, "actions": ["es:ESCrossClusterGet"], "paths": ["a"]}],
        legal: [
            {"access": null, "actions": ["es:ESCrossClusterGet"]},
            {"access": null, "actions": ["es:ESHttpGet"], "paths": ["a"]},
        ],
    }
    principals_times_paths_are_bounded: Grant "" {
        rule: "principals times paths must be at most 500: split the grant",
        broken: [{
            "principals": vec![json!({"iamRole": {"arn": ROLE}}); 51],
            "paths": vec!["a"; 10],
        }],
        legal: [{
            "principals": vec![json!({"iamRole": {"arn": ROLE}}); 50],
            "paths": vec!["a"; 10],
        }],
    }
    an_anonymous_principal_needs_addresses: Grant "" {
        rule: "an anonymous principal needs conditions.sourceIps: without it everybody could use \
               the domain",
        broken: [
            {"principals": [{"anonymous": {}}]},
            {"principals": [{"anonymous": {}}], "conditions": {"sourceIps": []}},
            {"principals": [{"iamRole": {"arn": ROLE}}, {"anonymous": {}}], "conditions": {}},
        ],
        legal: [
            {"principals": [{"anonymous": {}}], "conditions": {"sourceIps": ["198.51.100.7"]}},
        ],
    }
    security_roles_are_for_principals_that_can_be_mapped: Grant "" {
        rule: "securityRoles map IAM roles, IAM users and service accounts: put account and \
               anonymous principals into another grant",
        broken: [
            {"securityRoles": ["a"], "principals": [{"account": {"id": "111122223333"}}]},
            {"securityRoles": ["a"], "principals": [{"iamRole": {"arn": ROLE}}, {"anonymous": {}}],
                "conditions": {"sourceIps": ["198.51.100.7"]}},
        ],
        legal: [
            {"securityRoles": ["a"]},
            {"securityRoles": [], "principals": [{"account": {"id": "111122223333"}}]},
        ],
    }
    security_roles_are_named_in_full: Grant "securityRoles" {
        rule: "must be names of roles, without wildcards",
        broken: [
            {"securityRoles": ["team-*"]},
            {"securityRoles": ["a", "te?m"]},
            {"securityRoles": ["/team-.*/"]},
        ],
        legal: [{"securityRoles": ["team-a.reader", "kibana user", "a/b"]}],
    }
    identity_policies_are_attached_to_roles_only: Grant "" {
        rule: "identityPolicy Attach writes to IAM roles: every principal must be an iamRole or a \
               serviceAccount",
        broken: [{
            "identityPolicy": "Attach",
            "principals": [
                {"iamRole": {"arn": ROLE}},
                {"iamUser": {"arn": "arn:aws:iam::111122223333:user/a"}},
            ],
        }],
        legal: [
            {"identityPolicy": "Attach"},
            {"identityPolicy": "Attach", "principals": [{"serviceAccount": {"name": "a"}}]},
            {
                "identityPolicy": "None",
                "principals": [{"iamUser": {"arn": "arn:aws:iam::111122223333:user/a"}}],
            },
        ],
    }
    the_domain_of_a_grant_cannot_change: Grant "domainRef" {
        rule: "domainRef cannot change: delete this grant and create another",
        update: {},
        broken: [{"domainRef": {"name": "another"}}],
        legal: [{}, {"access": "ReadWrite"}],
    }
    a_grant_refers_to_a_domain_by_its_name: Grant "domainRef.name" {
        rule: "must be the name of an OpenSearchDomain: lowercase letters, digits, '-' and '.'",
        broken: [
            {"domainRef": {"name": ""}},
            {"domainRef": {"name": "../x"}},
            {"domainRef": {"name": "Logs"}},
            {"domainRef": {"name": "-logs"}},
            {"domainRef": {"name": "a/status"}},
        ],
        legal: [{"domainRef": {"name": "eu.logs-1"}}, {"domainRef": {"name": "a"}}],
    }
    a_path_begins_with_an_index_name: Grant "paths" {
        rule: "a path begins with an index name (lowercase letters, digits, . _ - and *; first a \
               letter or digit), without a leading slash, '..' or percent-encoding",
        broken: [
            {"paths": [""]},
            {"paths": ["/a"]},
            {"paths": ["*"]},
            {"paths": ["_search"]},
            {"paths": [".kibana"]},
            {"paths": ["-a"]},
            {"paths": ["A"]},
            {"paths": ["a/"]},
            {"paths": ["a//b"]},
            {"paths": ["a..b"]},
            {"paths": ["a/../b"]},
            {"paths": ["a,b"]},
            {"paths": ["a%2Fb"]},
            {"paths": ["a\n"]},
            {"paths": ["a?b"]},
            {"paths": ["a", "é"]},
        ],
        legal: [
            {"paths": ["a"]},
            {"paths": ["0.a_b-c*", "a/_search", "a*/_doc/A.b-c*", "a/*"]},
            {"paths": []},
        ],
    }
    a_grant_ends_at_a_time_with_its_zone: Grant "expiresAt" {
        rule: "must be a time before the year 9999 with its zone, such as 2026-12-31T23:59:59Z; \
               without expiresAt a grant lasts",
        broken: [
            {"expiresAt": "2026-12-31"},
            {"expiresAt": "2026-12-31T23:59:59"},
            {"expiresAt": "2026-02-30T00:00:00Z"},
            {"expiresAt": "2026-12-31T24:00:00Z"},
            {"expiresAt": "2026-12-31T23:59:59+26:00"},
            {"expiresAt": "2026-12-31T23:59:59.1234567890Z"},
            {"expiresAt": "9999-12-31T23:59:59Z"},
        ],
        legal: [
            {"expiresAt": "2026-12-31T23:59:59Z"},
            {"expiresAt": "2026-12-31T23:59:59.123456789+01:00"},
            {"expiresAt": "9998-12-31T23:59:59Z"},
        ],
    }
    a_principal_is_exactly_one_thing: Grant "principals[]" {
        rule: "set exactly one of iamRole, iamUser, serviceAccount, account and anonymous",
        broken: [
            {"principals": [{}]},
            {"principals": [{"iamRole": {"arn": ROLE}, "account": {"id": "111122223333"}}]},
        ],
        legal: [{"principals": [{"iamRole": {"arn": ROLE}}, {"account": {"id": "111122223333"}}]}],
    }
    a_role_is_named_by_its_arn: Grant "principals[].iamRole.arn" {
        rule: "must be the ARN of one IAM role, arn:PARTITION:iam::ACCOUNT:role/NAME, without \
               wildcards",
        broken: [
            {"principals": [{"iamRole": {"arn": ""}}]},
            {"principals": [{"iamRole": {"arn": "*"}}]},
            {"principals": [{"iamRole": {"arn": "search-api"}}]},
            {"principals": [{"iamRole": {"arn": "arn:aws:iam::111122223333:root"}}]},
            {"principals": [{"iamRole": {"arn": "arn:aws:iam::111122223333:user/a"}}]},
            {"principals": [{"iamRole": {"arn": "arn:aws:iam::111122223333:role/"}}]},
            {"principals": [{"iamRole": {"arn": "arn:aws:iam::111122223333:role/*"}}]},
            {"principals": [{"iamRole": {"arn": "arn:aws:iam::111122223333:role/a?"}}]},
            {"principals": [{"iamRole": {"arn": "arn:aws:iam::111122223333:role//a"}}]},
            {"principals": [{"iamRole": {"arn": "arn:aws:iam::111122223333:role/a/"}}]},
            {"principals": [{"iamRole": {"arn": "arn:aws:iam::111122223333:role/a\n"}}]},
            {"principals": [{"iamRole": {"arn": "arn:aws:iam::11112222333:role/a"}}]},
            {"principals": [{"iamRole": {"arn": "arn:aws-eu:iam::111122223333:role/a"}}]},
            {"principals": [{"iamRole": {"arn": "arn:aws:sts::111122223333:assumed-role/a/b"}}]},
        ],
        legal: [{"principals": [
            {"iamRole": {"arn": ROLE}},
            {"iamRole": {"arn": "arn:aws:iam::111122223333:role/teams/a/A+=,.@_-0"}},
        ]}],
    }
    a_user_is_named_by_its_arn: Grant "principals[].iamUser.arn" {
        rule: "must be the ARN of one IAM user, arn:PARTITION:iam::ACCOUNT:user/NAME, without \
               wildcards",
        broken: [
            {"principals": [{"iamUser": {"arn": "ann"}}]},
            {"principals": [{"iamUser": {"arn": ROLE}}]},
            {"principals": [{"iamUser": {"arn": "arn:aws:iam::111122223333:user/*"}}]},
            {"principals": [{"iamUser": {"arn": "arn:aws:iam::111122223333:group/a"}}]},
        ],
        legal: [{"principals": [{"iamUser": {"arn": "arn:aws:iam::111122223333:user/x/ann"}}]}],
    }
    a_service_account_has_the_name_of_an_object: Grant "principals[].serviceAccount.name" {
        rule: "must be the name of a service account in the grant's namespace",
        broken: [
            {"principals": [{"serviceAccount": {"name": ""}}]},
            {"principals": [{"serviceAccount": {"name": "team-b/search"}}]},
            {"principals": [{"serviceAccount": {"name": "Search"}}]},
            {"principals": [{"serviceAccount": {"name": "-search"}}]},
        ],
        legal: [{"principals": [{"serviceAccount": {"name": "search.api-1"}}]}],
    }
    an_account_has_twelve_digits: Grant "principals[].account.id" {
        rule: "must be an AWS account id: 12 digits",
        broken: [
            {"principals": [{"account": {"id": ""}}]},
            {"principals": [{"account": {"id": "11112222333"}}]},
            {"principals": [{"account": {"id": "*"}}]},
            {"principals": [{"account": {"id": "11112222333a"}}]},
        ],
        legal: [{"principals": [{"account": {"id": "111122223333"}}]}],
    }
    a_source_is_an_address_or_a_block: Grant "conditions.sourceIps" {
        rule: "each source must be an IP address or a CIDR block, such as 198.51.100.7 or \
               203.0.113.0/24",
        broken: [
            {"conditions": {"sourceIps": [""]}},
            {"conditions": {"sourceIps": ["*"]}},
            {"conditions": {"sourceIps": ["198.51.100"]}},
            {"conditions": {"sourceIps": ["198.51.100.256"]}},
            {"conditions": {"sourceIps": ["198.51.100.07"]}},
            {"conditions": {"sourceIps": ["198.51.100.0/33"]}},
            {"conditions": {"sourceIps": ["198.51.100.0/024"]}},
            {"conditions": {"sourceIps": ["198.51.100.0/"]}},
            {"conditions": {"sourceIps": ["::ffff:198.51.100.7"]}},
            {"conditions": {"sourceIps": ["::ffff:198.51.100.0/120"]}},
            {"conditions": {"sourceIps": ["fe80::1%eth0"]}},
            {"conditions": {"sourceIps": ["example.com"]}},
        ],
        legal: [
            {"conditions": {"sourceIps": ["198.51.100.7", "203.0.113.0/24", "2001:DB8::/32"]}},
            {"conditions": {"sourceIps": ["198.51.100.7/32", "203.0.113.9/24", "2001:db8::1"]}},
        ],
    }
    a_source_is_not_the_public: Grant "conditions.sourceIps" {
        rule: "a source block may be no wider than /8 (IPv4) or /16 (IPv6): wider is open to the \
               public",
        broken: [
            {"conditions": {"sourceIps": ["0.0.0.0/0"]}},
            {"conditions": {"sourceIps": ["::/0"]}},
            {"conditions": {"sourceIps": ["16.0.0.0/7"]}},
            {"conditions": {"sourceIps": ["198.51.100.7", "2000::/15"]}},
        ],
        legal: [{"conditions": {"sourceIps": ["17.0.0.0/8", "2001::/16"]}}],
    }
    an_organization_has_its_id: Grant "conditions.principalOrgIds" {
        rule: "must be organization ids, such as o-a1b2c3d4e5",
        broken: [
            {"conditions": {"principalOrgIds": ["*"]}},
            {"conditions": {"principalOrgIds": ["a1b2c3d4e5"]}},
            {"conditions": {"principalOrgIds": ["o-a1b2c3d4e"]}},
            {"conditions": {"principalOrgIds": ["o-A1B2C3D4E5"]}},
        ],
        legal: [{"conditions": {"principalOrgIds": ["o-a1b2c3d4e5"]}}],
    }
    the_accounts_of_principals_have_twelve_digits: Grant "conditions.principalAccounts" {
        rule: "must be AWS account ids: 12 digits",
        broken: [{"conditions": {"principalAccounts": ["111122223333", "11112222333"]}}],
        legal: [{"conditions": {"principalAccounts": ["111122223333"]}}],
    }
    a_vpc_has_its_id: Grant "conditions.sourceVpcs" {
        rule: "must be VPC ids, such as vpc-0a1b2c3d",
        broken: [
            {"conditions": {"sourceVpcs": ["*"]}},
            {"conditions": {"sourceVpcs": ["vpc-0a1b2c3"]}},
            {"conditions": {"sourceVpcs": ["vpc-0a1b2c3g"]}},
            {"conditions": {"sourceVpcs": ["vpce-0a1b2c3d"]}},
        ],
        legal: [{"conditions": {"sourceVpcs": ["vpc-0a1b2c3d", "vpc-0a1b2c3d4e5f60718"]}}],
    }
    a_vpc_endpoint_has_its_id: Grant "conditions.sourceVpces" {
        rule: "must be VPC endpoint ids, such as vpce-0a1b2c3d",
        broken: [
            {"conditions": {"sourceVpces": ["vpce-0a1b2c3"]}},
            {"conditions": {"sourceVpces": ["vpc-0a1b2c3d"]}},
        ],
        legal: [{"conditions": {"sourceVpces": ["vpce-0a1b2c3d"]}}],
    }
}
