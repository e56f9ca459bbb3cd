//! Who is asking, and which channels may they reach.
//!
//! - [`pattern`]: `room:1` or `topic:*`, matched on parsed channels;
//! - [`grants`]: what an authenticated caller may do;
//! - [`config`]: keys as an operator writes them;
//! - [`jwks`]: the issuer's keys at a URL or in a file;
//! - [`token`]: JSON Web Tokens of users, verified and minted;
//! - [`api_key`]: keys of services;
//! - [`revoked`]: which tokens no longer count;
//! - [`authorizer`]: the application decides about the rest;
//! - [`ticket`]: what stands in a URL in the place of a token, once;
//! - [`Authenticator`]: tells tokens and keys apart and checks both.

pub mod api_key;
pub mod authorizer;
pub mod config;
pub mod grants;
pub mod jwks;
pub mod pattern;
pub mod revoked;
pub mod ticket;
pub mod token;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

pub use api_key::{API_KEY_PREFIX, ApiKeyConfig};
pub use authorizer::{Action, Authorizer, AuthorizerConfig};
pub use config::{AuthConfig, AuthConfigError, KeyConfig, Secret, TokenAlgorithm};
pub use grants::{Caller, Grants, ServiceGrants};
pub use pattern::{Pattern, PatternError};
pub use revoked::{Refused, Revocations};
pub use token::{Claims, MintError, TOKEN_MAX_BYTES, TokenError, mint};

use api_key::ApiKeys;
use ticket::Tickets;
use token::TokenKeys;

/// Verifies tokens and API keys against the configured keys. Made once at
/// start, so that a bad key is found there and not by the first user.
#[derive(Debug)]
pub struct Authenticator {
    tokens: TokenKeys,
    api_keys: ApiKeys,
    tickets: Option<Tickets>,
    revocations: Revocations,
    authorizer: Option<Arc<Authorizer>>,
}

/// Why a bearer credential was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BearerError {
    /// A user's token.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// A service's key that is not configured.
    #[error("unknown API key")]
    UnknownApiKey,
}

impl Authenticator {
    /// Reads and checks every configured key, including those in files.
    pub fn new(config: &AuthConfig) -> Result<Self, AuthConfigError> {
        Ok(Self {
            tokens: TokenKeys::new(config)?,
            api_keys: ApiKeys::new(&config.api_keys)?,
            tickets: Tickets::new(config)?,
            revocations: Revocations::default(),
            authorizer: match &config.authorizer {
                Some(authorizer) => Some(Authorizer::new(authorizer)?),
                None => None,
            },
        })
    }

    /// Verifies a user's token at the given time. What was revoked is
    /// refused here, so that no way in can forget to ask.
    pub fn verify_token(&self, token: &str, now_s: u64) -> Result<Grants, TokenError> {
        let grants = self.tokens.verify(token, now_s)?;
        self.check_revoked(&grants)?;
        Ok(grants)
    }

    /// Whether what a token granted still counts: asked again for what lives
    /// longer than a request.
    pub fn check_revoked(&self, grants: &Grants) -> Result<(), TokenError> {
        self.revocations
            .check(grants)
            .map_err(|refused| match refused {
                Refused::Revoked => TokenError::Revoked,
                Refused::NotKnown => TokenError::NotReady,
            })
    }

    /// Whom to ask about what neither token nor membership grants.
    pub fn authorizer(&self) -> Option<&Arc<Authorizer>> {
        self.authorizer.as_ref()
    }

    /// The issuer's key set, which [`jwks::Jwks::keep`] has to keep up to date.
    pub fn jwks(&self) -> Option<&Arc<jwks::Jwks>> {
        self.tokens.jwks()
    }

    /// Which tokens no longer count.
    pub fn revocations(&self) -> &Revocations {
        &self.revocations
    }

    /// How long a token can live, clocks' differences included, in
    /// milliseconds.
    pub fn token_lifetime_max_ms(&self) -> i64 {
        // A year and a little at the most: checked when the keys are read.
        i64::try_from(self.tokens.lifetime_max_s().saturating_mul(1_000)).unwrap_or(i64::MAX)
    }

    /// Signs and takes tickets; `None` where no key for them is configured.
    pub fn tickets(&self) -> Option<&Tickets> {
        self.tickets.as_ref()
    }

    /// Verifies what stands after `Authorization: Bearer`: a service's API
    /// key (they begin with [`API_KEY_PREFIX`]) or a user's token.
    pub fn verify_bearer(&self, credential: &str, now_s: u64) -> Result<Caller, BearerError> {
        if credential.starts_with(API_KEY_PREFIX) {
            return self
                .api_keys
                .find(credential)
                .map(Caller::Service)
                .ok_or(BearerError::UnknownApiKey);
        }
        Ok(Caller::User(self.verify_token(credential, now_s)?))
    }
}

/// Seconds since the Unix epoch, the unit of a token's times. The one place
/// where the edge reads the wall clock for authentication.
pub fn unix_now_s() -> u64 {
    unix_now_ms() / 1_000
}

/// Milliseconds since the Unix epoch.
pub(crate) fn unix_now_ms() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
    since_epoch.map_or(0, |it| u64::try_from(it.as_millis()).unwrap_or(u64::MAX))
}
