//! The issuer's keys as a JSON Web Key Set (RFC 7517), at a URL or in a file.
//!
//! Kept in memory and read anew from time to time; a token that names a key
//! which is not there asks for it to be read sooner, though not more often
//! than every [`READ_PAUSE`], whatever is sent. A set that cannot be read
//! leaves the last one in force for `stale_s`, and then nothing.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use parking_lot::RwLock;
use reqwest::Client;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::config::{AuthConfig, AuthConfigError, KEYS_MAX};
use super::token::TokenKey;
use crate::outbound::{self, OutboundError};

/// Longest key set, in bytes; those of large providers have some 10 KiB.
const SET_BYTES_MAX: usize = 256 * 1024;

/// Most keys in a set, the ones that are not for us among them.
const SET_KEYS_MAX: usize = 64;

/// Shortest RSA modulus, in bytes: RFC 7518, section 3.3.
const RSA_BYTES_MIN: usize = 256;

/// The least time between the beginnings of two readings: what strangers'
/// tokens can cause.
const READ_PAUSE: Duration = Duration::from_secs(10);

/// Until the next try when a set could not be read.
const RETRY_PAUSE: Duration = READ_PAUSE;

/// Where the issuer's keys are. Exactly one of `url` and `file` is given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JwksConfig {
    /// `https://…`, as in the provider's `jwks_uri`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// A file with the same content.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// How often it is read anew, in seconds; 10 to 86400. Default: 300. A
    /// key that was taken out of the set is accepted for as long.
    pub refresh_s: u32,
    /// For how long the last set is used when it cannot be read, in seconds;
    /// at least `refresh_s`, at most 604800. Default: 3600.
    pub stale_s: u32,
    /// How long reading may take, in milliseconds; 100 to 30000. Default:
    /// 3000.
    pub timeout_ms: u32,
}

impl Default for JwksConfig {
    fn default() -> Self {
        Self {
            url: None,
            file: None,
            refresh_s: 300,
            stale_s: 3_600,
            timeout_ms: 3_000,
        }
    }
}

/// Why a key set was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JwksError {
    /// It could not be fetched.
    #[error(transparent)]
    Outbound(#[from] OutboundError),
    /// It could not be read.
    #[error("{path}: {error}")]
    File {
        /// The file.
        path: String,
        /// What happened.
        error: std::io::Error,
    },
    /// Not a key set, or one that cannot be meant.
    #[error("{0}")]
    Set(String),
}

enum Source {
    Url(String, Client),
    File(PathBuf),
}

/// The keys of one issuer.
pub struct Jwks {
    source: Source,
    config: JwksConfig,
    /// For the checks that each key makes.
    auth: AuthConfig,
    state: RwLock<State>,
    wanted: Notify,
}

#[derive(Default)]
struct State {
    keys: Arc<[TokenKey]>,
    /// When the keys were read.
    read: Option<Instant>,
    /// When reading was last begun.
    begun: Option<Instant>,
    reading: bool,
}

impl std::fmt::Debug for Jwks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Jwks")
    }
}

impl Jwks {
    /// No keys yet, until [`Self::keep`] has read them.
    pub(super) fn new(config: &JwksConfig, auth: &AuthConfig) -> Result<Self, AuthConfigError> {
        let bound = |field: &str, value: u32, least: u32, most: u32| {
            let reason = format!("{value} is not within {least} to {most}");
            match (least..=most).contains(&value) {
                true => Ok(()),
                false => Err(AuthConfigError::new(format!("jwks.{field}"), reason)),
            }
        };
        bound("refresh_s", config.refresh_s, 10, 86_400)?;
        bound("stale_s", config.stale_s, config.refresh_s, 604_800)?;
        bound("timeout_ms", config.timeout_ms, 100, 30_000)?;
        let source = match (&config.url, &config.file) {
            (Some(url), None) => {
                let bad = |reason: String| AuthConfigError::new("jwks.url", reason);
                outbound::check_url(url).map_err(bad)?;
                let timeout = Duration::from_millis(config.timeout_ms.into());
                let client = outbound::client(timeout).map_err(|error| bad(error.to_string()))?;
                Source::Url(url.clone(), client)
            }
            (None, Some(file)) => Source::File(file.clone()),
            (Some(_), Some(_)) | (None, None) => {
                let reason = "exactly one of url and file is needed";
                return Err(AuthConfigError::new("jwks", reason));
            }
        };
        Ok(Self {
            source,
            config: config.clone(),
            auth: auth.clone(),
            state: RwLock::default(),
            wanted: Notify::new(),
        })
    }

    /// The keys in force; none when they could not be read for too long.
    pub(super) fn keys(&self) -> Arc<[TokenKey]> {
        let state = self.state.read();
        match self.is_fresh(&state) {
            true => Arc::clone(&state.keys),
            false => Arc::default(),
        }
    }

    fn is_fresh(&self, state: &State) -> bool {
        let stale = Duration::from_secs(self.config.stale_s.into());
        state.read.is_some_and(|read| read.elapsed() <= stale)
    }

