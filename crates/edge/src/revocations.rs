//! Revoking: a user's tokens up to some time, or one token, on all edges.
//!
//! The store keeps it and tells every edge. Besides, the edge that is asked
//! tells the others through the backplane: whichever arrives first counts,
//! and one of the two may be away.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use delivery::access::{AccessRecords, Revocation, RevocationEvent, Revoked, TOKEN_ID_MAX_BYTES};
use delivery::signal::Control;
use protocol::{ErrorCode, UserId};
use serde::{Deserialize, Serialize};

use crate::Edge;
use crate::http::error::ApiError;
use crate::registry::Command;

/// The control messages about revocations begin with this.
pub(crate) const REVOKE_CONTROL: &str = "revoke";
/// And one that takes a revocation back is called this.
pub(crate) const LIFT_CONTROL: &str = "lift";

/// How far ahead of this edge's clock `before_ms` may lie, in milliseconds:
/// a mistaken unit would lock a user out for ever.
const AHEAD_MAX_MS: i64 = 5 * 60 * 1_000;

/// The name under which `/readyz` says that revocations are not known.
pub(crate) const PART: &str = "revocations";

/// A revocation on the wire: in requests, answers and control messages.
/// Exactly one of `user` and `token` is given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevocationBody {
    /// All of this user's tokens that were issued before `before_ms`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<UserId>,
    /// The one token with this `jti`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Box<str>>,
    /// Milliseconds since the Unix epoch. Default: now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before_ms: Option<i64>,
    /// When it is forgotten, in milliseconds since the Unix epoch. Default:
    /// when the longest-lived token has expired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_ms: Option<i64>,
}

impl RevocationBody {
    /// What it is about.
    pub fn revoked(&self) -> Result<Revoked, ApiError> {
        match (&self.user, &self.token) {
            (Some(user), None) => Ok(Revoked::User(user.clone())),
            (None, Some(id)) if (1..=TOKEN_ID_MAX_BYTES).contains(&id.len()) => {
                Ok(Revoked::Token(id.clone()))
            }
            (None, Some(_)) => Err(bad("a token's id (jti) has 1 to 256 bytes")),
            (Some(_), Some(_)) | (None, None) => Err(bad("expected either user or token")),
        }
    }

    fn complete(&self) -> Option<Revocation> {
        Some(Revocation {
            revoked: self.revoked().ok()?,
            before_ms: self.before_ms?,
            expires_ms: self.expires_ms?,
        })
    }
}

impl From<Revocation> for RevocationBody {
    fn from(revocation: Revocation) -> Self {
        let (user, token) = match revocation.revoked {
            Revoked::User(user) => (Some(user), None),
            Revoked::Token(id) => (None, Some(id)),
        };
        Self {
            user,
            token,
            before_ms: Some(revocation.before_ms),
            expires_ms: Some(revocation.expires_ms),
        }
    }
}

fn bad(message: &'static str) -> ApiError {
    ApiError::new(ErrorCode::BadRequest, message)
}

impl Edge {
    /// Revokes, for whoever may: HTTP and the NATS service ask here. Durable
    /// when it returns; this edge acts before, every other within a second.
    /// Returns what stands.
    ///
    /// # Errors
    /// `bad_request` for a body that makes no sense, `unsupported` without a
    /// store, `unavailable` while the store is: then it may or may not have
    /// been revoked, and revoking again is safe.
    pub async fn revoke(&self, body: RevocationBody) -> Result<RevocationBody, ApiError> {
        let now_ms = unix_now_ms();
        let revoked = body.revoked()?;
        let before_ms = match (&revoked, body.before_ms) {
            (Revoked::Token(_), Some(_)) => return Err(bad("before_ms goes with user")),
            (_, before_ms) => before_ms.unwrap_or(now_ms),
        };
        if !(0..=now_ms + AHEAD_MAX_MS).contains(&before_ms) {
            return Err(bad(
                "before_ms is in milliseconds since 1970, and not in the future",
            ));
        }
        let lifetime_ms = self.auth().token_lifetime_max_ms();
        let expires_ms = body.expires_ms.unwrap_or(now_ms + lifetime_ms);
        if !(now_ms..=now_ms + lifetime_ms).contains(&expires_ms) {
            return Err(bad(
                "expires_ms is in milliseconds since 1970, in the future, and no later than the \
                 longest-lived token (auth.token_lifetime_max_s)",
            ));
        }
        let records = self.access().ok_or_else(unsupported)?;
        let stands = records
            .revoke(Revocation {
                revoked,
                before_ms,
                expires_ms,
            })
            .await?;
        self.act_on_revocation(stands.clone());
        let body = RevocationBody::from(stands);
        self.tell_edges(REVOKE_CONTROL, &body).await;
        Ok(body)
    }

