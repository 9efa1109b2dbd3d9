//! The bounds of lists, texts and numbers, in both kinds.

use serde_json::{Value, json};

use super::case::Place::{Ceiling, Consent, Domain, Grant};
use super::case::{ACCOUNT, ROLE};

/// Returns a list of so many items.
fn list(count: usize, item: impl Fn(usize) -> Value) -> Value {
    (0..count).map(item).collect()
}

/// Returns a list of so many equal items.
fn same(count: usize, item: &str) -> Value {
    list(count, |_| item.into())
}

fn addresses(count: usize) -> Value {
    list(count, |n| format!("198.51.100.{n}").into())
}

/// Returns the ARN of a role or user, of so many characters.
fn arn(length: usize, kind: &str) -> String {
    let arn = format!("arn:aws:iam::{ACCOUNT}:{kind}/");
    format!("{arn}{}", "a".repeat(length - arn.len()))
}

super::cases! {
    a_grant_names_at_most_100_principals: Grant "principals" {
        bound: "maxItems",
        broken: [{"principals": list(101, |_| json!({"iamRole": {"arn": ROLE}}))}],
        legal: [{"principals": list(100, |_| json!({"iamRole": {"arn": ROLE}}))}],
    }
    a_grant_names_at_least_one_principal: Grant "principals" {
        bound: "minItems",
        broken: [{"principals": []}],
        legal: [{}],
    }
    a_grant_names_at_most_9_actions: Grant "actions" {
        bound: "maxItems",
        broken: [{"access": null, "actions": same(10, "es:ESHttpGet")}],
        legal: [{"access": null, "actions": same(9, "es:ESHttpGet")}],
    }
    a_grant_names_at_most_50_paths: Grant "paths" {
        bound: "maxItems",
        broken: [{"paths": same(51, "a")}],
        legal: [{"paths": same(50, "a")}],
    }
    a_path_has_at_most_255_characters: Grant "paths[]" {
        bound: "maxLength",
        broken: [{"paths": ["a".repeat(256)]}],
        legal: [{"paths": ["a".repeat(255)]}],
    }
    a_grant_maps_at_most_50_security_roles: Grant "securityRoles" {
        bound: "maxItems",
        broken: [{"securityRoles": same(51, "a")}],
        legal: [{"securityRoles": same(50, "a")}],
    }
    a_security_role_has_at_most_256_characters: Grant "securityRoles[]" {
        bound: "maxLength",
        broken: [{"securityRoles": ["a".repeat(257)]}],
        legal: [{"securityRoles": ["a".repeat(256)]}],
    }
    a_security_role_has_a_name: Grant "securityRoles[]" {
        bound: "minLength",
        broken: [{"securityRoles": [""]}],
        legal: [{"securityRoles": ["a"]}],
    }
    a_grant_refers_to_a_name_of_at_most_63_characters: Grant "domainRef.name" {
        bound: "maxLength",
        broken: [{"domainRef": {"name": "a".repeat(64)}}],
        legal: [{"domainRef": {"name": "a".repeat(63)}}],
    }
    the_end_of_a_grant_has_at_most_35_characters: Grant "expiresAt" {
        bound: "maxLength",
        broken: [{"expiresAt": "2026-12-31T23:59:59.1234567890+01:00"}],
        legal: [{"expiresAt": "2026-12-31T23:59:59.123456789+01:00"}],
    }
    the_arn_of_a_role_has_at_most_640_characters: Grant "principals[].iamRole.arn" {
        bound: "maxLength",
        broken: [{"principals": [{"iamRole": {"arn": arn(641, "role")}}]}],
        legal: [{"principals": [{"iamRole": {"arn": arn(640, "role")}}]}],
    }
    the_arn_of_a_user_has_at_most_640_characters: Grant "principals[].iamUser.arn" {
        bound: "maxLength",
        broken: [{"principals": [{"iamUser": {"arn": arn(641, "user")}}]}],
        legal: [{"principals": [{"iamUser": {"arn": arn(640, "user")}}]}],
    }
    a_service_account_has_at_most_253_characters: Grant "principals[].serviceAccount.name" {
        bound: "maxLength",
        broken: [{"principals": [{"serviceAccount": {"name": "a".repeat(254)}}]}],
        legal: [{"principals": [{"serviceAccount": {"name": "a".repeat(253)}}]}],
    }
    an_account_has_no_more_than_its_digits: Grant "principals[].account.id" {
        bound: "maxLength",
        broken: [{"principals": [{"account": {"id": "1111222233334"}}]}],
        legal: [{"principals": [{"account": {"id": ACCOUNT}}]}],
    }
    a_grant_names_at_most_200_sources: Grant "conditions.sourceIps" {
        bound: "maxItems",
        broken: [{"conditions": {"sourceIps": addresses(201)}}],
        legal: [{"conditions": {"sourceIps": addresses(200)}}],
    }
    a_source_has_at_most_43_characters: Grant "conditions.sourceIps[]" {
        bound: "maxLength",
        broken: [{"conditions": {"sourceIps": ["2001:0db8:0000:0000:0000:0000:0000:0000/0128"]}}],
        legal: [{"conditions": {"sourceIps": ["2001:0db8:0000:0000:0000:0000:0000:0000/128"]}}],
    }
    a_grant_names_at_most_20_organizations: Grant "conditions.principalOrgIds" {
        bound: "maxItems",
        broken: [{"conditions": {"principalOrgIds": same(21, "o-a1b2c3d4e5")}}],
        legal: [{"conditions": {"principalOrgIds": same(20, "o-a1b2c3d4e5")}}],
    }
    an_organization_has_at_most_34_characters: Grant "conditions.principalOrgIds[]" {
        bound: "maxLength",
        broken: [{"conditions": {"principalOrgIds": [format!("o-{}", "a".repeat(33))]}}],
        legal: [{"conditions": {"principalOrgIds": [format!("o-{}", "a".repeat(32))]}}],
    }
    a_grant_keeps_to_at_most_100_accounts: Grant "conditions.principalAccounts" {
        bound: "maxItems",
        broken: [{"conditions": {"principalAccounts": same(101, ACCOUNT)}}],
        legal: [{"conditions": {"principalAccounts": same(100, ACCOUNT)}}],
    }
    the_accounts_to_keep_to_have_no_more_than_their_digits: Grant "conditions.principalAccounts[]" {
        bound: "maxLength",
        broken: [{"conditions": {"principalAccounts": ["1111222233334"]}}],
        legal: [{"conditions": {"principalAccounts": [ACCOUNT]}}],
    }
    a_grant_names_at_most_50_vpcs: Grant "conditions.sourceVpcs" {
        bound: "maxItems",
        broken: [{"conditions": {"sourceVpcs": same(51, "vpc-0a1b2c3d")}}],
        legal: [{"conditions": {"sourceVpcs": same(50, "vpc-0a1b2c3d")}}],
    }
    a_vpc_has_at_most_30_characters: Grant "conditions.sourceVpcs[]" {
        bound: "maxLength",
        broken: [{"conditions": {"sourceVpcs": [format!("vpc-{}", "0".repeat(27))]}}],
        legal: [{"conditions": {"sourceVpcs": [format!("vpc-{}", "0".repeat(17))]}}],
    }
    a_grant_names_at_most_50_vpc_endpoints: Grant "conditions.sourceVpces" {
        bound: "maxItems",
        broken: [{"conditions": {"sourceVpces": same(51, "vpce-0a1b2c3d")}}],
        legal: [{"conditions": {"sourceVpces": same(50, "vpce-0a1b2c3d")}}],
    }
    a_vpc_endpoint_has_at_most_30_characters: Grant "conditions.sourceVpces[]" {
        bound: "maxLength",
        broken: [{"conditions": {"sourceVpces": [format!("vpce-{}", "0".repeat(26))]}}],
        legal: [{"conditions": {"sourceVpces": [format!("vpce-{}", "0".repeat(17))]}}],
    }
    a_domain_name_has_at_most_28_characters: Domain "domainName" {
        bound: "maxLength",
        broken: [{"domainName": "a".repeat(29)}],
        legal: [{"domainName": "a".repeat(28)}],
    }
    the_account_of_a_domain_has_no_more_than_its_digits: Domain "accountId" {
        bound: "maxLength",
        broken: [{"accountId": "1111222233334"}],
        legal: [{"accountId": ACCOUNT}],
    }
    a_region_has_at_most_32_characters: Domain "region" {
        bound: "maxLength",
        broken: [{"region": format!("eu-{}-1", "w".repeat(28))}],
        legal: [{"region": format!("eu-{}-1", "w".repeat(27))}],
    }
    the_arn_to_assume_has_at_most_640_characters: Domain "assumeRole.arn" {
        bound: "maxLength",
        broken: [{"assumeRole": {"arn": arn(641, "role")}}],
        legal: [{"assumeRole": {"arn": arn(640, "role")}}],
    }
    an_external_id_has_at_most_1224_characters: Domain "assumeRole.externalId" {
        bound: "maxLength",
        broken: [{"assumeRole": {"arn": ROLE, "externalId": "a".repeat(1225)}}],
        legal: [{"assumeRole": {"arn": ROLE, "externalId": "a".repeat(1224)}}],
    }
    an_external_id_has_at_least_2_characters: Domain "assumeRole.externalId" {
        bound: "minLength",
        broken: [{"assumeRole": {"arn": ROLE, "externalId": "a"}}],
        legal: [{"assumeRole": {"arn": ROLE, "externalId": "ab"}}],
    }
    the_arn_of_the_master_user_has_at_most_640_characters: Domain
        "fineGrainedAccess.masterUserArn"
    {
        bound: "maxLength",
        broken: [{"fineGrainedAccess": {"masterUserArn": arn(641, "user")}}],
        legal: [{"fineGrainedAccess": {"masterUserArn": arn(640, "user")}}],
    }
    a_domain_protects_at_most_100_roles: Domain "fineGrainedAccess.protectedRoles" {
        bound: "maxItems",
        broken: [{"fineGrainedAccess": {"protectedRoles": same(101, "a")}}],
        legal: [{"fineGrainedAccess": {"protectedRoles": same(100, "a")}}],
    }
    a_protected_role_has_at_most_256_characters: Domain "fineGrainedAccess.protectedRoles[]" {
        bound: "maxLength",
        broken: [{"fineGrainedAccess": {"protectedRoles": ["a".repeat(257)]}}],
        legal: [{"fineGrainedAccess": {"protectedRoles": ["a".repeat(256)]}}],
    }
    an_interval_has_at_most_10_characters: Domain "interval" {
        bound: "maxLength",
        broken: [{"interval": "0000000010m"}],
        legal: [{"interval": "99999h"}],
    }
    the_port_of_a_proxy_is_at_least_1024: Domain "signingProxy.port" {
        bound: "minimum",
        broken: [{"signingProxy": {"port": 1023}}],
        legal: [{"signingProxy": {"port": 1024}}],
    }
    the_port_of_a_proxy_is_at_most_65535: Domain "signingProxy.port" {
        bound: "maximum",
        broken: [{"signingProxy": {"port": 65_536}}],
        legal: [{"signingProxy": {"port": 65_535}}],
    }
    a_domain_has_at_most_100_consent_entries: Domain "consent" {
        bound: "maxItems",
        broken: [{"consent": consent(101)}],
        legal: [{"consent": consent(100)}],
    }
    a_consent_entry_names_at_most_500_namespaces: Consent "namespaces" {
        bound: "maxItems",
        broken: [{"namespaces": same(501, "a")}],
        legal: [{"namespaces": same(500, "a")}],
    }
    a_namespace_has_at_most_63_characters: Consent "namespaces[]" {
        bound: "maxLength",
        broken: [{"namespaces": ["a".repeat(64)]}],
        legal: [{"namespaces": ["a".repeat(63)]}],
    }
    a_ceiling_names_at_most_9_actions: Ceiling "actions" {
        bound: "maxItems",
        broken: [{"access": null, "actions": same(10, "es:*")}],
        legal: [{"access": null, "actions": same(9, "es:*")}],
    }
    a_ceiling_names_at_most_20_paths: Ceiling "paths" {
        bound: "maxItems",
        broken: [{"paths": same(21, "a")}],
        legal: [{"paths": same(20, "a")}],
    }
    a_path_of_a_ceiling_has_at_most_128_characters: Ceiling "paths[]" {
        bound: "maxLength",
        broken: [{"paths": ["a".repeat(129)]}],
        legal: [{"paths": ["a".repeat(128)]}],
    }
    a_ceiling_names_at_most_50_sources: Ceiling "sourceIps" {
        bound: "maxItems",
        broken: [{"sourceIps": addresses(51)}],
        legal: [{"sourceIps": addresses(50)}],
    }
    a_source_of_a_ceiling_has_at_most_43_characters: Ceiling "sourceIps[]" {
        bound: "maxLength",
        broken: [{"sourceIps": ["2001:0db8:0000:0000:0000:0000:0000:0000/0128"]}],
        legal: [{"sourceIps": ["2001:0db8:0000:0000:0000:0000:0000:0000/128"]}],
    }
    a_ceiling_names_at_most_50_security_roles: Ceiling "securityRoles" {
        bound: "maxItems",
        broken: [{"securityRoles": same(51, "a")}],
        legal: [{"securityRoles": same(50, "a")}],
    }
    a_security_role_of_a_ceiling_has_at_most_256_characters: Ceiling "securityRoles[]" {
        bound: "maxLength",
        broken: [{"securityRoles": ["a".repeat(257)]}],
        legal: [{"securityRoles": ["a".repeat(256)]}],
    }
    a_security_role_of_a_ceiling_has_a_name: Ceiling "securityRoles[]" {
        bound: "minLength",
        broken: [{"securityRoles": [""]}],
        legal: [{"securityRoles": ["{{namespace}}.*"]}],
    }
    a_namespace_has_at_least_0_grants: Ceiling "maxGrants" {
        bound: "minimum",
        broken: [{"maxGrants": -1}],
        legal: [{"maxGrants": 0}],
    }
    a_namespace_has_at_most_10000_grants: Ceiling "maxGrants" {
        bound: "maximum",
        broken: [{"maxGrants": 10_001}],
        legal: [{"maxGrants": 10_000}],
    }
    the_longest_time_of_a_ceiling_has_at_most_10_characters: Ceiling "maxDuration" {
        bound: "maxLength",
        broken: [{"maxDuration": "0000000090d"}],
        legal: [{"maxDuration": "9999999d"}],
    }
    a_ceiling_names_at_most_100_accounts: Ceiling "principals.accounts" {
        bound: "maxItems",
        broken: [{"principals": {"accounts": same(101, ACCOUNT)}}],
        legal: [{"principals": {"accounts": same(100, ACCOUNT)}}],
    }
    an_account_of_a_ceiling_has_no_more_than_its_digits: Ceiling "principals.accounts[]" {
        bound: "maxLength",
        broken: [{"principals": {"accounts": ["1111222233334"]}}],
        legal: [{"principals": {"accounts": [ACCOUNT]}}],
    }
    a_ceiling_of_definitions_has_at_most_50_names: Ceiling "definitions.names" {
        bound: "maxItems",
        broken: [{"definitions": {"names": same(51, "a-*")}}],
        legal: [{"definitions": {"names": same(50, "a-*")}}],
    }
    none_of_the_names_of_definitions_is_too_long: Ceiling "definitions.names[]" {
        bound: "maxLength",
        broken: [{"definitions": {"names": ["a".repeat(257)]}}],
        legal: [{"definitions": {"names": ["a".repeat(256)]}}],
    }
    none_of_the_names_of_definitions_is_empty: Ceiling "definitions.names[]" {
        bound: "minLength",
        broken: [{"definitions": {"names": [""]}}],
        legal: [{"definitions": {"names": ["a"]}}],
    }
    a_ceiling_of_definitions_has_at_most_50_cluster_permissions: Ceiling "definitions.clusterPermissions" {
        bound: "maxItems",
        broken: [{"definitions": {"clusterPermissions": same(51, "cluster_monitor")}}],
        legal: [{"definitions": {"clusterPermissions": same(50, "cluster_monitor")}}],
    }
    none_of_the_cluster_permissions_of_definitions_is_too_long: Ceiling "definitions.clusterPermissions[]" {
        bound: "maxLength",
        broken: [{"definitions": {"clusterPermissions": ["a".repeat(257)]}}],
        legal: [{"definitions": {"clusterPermissions": ["a".repeat(256)]}}],
    }
    none_of_the_cluster_permissions_of_definitions_is_empty: Ceiling "definitions.clusterPermissions[]" {
        bound: "minLength",
        broken: [{"definitions": {"clusterPermissions": [""]}}],
        legal: [{"definitions": {"clusterPermissions": ["a"]}}],
    }
    a_ceiling_of_definitions_has_at_most_50_tenants: Ceiling "definitions.tenants" {
        bound: "maxItems",
        broken: [{"definitions": {"tenants": same(51, "a")}}],
        legal: [{"definitions": {"tenants": same(50, "a")}}],
    }
    none_of_the_tenants_of_definitions_is_too_long: Ceiling "definitions.tenants[]" {
        bound: "maxLength",
        broken: [{"definitions": {"tenants": ["a".repeat(257)]}}],
        legal: [{"definitions": {"tenants": ["a".repeat(256)]}}],
    }
    none_of_the_tenants_of_definitions_is_empty: Ceiling "definitions.tenants[]" {
        bound: "minLength",
        broken: [{"definitions": {"tenants": [""]}}],
        legal: [{"definitions": {"tenants": ["a"]}}],
    }
    a_ceiling_names_at_most_100_whole_accounts: Ceiling "principals.wholeAccounts" {
        bound: "maxItems",
        broken: [{"principals": {"wholeAccounts": same(101, ACCOUNT)}}],
        legal: [{"principals": {"wholeAccounts": same(100, ACCOUNT)}}],
    }
    a_whole_account_has_no_more_than_its_digits: Ceiling "principals.wholeAccounts[]" {
        bound: "maxLength",
        broken: [{"principals": {"wholeAccounts": ["1111222233334"]}}],
        legal: [{"principals": {"wholeAccounts": [ACCOUNT]}}],
    }
    a_ceiling_names_at_most_20_patterns: Ceiling "principals.arns" {
        bound: "maxItems",
        broken: [{"principals": {"arns": same(21, ROLE)}}],
        legal: [{"principals": {"arns": same(20, ROLE)}}],
    }
    a_pattern_has_at_most_200_characters: Ceiling "principals.arns[]" {
        bound: "maxLength",
        broken: [{"principals": {"arns": [arn(201, "role")]}}],
        legal: [{"principals": {"arns": [arn(200, "role")]}}],
    }
    a_ceiling_names_at_most_20_organizations: Ceiling "principals.organizationIds" {
        bound: "maxItems",
        broken: [{"principals": {"organizationIds": same(21, "o-a1b2c3d4e5")}}],
        legal: [{"principals": {"organizationIds": same(20, "o-a1b2c3d4e5")}}],
    }
    an_organization_of_a_ceiling_has_at_most_34_characters: Ceiling
        "principals.organizationIds[]"
    {
        bound: "maxLength",
        broken: [{"principals": {"organizationIds": [format!("o-{}", "a".repeat(33))]}}],
        legal: [{"principals": {"organizationIds": [format!("o-{}", "a".repeat(32))]}}],
    }
}

fn consent(count: usize) -> Value {
    let entry = json!({"namespaces": ["team-a"], "ceiling": {"access": "Read"}});
    list(count, |_| entry.clone())
}
