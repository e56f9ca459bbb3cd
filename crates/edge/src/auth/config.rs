//! Keys as an operator writes them.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize, Serializer};

use super::api_key::ApiKeyConfig;
use super::authorizer::AuthorizerConfig;
use super::jwks::JwksConfig;

/// Who is let in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuthConfig {
    /// Keys that tokens may be signed with; at most [`KEYS_MAX`]. Without
    /// one, no user can connect. Default: none.
    pub keys: Vec<KeyConfig>,
    /// More keys, which the issuer publishes and changes. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwks: Option<JwksConfig>,
    /// If set, a token's `iss` must be there and equal this.
    pub issuer: Option<String>,
    /// If set, a token's `aud` must be there and contain this.
    pub audience: Option<String>,
    /// Clock difference with the issuer that `exp` and `nbf` tolerate, in
    /// seconds; at most 300. Default: 5.
    pub leeway_s: u64,
    /// Longest life of a token, from `iat` (or from now, where it has none)
    /// to `exp`, in seconds; 60 to 34560000 (400 days). Longer-lived ones are
    /// refused. Revocations are remembered for as long. Default: 2592000, 30
    /// days.
    pub token_lifetime_max_s: u64,
    /// Signs the tickets of event streams: a secret for HS256, the same on
    /// every edge. Default: none; then it is derived from the first HS256 key
    /// among `keys`, and without one there are no tickets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ticket_key: Option<KeyConfig>,
    /// The application decides about users' rights that neither the token nor
    /// a membership grants. Default: none; then what is not granted is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authorizer: Option<AuthorizerConfig>,
    /// Keys of services that use the HTTP API. Default: none.
    pub api_keys: Vec<ApiKeyConfig>,
}

impl Default for AuthConfig {
    fn default() -> Self {
        Self {
            keys: Vec::new(),
            jwks: None,
            issuer: None,
            audience: None,
            leeway_s: 5,
            token_lifetime_max_s: 30 * 86_400,
            ticket_key: None,
            authorizer: None,
            api_keys: Vec::new(),
        }
    }
}

/// Most token keys: a token without `kid` is tried against each, and two per
/// algorithm are enough to rotate.
pub const KEYS_MAX: usize = 16;

/// Longest tolerated clock difference; more would be a second lifetime.
pub const LEEWAY_MAX_S: u64 = 300;

/// The bounds of `token_lifetime_max_s`. SQL keeps a revocation for the upper
/// one (migrations, `announce_revocations`).
pub const TOKEN_LIFETIME_S: std::ops::RangeInclusive<u64> = 60..=400 * 86_400;

/// A key that tokens may be signed with. It is bound to its algorithm, so a
/// public key can never be taken for a shared secret. Exactly one of the
/// four sources is given, and one that fits the algorithm.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyConfig {
    /// The one algorithm of this key.
    pub alg: TokenAlgorithm,
    /// If set, the key is used only for tokens that name it or name none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kid: Option<String>,
    /// HS256: the secret, at least 32 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Secret>,
    /// HS256: a file with the secret; a final newline is not part of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_file: Option<PathBuf>,
    /// RS256, ES256, EdDSA: the public key as PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key_pem: Option<String>,
    /// RS256, ES256, EdDSA: a file with the public key as PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key_pem_file: Option<PathBuf>,
}

/// The algorithms that tokens may be signed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TokenAlgorithm {
    /// HMAC with SHA-256 and a shared secret.
    HS256,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    RS256,
    /// ECDSA on P-256 with SHA-256.
    ES256,
    /// Ed25519.
    EdDSA,
}

/// A text that is neither logged nor printed: it shows as `[redacted]`.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the code that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("[redacted]")
    }
}

/// What is wrong with the configured keys; names the field.
#[derive(Debug, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct AuthConfigError {
    /// The field, like `keys[0].secret`, under the `auth` section.
    pub field: String,
    /// What is wrong with it and what it should be.
    pub reason: String,
}

impl AuthConfigError {
    pub(super) fn new(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            reason: reason.into(),
        }
    }
}

impl KeyConfig {
    /// The key material, from whichever source is given.
    pub(super) fn material(&self, at: &str) -> Result<Vec<u8>, AuthConfigError> {
        let given = [
            ("secret", self.secret.is_some()),
            ("secret_file", self.secret_file.is_some()),
            ("public_key_pem", self.public_key_pem.is_some()),
            ("public_key_pem_file", self.public_key_pem_file.is_some()),
        ];
        let given: Vec<&str> = given
            .iter()
            .filter_map(|(name, is_some)| is_some.then_some(*name))
            .collect();
        let wanted = match self.alg {
            TokenAlgorithm::HS256 => ["secret", "secret_file"],
            TokenAlgorithm::RS256 | TokenAlgorithm::ES256 | TokenAlgorithm::EdDSA => {
                ["public_key_pem", "public_key_pem_file"]
            }
        };
        let [only] = given[..] else {
            let found = match given.is_empty() {
                true => "none is given".to_owned(),
                false => format!("given: {}", given.join(", ")),
            };
            let reason = format!("exactly one of {} is needed; {found}", wanted.join(" and "));
            return Err(AuthConfigError::new(at, reason));
        };
        if !wanted.contains(&only) {
            let reason = format!("{:?} takes {}", self.alg, wanted.join(" or "));
            return Err(AuthConfigError::new(format!("{at}.{only}"), reason));
        }
        if let Some(secret) = &self.secret {
            return Ok(secret.expose().as_bytes().to_vec());
        }
        if let Some(pem) = &self.public_key_pem {
            return Ok(pem.as_bytes().to_vec());
        }
        let path = self
            .secret_file
            .as_ref()
            .or(self.public_key_pem_file.as_ref());
        read_key_file(&format!("{at}.{only}"), path.map_or(Path::new(""), |p| p))
    }
}

pub(super) fn read_key_file(field: &str, path: &Path) -> Result<Vec<u8>, AuthConfigError> {
    let mut bytes = std::fs::read(path)
        .map_err(|error| AuthConfigError::new(field, format!("{}: {error}", path.display())))?;
    // Editors end a file with a newline; nobody means it as part of a key.
    while bytes
        .last()
        .is_some_and(|last| matches!(last, b'\n' | b'\r'))
    {
        bytes.pop();
    }
    Ok(bytes)
}