    /// Takes a revocation back; whether there was one. Tokens that it
    /// concerned are accepted again until they expire.
    ///
    /// # Errors
    /// As for [`Self::revoke`].
    pub async fn lift_revocation(&self, body: &RevocationBody) -> Result<bool, ApiError> {
        let revoked = body.revoked()?;
        let records = self.access().ok_or_else(unsupported)?;
        let lifted = records.lift(revoked.clone()).await?;
        self.auth().revocations().lift(&revoked);
        self.tell_edges(LIFT_CONTROL, body).await;
        Ok(lifted)
    }

    /// Refuses the tokens from now on, and ends what lives under them.
    pub(crate) fn act_on_revocation(&self, revocation: Revocation) {
        let revoked = revocation.revoked.clone();
        // First, so that whoever connects meanwhile is refused or found.
        self.auth().revocations().add(revocation, unix_now_ms());
        let concerned = match &revoked {
            Revoked::User(user) => self.registry().of(user),
            Revoked::Token(id) => self.registry().of_token(id),
        };
        for connection in concerned {
            connection.send(Command::CheckToken);
        }
    }

    /// Best effort: the store tells them too.
    async fn tell_edges(&self, name: &str, body: &RevocationBody) {
        let Some(controls) = self.controls() else {
            return;
        };
        match serde_json::to_vec(body) {
            Ok(body) => {
                let control = Control {
                    name: name.into(),
                    body: Bytes::from(body),
                };
                if let Err(error) = controls.send(control).await {
                    tracing::debug!(%error, "revocation.not_passed_on");
                }
            }
            Err(error) => tracing::error!(%error, "revocation.not_encoded"),
        }
    }
}

/// Acts on what another edge revoked or took back.
pub(crate) fn on_control(edge: &Edge, name: &str, body: &[u8]) {
    let Ok(body) = serde_json::from_slice::<RevocationBody>(body) else {
        tracing::warn!("control.revocation_not_understood");
        return;
    };
    match (name, body.complete(), body.revoked()) {
        (REVOKE_CONTROL, Some(revocation), _) => edge.act_on_revocation(revocation),
        (LIFT_CONTROL, _, Ok(revoked)) => edge.auth().revocations().lift(&revoked),
        _ => tracing::warn!("control.revocation_not_understood"),
    }
}

/// Keeps what is revoked up to date, and ends what lives under a revoked
/// token. Runs for ever.
pub async fn watch_revocations(edge: Edge, records: Arc<dyn AccessRecords>) {
    let mut watch = records.watch();
    loop {
        match watch.next().await {
            RevocationEvent::All(all) => {
                tracing::debug!(revocations = all.len(), "revocations read");
                edge.auth().revocations().replace(all);
                edge.readiness().ready(PART);
                for connection in edge.registry().all() {
                    connection.send(Command::CheckToken);
                }
            }
            RevocationEvent::Revoked(revocation) => edge.act_on_revocation(revocation),
            RevocationEvent::Lifted(revoked) => edge.auth().revocations().lift(&revoked),
        }
    }
}

fn unsupported() -> ApiError {
    let message = "this edge has no store, so it cannot remember what is revoked";
    ApiError::new(ErrorCode::Unsupported, message)
}

fn unix_now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    })
}
