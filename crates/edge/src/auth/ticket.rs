//! Tickets: what a browser's `EventSource`, which can send no header, puts
//! into the URL instead of a token.
//!
//! URLs end up in logs, so a ticket is worth little there: it is valid for
//! [`TICKET_TTL_S`] seconds and taken once. It carries what the token grants,
//! signed by the edge, and any edge that has the same key takes it. Whether
//! it was used is remembered by the edge that took it, and by the store for
//! all edges ([`crate::Edge::redeem`]); without a store, whoever reads a
//! ticket in flight could use it once more on each other edge, until it
//! expires.

use std::collections::HashMap;

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use parking_lot::Mutex;
use protocol::{Channel, UserId};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::config::{AuthConfig, AuthConfigError, TokenAlgorithm};
use super::grants::Grants;
use super::pattern::Pattern;
use super::token::{SECRET_MIN_BYTES, TOKEN_MAX_BYTES};

/// How long a ticket is valid, in seconds: a page uses it at once.
pub const TICKET_TTL_S: u64 = 30;

/// Tickets that an edge remembers as used; each is forgotten when it expires.
/// Two thousand new streams per second for as long as a ticket is valid.
const USED_MAX: usize = 65_536;

/// Tells tickets from everything else that might be signed with the key.
const AUDIENCE: &str = "rejoin:ticket";

/// Keeps the ticket key apart from the token key that it is derived from.
const DERIVATION: &[u8] = b"rejoin ticket key, version 1\0";

#[derive(Serialize, Deserialize)]
struct TicketClaims {
    aud: String,
    /// When the ticket ends.
    exp: u64,
    /// The ticket's own id.
    jti: String,
    sub: UserId,
    subscribe: Vec<Pattern>,
    /// The token's times and id, which the stream inherits.
    token_exp: u64,
    token_iat: Option<u64>,
    token_id: Option<Box<str>>,
}

/// Why a ticket was not taken. The texts are for its holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TicketError {
    /// Forged, changed, or of an edge with another key.
    #[error("not a ticket of this deployment")]
    Invalid,
    /// Too late.
    #[error("the ticket has expired; get a new one for each connection")]
    Expired,
    /// Taken before.
    #[error("the ticket was used already; get a new one for each connection")]
    Used,
    /// This edge has as many used tickets to remember as it can.
    #[error("too many tickets were used within a short time")]
    Busy,
}

/// A ticket that this edge has not taken before.
#[derive(Debug, PartialEq, Eq)]
pub struct Redeemed {
    /// The ticket's id.
    pub id: Box<str>,
    /// When it is worth nothing any more, in seconds since the Unix epoch.
    pub end_s: u64,
    /// What it grants, if no other edge has taken it.
    pub grants: Grants,
}

/// Signs and takes tickets.
pub struct Tickets {
    signing: EncodingKey,
    verifying: DecodingKey,
    leeway_s: u64,
    /// Ids of the tickets taken, and when they may be forgotten.
    used: Mutex<HashMap<String, u64>>,
}

impl std::fmt::Debug for Tickets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tickets")
    }
}

impl Tickets {
    /// Tickets under `ticket_key`, else under a key derived from the first
    /// shared secret among the token keys; `None` where there is neither.
    pub(super) fn new(config: &AuthConfig) -> Result<Option<Self>, AuthConfigError> {
        let shared = config
            .keys
            .iter()
            .enumerate()
            .find(|(_, key)| key.alg == TokenAlgorithm::HS256);
        let material = match (&config.ticket_key, shared) {
            (Some(key), _) => {
                let at = "ticket_key";
                let material = key.material(at)?;
                if key.alg != TokenAlgorithm::HS256 || material.len() < SECRET_MIN_BYTES {
                    let reason = format!(
                        "a secret for HS256 of at least {SECRET_MIN_BYTES} bytes is needed"
                    );
                    return Err(AuthConfigError::new(at, reason));
                }
                material
            }
            (None, Some((index, key))) => key.material(&format!("keys[{index}]"))?,
            (None, None) => return Ok(None),
        };
        let secret = Sha256::new()
            .chain_update(DERIVATION)
            .chain_update(&material)
            .finalize();
        Ok(Some(Self {
            signing: EncodingKey::from_secret(&secret),
            verifying: DecodingKey::from_secret(&secret),
            leeway_s: config.leeway_s,
            used: Mutex::default(),
        }))
    }

    /// A ticket for what the grants allow to read. It is a few hundred bytes
    /// long, or as long as the token where that lists many channels.
    pub fn issue(
        &self,
        grants: &Grants,
        now_s: u64,
    ) -> Result<String, jsonwebtoken::errors::Error> {
        let claims = TicketClaims {
            aud: AUDIENCE.to_owned(),
            exp: now_s + TICKET_TTL_S,
            jti: format!("{:032x}", rand::random::<u128>()),
            sub: grants.user.clone(),
            subscribe: grants.subscribe.to_vec(),
            token_exp: grants.expires_s,
            token_iat: grants.issued_s,
            token_id: grants.token_id.clone(),
        };
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.signing)
    }

    /// Takes a ticket: what it grants, once on this edge. Publishing is not
    /// among it.
    pub fn redeem(&self, ticket: &str, now_s: u64) -> Result<Redeemed, TicketError> {
        // What is added to a token: times, an id, an audience.
        const OVERHEAD_BYTES: usize = 1024;
        if ticket.len() > TOKEN_MAX_BYTES + OVERHEAD_BYTES {
            return Err(TicketError::Invalid);
        }
        let mut validation = Validation::new(Algorithm::HS256);
        // The time is a parameter here.
        validation.validate_exp = false;
        validation.set_audience(&[AUDIENCE]);
        validation.set_required_spec_claims(&["aud"]);
        let claims = jsonwebtoken::decode::<TicketClaims>(ticket, &self.verifying, &validation)
            .map_err(|_| TicketError::Invalid)?
            .claims;
        // Edges' clocks differ a little.
        let end_s = claims.exp.saturating_add(self.leeway_s);
        if end_s <= now_s || claims.token_exp <= now_s {
            return Err(TicketError::Expired);
        }
        self.take(claims.jti.clone(), end_s, now_s)?;
        let grants = Grants {
            inbox: Channel::inbox(&claims.sub),
            user: claims.sub,
            expires_s: claims.token_exp,
            issued_s: claims.token_iat,
            token_id: claims.token_id,
            subscribe: claims.subscribe.into(),
            publish: Box::default(),
        };
        Ok(Redeemed {
            id: claims.jti.into(),
            end_s,
            grants,
        })
    }

    fn take(&self, id: String, end_s: u64, now_s: u64) -> Result<(), TicketError> {
        let mut used = self.used.lock();
        if used.contains_key(&id) {
            return Err(TicketError::Used);
        }
        if used.len() >= USED_MAX {
            used.retain(|_, end_s| *end_s > now_s);
        }
        if used.len() >= USED_MAX {
            return Err(TicketError::Busy);
        }
        used.insert(id, end_s);
        Ok(())
    }
}

#[cfg(test)]
#[path = "ticket_tests.rs"]
mod tests;
