//! From a socket to an answer, and back to a closed socket if a fault says so.
//!
//! ```text
//!  accept ─► read ─► verify the signature ─► faults ─► external writer
//!         answer ◄─ record ◄─ es | eks | iam | sts ◄────────────────┘
//! ```

use axum::body::{Body, to_bytes};
use axum::extract::{ConnectInfo, Request, State as Shared};
use axum::http::{Response, StatusCode, header};
use jiff::Timestamp;
use serde_json::Value;

use super::super::connection::Switch;
use super::super::tripwire::{Entry, Passing, Then};
use super::accounts::{Accounts, Caller};
use super::faults::Fault;
use super::record::Call;
use super::sigv4::{self, Authorization, Signed};
use super::wire::{self, Answer, Refusal, Service, form};
use super::{World, eks, es, iam, sts};

/// The largest body that is read: well above the longest policy, so that its own limit is what
/// refuses it.
const LARGEST_BODY: usize = 8 << 20;

/// A call as it arrived, before anybody is believed.
struct Arrived {
    service: Service,
    operation: String,
    domain: Option<String>,
    region: String,
    access_key_id: String,
    parts: axum::http::request::Parts,
    bytes: axum::body::Bytes,
    body: Value,
}

impl Arrived {
    fn read(parts: axum::http::request::Parts, bytes: axum::body::Bytes) -> Self {
        let authorization = Authorization::parse(&parts.headers);
        let path = parts.uri.path();
        let routed = es::route(&parts.method, path);
        let claimed = authorization
            .as_ref()
            .and_then(|claim| Service::parse(&claim.service));
        let looks_like = if path.starts_with("/2021-01-01/") {
            Service::Es
        } else {
            Service::Iam
        };
        let service = claimed.unwrap_or(looks_like);
        let (operation, domain, body) = if service == Service::Es {
            let (operation, domain) = routed.map_or_else(
                || (format!("{} {path}", parts.method), None),
                |(operation, domain)| (operation.to_owned(), domain),
            );
            let body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
            let domain = domain.or_else(|| body["DomainName"].as_str().map(str::to_owned));
            (operation, domain, body)
        } else if service == Service::Eks {
            let operation = eks::route(&parts.method, path).map_or_else(
                || format!("{} {path}", parts.method),
                |(operation, _)| operation.to_owned(),
            );
            // What it asks for is in the address, and what it makes in the body.
            let members = form(parts.uri.query().unwrap_or_default()).into_iter();
            let members = members.map(|(name, value)| (name, Value::String(value)));
            let body = serde_json::from_slice(&bytes);
            let body = body.unwrap_or_else(|_| Value::Object(members.collect()));
            (operation, None, body)
        } else {
            let mut parameters = form(&String::from_utf8_lossy(&bytes));
            let operation = parameters.remove("Action").unwrap_or_default();
            parameters.remove("Version");
            let members = parameters
                .into_iter()
                .map(|(name, value)| (name, Value::String(value)));
            (operation, None, Value::Object(members.collect()))
        };
        // Who calls without a signature says by no scope which service is meant.
        let service = if sts::is_unsigned(&operation) {
            Service::Sts
        } else {
            service
        };
        let (region, access_key_id) = authorization.map_or_else(Default::default, |claim| {
            (claim.region, claim.access_key_id)
        });
        Self {
            service,
            operation,
            domain,
            region,
            access_key_id,
            parts,
            bytes,
            body,
        }
    }

    /// Says who calls.
    fn verify(&self, accounts: &Accounts, now: Timestamp) -> Result<Caller, Refusal> {
        if self.service == Service::Sts && sts::is_unsigned(&self.operation) {
            return Ok(Caller::anonymous());
        }
        sigv4::verify(&self.signed(), self.service, accounts, now)
    }

