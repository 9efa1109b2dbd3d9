//! What a gateway in front of a domain asks: who signed a request, and what the policies say.

use axum::http::request::Parts;

use super::super::tripwire::Tripwires;
use super::World;
use super::accounts::Kind;
use super::door::{self, Asked, Caller};
use super::sigv4::{self, Signed};
use super::wire::Service;

/// An identity policy that allows everything on every domain.
const EVERYTHING: &str =
    r#"{"Statement": [{"Effect": "Allow", "Action": "es:*", "Resource": "*"}]}"#;

/// One domain, from where its requests come in.
#[derive(Clone)]
pub(crate) struct Gate {
    pub(super) world: World,
    pub(super) arn: String,
}

impl Gate {
    /// Says who signed a request; nobody, if it is not signed.
    ///
    /// # Errors
    ///
    /// The status and the words with which AWS refuses a signature.
    pub(crate) fn caller(
        &self,
        parts: &Parts,
        body: &[u8],
    ) -> Result<Option<Caller>, (u16, String)> {
        if !parts.headers.contains_key("authorization") {
            return Ok(None);
        }
        let signed = Signed {
            method: &parts.method,
            path: parts.uri.path(),
            query: parts.uri.query().unwrap_or_default(),
            headers: &parts.headers,
            body,
        };
        let state = self.world.lock();
        let caller = sigv4::verify(&signed, Service::Es, &state.accounts, self.world.now())
            .map_err(|refusal| (refusal.status, refusal.message))?;
        let is_session = caller.session_name.is_some();
        Ok(Some(Caller {
            user: caller.principal_arn.clone(),
            backend_role: is_session.then(|| caller.principal_arn.clone()),
            arn: caller.arn,
            principal: caller.principal_arn,
            account: caller.account,
            access_key_id: caller.access_key_id,
        }))
    }

    /// Tells whether the domain's access policy and the caller's identity policies let a request in.
    pub(crate) fn lets_in(&self, asked: &Asked<'_>) -> bool {
        let policy = self.world.policy(&self.arn);
        let identity = asked.caller.map(|caller| self.identity_policies(caller));
        door::lets_in(asked, &self.arn, &policy, &identity.unwrap_or_default())
    }

    fn identity_policies(&self, caller: &Caller) -> Vec<String> {
        let name = caller.principal.rsplit('/').next().unwrap_or_default();
        if name == "admin" || name == "operator" || name.starts_with("operator-") {
            return vec![EVERYTHING.to_owned()];
        }
        let state = self.world.lock();
        let role = state.accounts.find(&caller.account, Kind::Role, name);
        role.map(|role| role.inline.values().cloned().collect())
            .unwrap_or_default()
    }

    /// Returns the tripwires that every call passes.
    pub(crate) fn wires(&self) -> &Tripwires {
        &self.world.wires
    }
}
