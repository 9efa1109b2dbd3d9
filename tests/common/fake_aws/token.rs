//! Service account tokens: JSON web tokens that an issuer signs with RS256, which is what EKS and
//! kube-apiserver do. Nothing else is taken: no `none`, no shared secret, no weaker key.
//!
//! Read from RFC 7515 and 7519 alone; the signature is verified by the one crypto provider of the tree.

use std::collections::BTreeMap;

use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde_json::Value;

/// What each issuer publishes: its key set by its URL. An issuer that is not here cannot be reached.
#[derive(Default)]
pub(crate) struct Issuers(BTreeMap<String, Value>);

impl Issuers {
    /// Publishes a key set (RFC 7517), in place of the issuer's former one.
    pub(crate) fn publish(&mut self, issuer: &str, keys: Value) {
        self.0.insert(issuer.to_owned(), keys);
    }

    /// Lets nobody reach an issuer any more.
    pub(crate) fn cut_off(&mut self, issuer: &str) {
        self.0.remove(issuer);
    }
}

/// What is wrong with a token.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Flaw {
    /// It is not a JSON web token with three parts, or not one signed with RS256.
    Malformed,
    /// It lacks a claim, or has it in another form.
    Lacks(&'static str),
    /// Its issuer does not answer.
    Unreachable,
    /// Its issuer has no key of that name.
    UnknownKey,
    /// The key that it names did not sign it.
    Forged,
    /// It has expired: the time now, and its end.
    Expired(i64, i64),
    /// It was issued for, or in, the future.
    Early,
}

/// A token that nobody has verified.
pub(crate) struct Unverified<'a> {
    /// What is signed.
    signed: &'a str,
    signature: Vec<u8>,
    key: String,
    claims: Value,
}

impl<'a> Unverified<'a> {
    /// Takes a token apart.
    ///
    /// # Errors
    ///
    /// [`Flaw::Malformed`], or the claim that it lacks of those that every token must have.
    pub(crate) fn parse(token: &'a str) -> Result<Self, Flaw> {
        let (signed, signature) = token.rsplit_once('.').ok_or(Flaw::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(Flaw::Malformed)?;
        let decode = |part: &str| {
            let bytes = BASE64_URL_SAFE_NO_PAD.decode(part);
            bytes.map_err(|_| Flaw::Malformed)
        };
        let object = |part: &str| {
            let value: Result<Value, _> = serde_json::from_slice(&decode(part)?);
            value.ok().filter(Value::is_object).ok_or(Flaw::Malformed)
        };
        let (header, claims) = (object(header)?, object(claims)?);
        let key = header["kid"].as_str().ok_or(Flaw::Malformed)?.to_owned();
        // Decided before a key is looked at: a token does not choose how it is verified (RFC 8725, 3.1).
        if header["alg"] != "RS256" || header.get("crit").is_some() {
            return Err(Flaw::Malformed);
        }
        for claim in ["iss", "sub"] {
            claims[claim].as_str().ok_or(Flaw::Lacks(claim))?;
        }
        for claim in ["exp", "iat"] {
            claims[claim].as_i64().ok_or(Flaw::Lacks(claim))?;
        }
        let unverified = Self {
            signed,
            signature: decode(signature)?,
            key,
            claims,
        };
        if unverified.audiences().is_empty() {
            return Err(Flaw::Lacks("aud"));
        }
        Ok(unverified)
    }

    /// Returns the issuer that it claims to be of.
    pub(crate) fn issuer(&self) -> &str {
        self.claims["iss"].as_str().unwrap_or_default()
    }

    /// Returns whom it claims to be for.
    pub(crate) fn audiences(&self) -> Vec<&str> {
        audiences(&self.claims)
    }

    /// Verifies it by its issuer's keys, and for a time.
    ///
    /// # Errors
    ///
    /// What is wrong with it; whether it is for whoever got it is not looked at.
    pub(crate) fn verify(self, issuers: &Issuers, now: Timestamp) -> Result<Claims, Flaw> {
        let keys = issuers.0.get(self.issuer()).ok_or(Flaw::Unreachable)?;
        let mut keys = keys["keys"].as_array().into_iter().flatten();
        let fits = |key: &&Value| {
            let signs = key.get("use").is_none_or(|it| it == "sig");
            let algorithm = key.get("alg").is_none_or(|it| it == "RS256");
            key["kid"] == *self.key && key["kty"] == "RSA" && signs && algorithm
        };
        let key = keys.find(fits).ok_or(Flaw::UnknownKey)?;
        let number = |name: &str| {
            let text = key[name].as_str().unwrap_or_default();
            BASE64_URL_SAFE_NO_PAD.decode(text).unwrap_or_default()
        };
        let key = RsaPublicKeyComponents {
            n: number("n"),
            e: number("e"),
        };
        let verified = key.verify(
            &RSA_PKCS1_2048_8192_SHA256,
            self.signed.as_bytes(),
            &self.signature,
        );
        verified.map_err(|_| Flaw::Forged)?;
        let (now, time) = (now.as_second(), |claim: &str| self.claims[claim].as_i64());
        let expires = time("exp").unwrap_or_default();
        if now >= expires {
            return Err(Flaw::Expired(now, expires));
        }
        if ["iat", "nbf"].iter().any(|it| time(it) > Some(now)) {
            return Err(Flaw::Early);
        }
        Ok(Claims(self.claims))
    }
}

/// What a verified token says.
pub(crate) struct Claims(Value);

impl Claims {
    /// Returns the subject: `system:serviceaccount:NAMESPACE:NAME`.
    pub(crate) fn subject(&self) -> &str {
        self.0["sub"].as_str().unwrap_or_default()
    }

    /// Returns whom it is for.
    pub(crate) fn audiences(&self) -> Vec<&str> {
        audiences(&self.0)
    }

    /// Returns a claim by its JSON pointer, if it is a text that is not empty.
    pub(crate) fn text(&self, pointer: &str) -> Option<&str> {
        let text = self.0.pointer(pointer).and_then(Value::as_str);
        text.filter(|it| !it.is_empty())
    }
}

fn audiences(claims: &Value) -> Vec<&str> {
    match &claims["aud"] {
        Value::String(one) => vec![one],
        Value::Array(all) => all.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}