    /// A token names a key that is not here. Whether it may be known soon:
    /// the set is being read, or is about to be because of this.
    pub(super) fn want(&self) -> bool {
        let state = self.state.read();
        let pausing = state
            .begun
            .is_some_and(|begun| begun.elapsed() < READ_PAUSE);
        if !pausing && !state.reading {
            self.wanted.notify_one();
        }
        state.reading || !pausing || !self.is_fresh(&state)
    }

    /// Reads the keys once. What is wrong with them leaves the last ones.
    pub(crate) async fn read(&self) -> Result<usize, JwksError> {
        {
            let mut state = self.state.write();
            state.begun = Some(Instant::now());
            state.reading = true;
        }
        let result = match self.fetch().await {
            Ok(set) => parse(&set, &self.auth),
            Err(error) => Err(error),
        };
        let mut state = self.state.write();
        state.reading = false;
        let keys = result?;
        let count = keys.len();
        state.keys = keys.into();
        state.read = Some(Instant::now());
        Ok(count)
    }

    async fn fetch(&self) -> Result<Vec<u8>, JwksError> {
        match &self.source {
            Source::Url(url, client) => {
                let response = client.get(url).send().await.map_err(OutboundError::from)?;
                Ok(outbound::body(response, SET_BYTES_MAX).await?)
            }
            Source::File(path) => {
                let fail = |error| JwksError::File {
                    path: path.display().to_string(),
                    error,
                };
                let length = tokio::fs::metadata(path).await.map_err(fail)?.len();
                if length > SET_BYTES_MAX as u64 {
                    return Err(OutboundError::TooLong(SET_BYTES_MAX).into());
                }
                tokio::fs::read(path).await.map_err(fail)
            }
        }
    }

    /// Reads the keys, again and again; `known` is told when they have been
    /// read for the first time. Runs for ever.
    pub async fn keep(&self, known: impl Fn()) {
        loop {
            let pause = match self.read().await {
                Ok(keys) => {
                    tracing::debug!(keys, "jwks.read");
                    known();
                    Duration::from_secs(self.config.refresh_s.into())
                }
                Err(error) => {
                    tracing::warn!(%error, "the issuer's keys (auth.jwks) cannot be read");
                    RETRY_PAUSE
                }
            };
            let begun = self.state.read().begun.unwrap_or_else(Instant::now);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.wanted.notified() => tokio::time::sleep_until(begun + READ_PAUSE).await,
            }
        }
    }
}

/// The keys of a set that verify what we accept. Others are passed over, as
/// RFC 7517, section 5, asks.
fn parse(bytes: &[u8], auth: &AuthConfig) -> Result<Vec<TokenKey>, JwksError> {
    #[derive(Deserialize)]
    struct Set {
        keys: Vec<serde_json::Value>,
    }
    let set: Set = serde_json::from_slice(bytes)
        .map_err(|error| JwksError::Set(format!("not a key set: {error}")))?;
    if set.keys.len() > SET_KEYS_MAX {
        return Err(JwksError::Set(format!("more than {SET_KEYS_MAX} keys")));
    }
    let jwks = set
        .keys
        .into_iter()
        .filter_map(|key| serde_json::from_value(key).ok());
    let keys: Vec<TokenKey> = jwks.filter_map(|jwk| usable(&jwk, auth)).collect();
    match keys.len() {
        0 => Err(JwksError::Set(
            "no key of RS256, ES256 or EdDSA in it".to_owned(),
        )),
        1..=KEYS_MAX => Ok(keys),
        _ => Err(JwksError::Set(format!("more than {KEYS_MAX} usable keys"))),
    }
}

/// A key bound to its one algorithm. Shared secrets are never taken from a
/// set, which is public.
fn usable(jwk: &Jwk, auth: &AuthConfig) -> Option<TokenKey> {
    let common = &jwk.common;
    if !matches!(common.public_key_use, None | Some(PublicKeyUse::Signature)) {
        return None;
    }
    let (algorithm, named) = match &jwk.algorithm {
        AlgorithmParameters::RSA(rsa) => {
            // Base64 of n bytes has ⌈4n/3⌉ digits.
            let bytes = rsa.n.len() * 3 / 4;
            (bytes >= RSA_BYTES_MIN).then_some((Algorithm::RS256, KeyAlgorithm::RS256))?
        }
        AlgorithmParameters::EllipticCurve(ec) if ec.curve == EllipticCurve::P256 => {
            (Algorithm::ES256, KeyAlgorithm::ES256)
        }
        AlgorithmParameters::OctetKeyPair(okp) if okp.curve == EllipticCurve::Ed25519 => {
            (Algorithm::EdDSA, KeyAlgorithm::EdDSA)
        }
        _ => return None,
    };
    if common.key_algorithm.is_some_and(|other| other != named) {
        return None;
    }
    let key = DecodingKey::from_jwk(jwk).ok()?;
    TokenKey::of(common.key_id.as_deref(), key, algorithm, auth).ok()
}

#[cfg(test)]
#[path = "jwks_tests.rs"]
mod tests;