    fn signed(&self) -> Signed<'_> {
        Signed {
            method: &self.parts.method,
            path: self.parts.uri.path(),
            query: self.parts.uri.query().unwrap_or_default(),
            headers: &self.parts.headers,
            body: &self.bytes,
        }
    }

    /// Returns the domain that the call concerns. A role is taken to be made for one: `domain-role`.
    fn subject(&self) -> Option<&str> {
        let role = || {
            let name = self.body["RoleName"].as_str();
            name.and_then(|name| Some(name.rsplit_once('-')?.0))
        };
        self.domain.as_deref().or_else(role)
    }

    /// Names what the call changes.
    fn write(&self) -> Option<&str> {
        let writes = ["UpdateDomainConfig", "PutRolePolicy", "DeleteRolePolicy"];
        let tries = self.body["DryRun"] == true;
        let operation = self.operation.as_str();
        (writes.contains(&operation) && !tries).then_some(operation)
    }

    /// Returns the record of this call.
    fn record(&self, caller: Option<&Caller>, now: Timestamp) -> Call {
        let keys = self
            .body
            .as_object()
            .into_iter()
            .flatten()
            .map(|(key, _)| key.clone());
        let mut body_keys: Vec<String> = keys.collect();
        body_keys.sort();
        Call {
            at: now,
            service: self.service.name(),
            operation: self.operation.clone(),
            region: self.region.clone(),
            account: caller
                .map(|caller| caller.account.clone())
                .unwrap_or_default(),
            caller_arn: caller.map(|caller| caller.arn.clone()).unwrap_or_default(),
            access_key_id: self.access_key_id.clone(),
            session_name: caller.and_then(|caller| caller.session_name.clone()),
            domain: self.domain.clone(),
            status: None,
            error_code: None,
            body_keys,
            body: self.body.clone(),
        }
    }
}

/// How a call ends.
enum End {
    Answered(Result<Answer, Refusal>),
    Reset,
}

/// Answers every call that is not for the control API.
pub(super) async fn serve(
    Shared(world): Shared<World>,
    ConnectInfo(switch): ConnectInfo<Switch>,
    request: Request,
) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let Ok(bytes) = to_bytes(body, LARGEST_BODY).await else {
        let mut answer = Response::new(Body::empty());
        *answer.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
        return answer;
    };
    let arrived = Arrived::read(parts, bytes);
    let now = world.now();
    let (verified, faults) = {
        let mut state = world.lock();
        let verified = arrived.verify(&state.accounts, now);
        let faults = match &verified {
            Ok(_) => state
                .faults
                .take(&arrived.operation, arrived.domain.as_deref()),
            Err(_) => Vec::new(),
        };
        (verified, faults)
    };
    let mut call = arrived.record(verified.as_ref().ok(), now);
    let end = match verified {
        Ok(caller) => pass(&world, &arrived, &caller, faults).await,
        Err(refusal) => End::Answered(Err(refusal)),
    };
    let End::Answered(outcome) = end else {
        world.lock().calls.push(call);
        switch.break_connection();
        return Response::new(Body::empty());
    };
    call.status = Some(
        outcome
            .as_ref()
            .map_or_else(|refusal| refusal.status, |_| 200),
    );
    call.error_code = outcome
        .as_ref()
        .err()
        .map(|refusal| refusal.code.to_owned());
    let request_id = {
        let mut state = world.lock();
        state.calls.push(call);
        format!("00000000-0000-4000-9000-{:012x}", state.calls.len())
    };
    let mut response = wire::response(arrived.service, &arrived.operation, &request_id, outcome);
    // By this header an SDK learns that its clock is off.
    let date = world
        .now()
        .strftime("%a, %d %b %Y %H:%M:%S GMT")
        .to_string();
    response
        .headers_mut()
        .insert(header::DATE, date.parse().expect("a date is plain text"));
    response
}

