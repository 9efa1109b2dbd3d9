//! The control API under `/_fake/`, for a fake that runs in another process: `make world`, the
//! demo, a shell.
//!
//! Unsigned, JSON in and out; the server listens on loopback only. Domains are named by name, or by
//! ARN where the name is not unique (percent-encoded: it has slashes).
//!
//! | call | body | answer |
//! |---|---|---|
//! | `GET /_fake/accounts/{id}/credentials` | | `{accessKeyId, secretAccessKey}` of its admin |
//! | `POST /_fake/principals` | a principal (1) | `{arn, uniqueId}`; a user's access key too |
//! | `DELETE /_fake/principals/{arn}` | | 204 |
//! | `PUT /_fake/roles/{account}/{role}/trust` | the trust policy | 204 |
//! | `POST /_fake/clusters` | `{account, region, name}` | `{issuer}` |
//! | `POST /_fake/associations` | an association (4) | `{associationId}` |
//! | `DELETE /_fake/associations/{id}` | | 204 |
//! | `POST /_fake/domains` | a domain (2) | `{arn}` |
//! | `GET /_fake/domains/{name}/policy` | | the policy as the API reads it; empty if none |
//! | `PUT /_fake/domains/{name}/policy` | the policy | 204; an external write, not judged |
//! | `GET /_fake/domains/{name}/versions` | | the list of [`super::Version`]s |
//! | `GET /_fake/calls` | | the list of [`super::Call`]s |
//! | `GET /_fake/roles/{account}/{role}/policies` | | `{name: document}` |
//! | `POST /_fake/faults` | a fault (3) | 204 |
//! | `DELETE /_fake/faults` | | 204; all faults are cleared |
//!
//! 1. `{arn, trusts?: [arn], externalId?}`: a role or a user; its account is made if need be.
//!
//! 2. `{account, region, name, vpcId?, fineGrained?, policy?, endpoint?, engineVersion?,
//!    processingMillis?, lagMillis?}`
//!
//! 3. `{operation, domain?, fault, times?, millis?}` with a fault `Throttle`, `Internal`,
//!    `AccessDenied`, `ResetBefore`, `ResetAfter` or `Delay`; without `times` until it is cleared.
//!
//! 4. `{account, region, cluster, namespace, serviceAccount, roleArn, targetRoleArn?, policy?}`: a
//!    Pod Identity association.
//!
//! Versions and calls have the fields of these types in camelCase.
//!
//! What does not exist is answered with 404, and a body that makes no sense with 400, both with
//! `{message}`.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State as Shared};
use axum::http::{Response, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::{delete, get, post, put};
use serde_json::{Map, Value, json};

use super::World;
use super::accounts::{Kind, NewPrincipal, trust_in};
use super::domain::{DomainOptions, Period};
use super::eks::NewAssociation;
use super::faults::{Fault, Times};

type Reply = Result<Response<Body>, Trouble>;

/// Why the control API refuses.
struct Trouble(StatusCode, String);

impl IntoResponse for Trouble {
    fn into_response(self) -> Response<Body> {
        answer(self.0, &json!({ "message": self.1 }))
    }
}

/// Returns the routes of the control API.
pub(super) fn routes() -> Router<World> {
    Router::new()
        .route("/_fake/accounts/{account}/credentials", get(credentials))
        .route("/_fake/principals", post(create_principal))
        .route("/_fake/principals/{*arn}", delete(delete_principal))
        .route("/_fake/domains", post(create_domain))
        .route("/_fake/domains/{name}/policy", get(policy).put(set_policy))
        .route("/_fake/domains/{name}/versions", get(versions))
        .route("/_fake/roles/{account}/{role}/trust", put(set_trust))
        .route("/_fake/clusters", post(create_cluster))
        .route("/_fake/associations", post(associate))
        .route("/_fake/associations/{id}", delete(dissociate))
        .route("/_fake/calls", get(calls))
        .route("/_fake/roles/{account}/{role}/policies", get(role_policies))
        .route("/_fake/faults", post(inject).delete(clear_faults))
}

fn answer(status: StatusCode, body: &Value) -> Response<Body> {
    text(status, "application/json", body.to_string())
}

fn text(status: StatusCode, kind: &str, body: String) -> Response<Body> {
    Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, kind)
        .body(Body::from(body))
        .expect("every header above is a valid one")
}

fn done() -> Response<Body> {
    text(StatusCode::NO_CONTENT, "application/json", String::new())
}

fn refused(status: StatusCode, message: &str) -> Trouble {
    Trouble(status, message.to_owned())
}

fn parse(body: &str) -> Result<Map<String, Value>, Trouble> {
    serde_json::from_str(body).map_err(|error| {
        refused(
            StatusCode::BAD_REQUEST,
            &format!("not a JSON object: {error}"),
        )
    })
}

