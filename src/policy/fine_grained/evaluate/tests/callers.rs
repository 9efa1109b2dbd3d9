use super::*;

#[test]
fn a_caller_has_the_roles_whose_mappings_match() {
    let with_path = "arn:aws:iam::111122223333:role/team/app";
    for (mapping, caller, expected) in [
        (json!({"backend_roles": [ROLE]}), ROLE, Allow),
        (json!({"backend_roles": [ROLE]}), SESSION, Allow),
        (
            json!({"backend_roles": ["arn:aws:iam::111122223333:role/*"]}),
            ROLE,
            Allow,
        ),
        (
            json!({"backend_roles": ["arn:aws:iam::999922223333:role/*"]}),
            ROLE,
            Deny,
        ),
        (
            json!({"backend_roles": ["ARN:aws:iam::111122223333:role/app"]}),
            ROLE,
            Deny,
        ),
        (json!({"backend_roles": [USER]}), USER, Deny),
        (json!({"backend_roles": ["*"]}), USER, Allow),
        (json!({"backend_roles": ["/.*/"]}), ROLE, Unknown),
        (json!({"backend_roles": ["/.*/"]}), USER, Deny),
        (json!({"users": [USER]}), USER, Allow),
        (json!({"users": ["*"]}), ROLE, Allow),
        (
            json!({"users": ["arn:aws:iam::111122223333:user/*"]}),
            ROLE,
            Deny,
        ),
        (json!({"users": [SESSION]}), SESSION, Unknown),
        (json!({"users": [SESSION]}), ROLE, Unknown),
        (json!({"users": ["/arn.*/"]}), USER, Unknown),
        (json!({"users": [" "]}), USER, Deny),
        (json!({"and_backend_roles": [ROLE]}), ROLE, Allow),
        (json!({"and_backend_roles": [ROLE, "other"]}), ROLE, Deny),
        (json!({"and_backend_roles": [ROLE, "/x/"]}), ROLE, Unknown),
        (json!({"and_backend_roles": []}), ROLE, Deny),
        (json!({"hosts": ["10.0.*"]}), ROLE, Unknown),
        (json!({"hosts": ["*"]}), ROLE, Allow),
        (json!({}), ROLE, Deny),
        // Whether the path reaches the plugin is not known.
        (json!({"backend_roles": [ROLE]}), with_path, Unknown),
        (json!({"backend_roles": [with_path]}), with_path, Unknown),
        (
            json!({"backend_roles": [ROLE, with_path]}),
            with_path,
            Unknown,
        ),
        (
            json!({"backend_roles": ["arn:aws:iam::*:role/*app"]}),
            with_path,
            Allow,
        ),
        (json!({"backend_roles": [with_path]}), SESSION, Unknown),
        // The plugin's own users may have backend roles, and roles.
        (json!({"users": ["ann"]}), "ann", Allow),
        (json!({"users": ["bob"]}), "ann", Unknown),
        (json!({"backend_roles": ["*"]}), "ann", Allow),
        (json!({"backend_roles": ["x"]}), "ann", Unknown),
    ] {
        let mut config = having(json!({"a": on(&["*"], &["*"])}));
        config
            .mappings
            .insert("a".to_owned(), Entity::parse(mapping.clone()));
        let answer = ask(&config, Some(caller), "GET /i/_search");
        assert_eq!(
            answer.decision, expected,
            "{mapping} {caller}: {}",
            answer.why
        );
        assert_eq!(
            answer.roles.len(),
            usize::from(expected == Allow),
            "{mapping} {caller}"
        );
    }
}

#[test]
fn who_does_not_sign_is_not_known() {
    let config = having(json!({"a": on(&["*"], &["read"])}));
    assert_eq!(ask(&config, None, "GET /i/_search").decision, Unknown);
    assert_eq!(ask(&config, None, "DELETE /i").decision, Deny);
}