/// Lets a call pass the tripwires, by which it may never be let in or never be answered.
async fn pass(world: &World, arrived: &Arrived, caller: &Caller, faults: Vec<Fault>) -> End {
    let Some(subject) = arrived.subject() else {
        return suffer(world, arrived, caller, faults).await;
    };
    let entry = world.wires.enter(Passing {
        client: &arrived.access_key_id,
        subject,
        write: arrived.write(),
    });
    if entry == Entry::Held {
        std::future::pending::<()>().await;
    }
    if let Entry::Last(Then::Refused(how)) = entry {
        world.wires.leave(subject);
        return refused(arrived, caller, how);
    }
    let end = suffer(world, arrived, caller, faults).await;
    let Entry::Last(then) = entry else {
        return end;
    };
    world.wires.leave(subject);
    match then {
        Then::Answered => end,
        Then::Unanswered => std::future::pending().await,
        Then::Lost | Then::Refused(_) => End::Reset,
    }
}

/// Refuses a call in one of the ways of AWS, by number; nothing is applied.
fn refused(arrived: &Arrived, caller: &Caller, how: usize) -> End {
    let service = arrived.service;
    let refusal = match how % 4 {
        0 => Refusal::throttled(service),
        1 => Refusal::internal(service),
        2 => Refusal::access_denied(service, &caller.arn, &arrived.operation),
        _ => return End::Reset,
    };
    End::Answered(Err(refusal))
}

/// Lets a call through its faults, and to its service if they leave anything of it.
async fn suffer(world: &World, arrived: &Arrived, caller: &Caller, faults: Vec<Fault>) -> End {
    let service = arrived.service;
    let mut reset_after = false;
    for fault in faults {
        let refusal = match fault {
            Fault::Delay(duration) => {
                tokio::time::sleep(duration).await;
                continue;
            }
            Fault::ResetAfter => {
                reset_after = true;
                continue;
            }
            Fault::ResetBefore => return End::Reset,
            Fault::Throttle => Refusal::throttled(service),
            Fault::Internal => Refusal::internal(service),
            Fault::AccessDenied => Refusal::access_denied(service, &caller.arn, &arrived.operation),
            Fault::Refuse(code, status, message) => Refusal::new(code, status, message),
        };
        return End::Answered(Err(refusal));
    }
    let outcome = answer(world, arrived, caller);
    if reset_after {
        End::Reset
    } else {
        End::Answered(outcome)
    }
}

fn answer(world: &World, arrived: &Arrived, caller: &Caller) -> Result<Answer, Refusal> {
    let now = world.now();
    let operation = arrived.operation.as_str();
    if arrived.service == Service::Es {
        let call = es::Call {
            operation,
            domain: arrived.domain.as_deref(),
            query: arrived.parts.uri.query().unwrap_or_default(),
            body: &arrived.body,
            region: &arrived.region,
            caller,
            now,
        };
        if operation == "UpdateDomainConfig" && arrived.body["DryRun"] != true {
            let arn = es::arn(&call, call.domain.unwrap_or_default());
            world.run_external_writer(&arn);
            let answer = es::answer(&mut world.lock(), &call)?;
            world.undo_update(&arn);
            return Ok(answer);
        }
        return es::answer(&mut world.lock(), &call);
    }
    if arrived.service == Service::Eks {
        let path = arrived.parts.uri.path();
        let cluster = eks::route(&arrived.parts.method, path).map(|(_, cluster)| cluster);
        let call = eks::Call {
            operation,
            cluster: &cluster.unwrap_or_default(),
            path,
            query: arrived.parts.uri.query().unwrap_or_default(),
            body: &arrived.body,
            region: &arrived.region,
            caller,
            now,
        };
        return eks::answer(&mut world.lock(), &call);
    }
    let parameters: iam::Parameters = arrived
        .body
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned()))
        .collect();
    let answer = if arrived.service == Service::Iam {
        iam::answer
    } else {
        sts::answer
    };
    answer(&mut world.lock(), operation, &parameters, caller, now)
}