fn string<'a>(body: &'a Map<String, Value>, key: &str) -> Option<&'a str> {
    body.get(key).and_then(Value::as_str)
}

fn required<'a>(body: &'a Map<String, Value>, key: &str) -> Result<&'a str, Trouble> {
    string(body, key)
        .ok_or_else(|| refused(StatusCode::BAD_REQUEST, &format!("{key} must be a string")))
}

/// Refuses what is not an account id, on which the handle would panic.
fn check_account(account: &str) -> Result<(), Trouble> {
    if account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(());
    }
    Err(refused(
        StatusCode::BAD_REQUEST,
        &format!("an account id has twelve digits: {account}"),
    ))
}

fn domain_arn(world: &World, name: &str) -> Result<String, Trouble> {
    world
        .domain_arn(name)
        .map_err(|message| refused(StatusCode::NOT_FOUND, &message))
}

async fn credentials(Shared(world): Shared<World>, Path(account): Path<String>) -> Reply {
    check_account(&account)?;
    let credentials = world.admin(&account);
    Ok(answer(
        StatusCode::OK,
        &json!({
            "accessKeyId": credentials.access_key_id,
            "secretAccessKey": credentials.secret_access_key,
        }),
    ))
}

async fn create_principal(Shared(world): Shared<World>, body: String) -> Reply {
    let body = parse(&body)?;
    let arn = required(&body, "arn")?;
    let bad = || {
        refused(
            StatusCode::BAD_REQUEST,
            "arn must be that of an IAM role or user",
        )
    };
    let parts: Vec<&str> = arn.splitn(6, ':').collect();
    let ["arn", partition, "iam", "", account, resource] = parts[..] else {
        return Err(bad());
    };
    check_account(account)?;
    let (kind, rest) = resource.split_once('/').ok_or_else(bad)?;
    let (path, name) = rest
        .rsplit_once('/')
        .map_or(("/".to_owned(), rest), |(path, name)| {
            (format!("/{path}/"), name)
        });
    let kind = match kind {
        "role" => Kind::Role,
        "user" => Kind::User,
        _ => return Err(bad()),
    };
    let trusted: Option<Vec<String>> =
        body.get("trusts").and_then(Value::as_array).map(|trusted| {
            trusted
                .iter()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect()
        });
    let root = || vec![format!("arn:{partition}:iam::{account}:root")];
    let trust = trust_in(&trusted.unwrap_or_else(root), string(&body, "externalId"));
    let mut state = world.lock();
    state.accounts.open(account, partition);
    let new = NewPrincipal {
        account,
        kind,
        path: &path,
        name,
        trust: Some(trust),
    };
    let created = state
        .accounts
        .create(new, world.now())
        .ok_or_else(|| refused(StatusCode::CONFLICT, &format!("{arn} exists already")))?;
    let mut shown = json!({ "arn": created.arn, "uniqueId": created.unique_id });
    if let (Kind::User, Some(key)) = (kind, state.accounts.user_credentials(account, name)) {
        shown["accessKeyId"] = json!(key.access_key_id);
        shown["secretAccessKey"] = json!(key.secret_access_key);
    }
    Ok(answer(StatusCode::CREATED, &shown))
}

async fn delete_principal(Shared(world): Shared<World>, Path(arn): Path<String>) -> Reply {
    if world.lock().accounts.delete(&arn) {
        return Ok(done());
    }
    Err(refused(
        StatusCode::NOT_FOUND,
        &format!("{arn} does not exist"),
    ))
}

async fn set_trust(
    Shared(world): Shared<World>,
    Path((account, role)): Path<(String, String)>,
    body: String,
) -> Reply {
    parse(&body)?;
    let mut state = world.lock();
    let found = state.accounts.find_mut(&account, Kind::Role, &role);
    let message = format!("no role {role} in {account}");
    found
        .ok_or_else(|| refused(StatusCode::NOT_FOUND, &message))?
        .trust = body;
    Ok(done())
}

async fn create_cluster(Shared(world): Shared<World>, body: String) -> Reply {
    let body = parse(&body)?;
    let account = required(&body, "account")?;
    check_account(account)?;
    let (region, name) = (required(&body, "region")?, required(&body, "name")?);
    let place = (account.to_owned(), region.to_owned(), name.to_owned());
    let mut state = world.lock();
    state.accounts.open(account, "aws");
    let issuer = state.clusters.create(place);
    let message = format!("cluster {name} exists already");
    let issuer = issuer.ok_or_else(|| refused(StatusCode::CONFLICT, &message))?;
    Ok(answer(StatusCode::CREATED, &json!({ "issuer": issuer })))
}

async fn associate(Shared(world): Shared<World>, body: String) -> Reply {
    let body = parse(&body)?;
    let text = |key: &str| required(&body, key).map(str::to_owned);
    let place = (text("account")?, text("region")?, text("cluster")?);
    let new = NewAssociation {
        namespace: text("namespace")?,
        service_account: text("serviceAccount")?,
        role: text("roleArn")?,
        target_role: string(&body, "targetRoleArn").map(str::to_owned),
        policy: string(&body, "policy").map(str::to_owned),
    };
    let now = world.now();
    let made = world.lock().clusters.associate(&place, new, now);
    let id = made.map_err(|message| refused(StatusCode::CONFLICT, &message))?;
    Ok(answer(StatusCode::CREATED, &json!({ "associationId": id })))
}

async fn dissociate(Shared(world): Shared<World>, Path(id): Path<String>) -> Reply {
    let now = world.now();
    if world.lock().clusters.dissociate(&id, now) {
        return Ok(done());
    }
    let message = format!("there is no association {id}");
    Err(refused(StatusCode::NOT_FOUND, &message))
}

async fn create_domain(Shared(world): Shared<World>, body: String) -> Reply {
    let body = parse(&body)?;
    let account = required(&body, "account")?;
    check_account(account)?;
    let period = |key: &str| {
        body.get(key)
            .and_then(Value::as_u64)
            .map_or(Period::None, |millis| {
                Period::For(Duration::from_millis(millis))
            })
    };
    let mut options = DomainOptions {
        vpc_id: string(&body, "vpcId").map(str::to_owned),
        fine_grained: body.get("fineGrained") == Some(&Value::Bool(true)),
        endpoint: string(&body, "endpoint").map(str::to_owned),
        policy: string(&body, "policy").unwrap_or_default().to_owned(),
        processing: period("processingMillis"),
        lag: period("lagMillis"),
        ..DomainOptions::default()
    };
    if let Some(version) = string(&body, "engineVersion") {
        options = options.engine_version(version);
    }
    let (region, name) = (required(&body, "region")?, required(&body, "name")?);
    let arn = world
        .create_domain(account, region, name, options)
        .map_err(|message| refused(StatusCode::CONFLICT, &message))?;
    Ok(answer(StatusCode::CREATED, &json!({ "arn": arn })))
}

async fn policy(Shared(world): Shared<World>, Path(name): Path<String>) -> Reply {
    let arn = domain_arn(&world, &name)?;
    Ok(text(StatusCode::OK, "application/json", world.policy(&arn)))
}

async fn set_policy(Shared(world): Shared<World>, Path(name): Path<String>, body: String) -> Reply {
    let arn = domain_arn(&world, &name)?;
    world.write_externally(&arn, &body);
    Ok(done())
}

async fn versions(Shared(world): Shared<World>, Path(name): Path<String>) -> Reply {
    let arn = domain_arn(&world, &name)?;
    let state = world.lock();
    let versions = state
        .domains
        .get(&arn)
        .map(|domain| domain.versions.as_slice());
    let shown = versions
        .unwrap_or_default()
        .iter()
        .map(super::Version::to_json)
        .collect();
    Ok(answer(StatusCode::OK, &Value::Array(shown)))
}

async fn calls(Shared(world): Shared<World>) -> Reply {
    let shown = world
        .lock()
        .calls
        .iter()
        .map(super::Call::to_json)
        .collect();
    Ok(answer(StatusCode::OK, &Value::Array(shown)))
}

async fn role_policies(
    Shared(world): Shared<World>,
    Path((account, role)): Path<(String, String)>,
) -> Reply {
    let state = world.lock();
    let found = state.accounts.find(&account, Kind::Role, &role);
    let policies = &found
        .ok_or_else(|| {
            refused(
                StatusCode::NOT_FOUND,
                &format!("no role {role} in {account}"),
            )
        })?
        .inline;
    Ok(answer(StatusCode::OK, &json!(policies)))
}

async fn inject(Shared(world): Shared<World>, body: String) -> Reply {
    let body = parse(&body)?;
    let fault = match required(&body, "fault")? {
        "Throttle" => Fault::Throttle,
        "Internal" => Fault::Internal,
        "AccessDenied" => Fault::AccessDenied,
        "ResetBefore" => Fault::ResetBefore,
        "ResetAfter" => Fault::ResetAfter,
        "Delay" => {
            let millis = body.get("millis").and_then(Value::as_u64).unwrap_or(1000);
            Fault::Delay(Duration::from_millis(millis))
        }
        other => {
            return Err(refused(
                StatusCode::BAD_REQUEST,
                &format!("there is no fault {other}"),
            ));
        }
    };
    let times = body
        .get("times")
        .and_then(Value::as_u64)
        .and_then(|times| u32::try_from(times).ok());
    let times = times.map_or(Times::UntilCleared, Times::Exactly);
    let operation = required(&body, "operation")?;
    world
        .lock()
        .faults
        .inject(operation, string(&body, "domain"), fault, times);
    Ok(done())
}

async fn clear_faults(Shared(world): Shared<World>) -> Reply {
    world.lock().faults.clear("*");
    Ok(done())
}
