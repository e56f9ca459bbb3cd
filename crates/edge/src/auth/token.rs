//! JSON Web Tokens (RFC 7519) of users.
//!
//! A token says who (`sub`), until when (`exp`, required), and which
//! channels beyond the own inbox:
//!
//! ```json
//! { "sub": "alice", "exp": 1790000000, "iat": 1789996400, "jti": "…",
//!   "rejoin": { "subscribe": ["room:1", "topic:*"], "publish": ["room:1"] } }
//! ```
//!
//! `rejoin` and its lists may be left out. An unknown key inside `rejoin` is
//! an error: it could be a restriction that this edge does not know yet.

use std::sync::Arc;

use delivery::access::TOKEN_ID_MAX_BYTES;
use jsonwebtoken::errors::{Error as JwtError, ErrorKind};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use protocol::{Channel, CloseCode, ErrorCode, UserId};
use serde::{Deserialize, Deserializer, Serialize};

use super::config::{
    AuthConfig, AuthConfigError, KEYS_MAX, KeyConfig, LEEWAY_MAX_S, Secret, TOKEN_LIFETIME_S,
    TokenAlgorithm,
};
use super::grants::Grants;
use super::jwks::Jwks;
use super::pattern::Pattern;

/// Longest token, in bytes; longer ones are refused before any parsing. A
/// token with 200 patterns takes about 4 KiB.
pub const TOKEN_MAX_BYTES: usize = protocol::limits::TOKEN_BYTES_MAX;

/// Shortest HS256 secret, in bytes: RFC 7518, section 3.2.
pub const SECRET_MIN_BYTES: usize = 32;

/// The claims that Rejoin reads, for [`mint`]. Issuers write the same JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Claims {
    /// The user.
    pub sub: UserId,
    /// When the token ends, in seconds since the Unix epoch.
    pub exp: u64,
    /// When it was issued, in seconds since the Unix epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iat: Option<u64>,
    /// From when on it is valid, in seconds since the Unix epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nbf: Option<u64>,
    /// The id by which it can be revoked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jti: Option<String>,
    /// The issuer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iss: Option<String>,
    /// For whom it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aud: Option<String>,
    /// The channels beyond the own inbox.
    pub rejoin: ChannelClaims,
}

/// The claim `rejoin`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ChannelClaims {
    /// Channels to subscribe to, replay and read.
    pub subscribe: Vec<Pattern>,
    /// Channels to publish and signal to.
    pub publish: Vec<Pattern>,
}

/// Why a token was refused. The texts are for its holder.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Longer than [`TOKEN_MAX_BYTES`].
    #[error("the token is longer than {TOKEN_MAX_BYTES} bytes")]
    TooLarge,
    /// Not a token, or one with an algorithm that is never accepted (`none`
    /// among them).
    #[error("not a JSON Web Token of an accepted algorithm (HS256, RS256, ES256, EdDSA)")]
    Malformed,
    /// No key is configured for its algorithm and `kid`.
    #[error("no key is configured for the token's algorithm and key id")]
    UnknownKey,
    /// It names a key that is being looked up, or the issuer's keys cannot be
    /// read for the moment.
    #[error("the key of the token is being looked up; try again")]
    KeysPending,
    /// Signed with another key, or changed after it was signed.
    #[error("the token's signature does not verify")]
    BadSignature,
    /// `exp` is past: a new token is needed.
    #[error("the token has expired")]
    Expired,
    /// `nbf` or `iat` is still to come.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// It lives longer than this edge accepts (`auth.token_lifetime_max_s`).
    #[error("the token lives longer than this edge accepts (exp - iat)")]
    TooLongLived,
    /// It was revoked, by its id or with all of the user's.
    #[error("the token was revoked")]
    Revoked,
    /// It may be good: this edge has not read yet what is revoked.
    #[error("this edge does not know yet which tokens are revoked; try again")]
    NotReady,
    /// `iss` is missing or not the configured one.
    #[error("the token's issuer (iss) is not accepted")]
    Issuer,
    /// `aud` is missing or does not contain the configured one.
    #[error("the token's audience (aud) is not accepted")]
    Audience,
    /// A claim is missing or has the wrong form.
    #[error("the token's claims are not accepted: {0}")]
    Claims(Box<str>),
}

impl TokenError {
    /// Whether the same user may come back with a new token, rather than
    /// not at all.
    pub fn is_expired(&self) -> bool {
        matches!(self, Self::Expired)
    }

    /// The code that its holder is told.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NotReady | Self::KeysPending => ErrorCode::Unavailable,
            Self::TooLarge
            | Self::Malformed
            | Self::UnknownKey
            | Self::BadSignature
            | Self::Expired
            | Self::NotYetValid
            | Self::TooLongLived
            | Self::Revoked
            | Self::Issuer
            | Self::Audience
            | Self::Claims(_) => ErrorCode::Unauthorized,
        }
    }

    /// The code with which a connection is closed that shows it.
    pub fn close_code(&self) -> CloseCode {
        match self {
            Self::NotReady | Self::KeysPending => CloseCode::Unavailable,
            Self::Revoked => CloseCode::Revoked,
            Self::TooLarge
            | Self::Malformed
            | Self::UnknownKey
            | Self::BadSignature
            | Self::Expired
            | Self::NotYetValid
            | Self::TooLongLived
            | Self::Issuer
            | Self::Audience
            | Self::Claims(_) => CloseCode::Unauthorized,
        }
    }
}

/// The claims as they arrive. `iss` and `aud` are checked by the library.
#[derive(Deserialize)]
struct ReceivedClaims {
    sub: UserId,
    #[serde(deserialize_with = "numeric_date")]
    exp: u64,
    #[serde(default, deserialize_with = "optional_numeric_date")]
    nbf: Option<u64>,
    #[serde(default, deserialize_with = "optional_numeric_date")]
    iat: Option<u64>,
    #[serde(default)]
    jti: Option<Box<str>>,
    #[serde(default)]
    rejoin: ChannelClaims,
}

#[derive(Debug)]
pub(super) struct TokenKeys {
    keys: Vec<TokenKey>,
    jwks: Option<Arc<Jwks>>,
    leeway_s: u64,
    lifetime_max_s: u64,
}

/// A key, bound to its one algorithm.
#[derive(Debug)]
pub(super) struct TokenKey {
    kid: Option<Box<str>>,
    key: DecodingKey,
    algorithm: Algorithm,
    /// Allows this key's one algorithm, whatever the token's header says.
    validation: Validation,
}

impl TokenKeys {
    pub(super) fn new(config: &AuthConfig) -> Result<Self, AuthConfigError> {
        if config.keys.len() > KEYS_MAX {
            let reason = format!("at most {KEYS_MAX} keys");
            return Err(AuthConfigError::new("keys", reason));
        }
        if config.leeway_s > LEEWAY_MAX_S {
            let reason = format!("at most {LEEWAY_MAX_S} seconds");
            return Err(AuthConfigError::new("leeway_s", reason));
        }
        if !TOKEN_LIFETIME_S.contains(&config.token_lifetime_max_s) {
            let (least, most) = (TOKEN_LIFETIME_S.start(), TOKEN_LIFETIME_S.end());
            let reason = format!("{least} to {most} seconds");
            return Err(AuthConfigError::new("token_lifetime_max_s", reason));
        }
        let keys = config
            .keys
            .iter()
            .enumerate()
            .map(|(index, key)| TokenKey::new(&format!("keys[{index}]"), key, config));
        Ok(Self {
            keys: keys.collect::<Result<_, _>>()?,
            jwks: match &config.jwks {
                Some(jwks) => Some(Arc::new(Jwks::new(jwks, config)?)),
                None => None,
            },
            leeway_s: config.leeway_s,
            lifetime_max_s: config.token_lifetime_max_s,
        })
    }

    /// The issuer's key set.
    pub(super) fn jwks(&self) -> Option<&Arc<Jwks>> {
        self.jwks.as_ref()
    }

    /// How long after it was issued a token may still be accepted, in seconds.
    pub(super) fn lifetime_max_s(&self) -> u64 {
        self.lifetime_max_s + 2 * self.leeway_s
    }

    pub(super) fn verify(&self, token: &str, now_s: u64) -> Result<Grants, TokenError> {
        if token.len() > TOKEN_MAX_BYTES {
            return Err(TokenError::TooLarge);
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| TokenError::Malformed)?;
        // RFC 7515, section 4.1.11: what must be understood and is not, is
        // refused. No such extension is understood here.
        if header.crit.is_some() {
            return Err(TokenError::Malformed);
        }
        let published = self.jwks.as_ref().map(|jwks| jwks.keys());
        let keys = self
            .keys
            .iter()
            .chain(published.iter().flat_map(|keys| &**keys));
        let mut failure = TokenError::UnknownKey;
        for key in keys.filter(|key| key.serves(&header)) {
            match jsonwebtoken::decode::<ReceivedClaims>(token, &key.key, &key.validation) {
                Ok(data) => return self.grants(data.claims, now_s),
                Err(error) => failure = refused(&error),
            }
            // Another key may verify it; any other failure is final.
            if failure != TokenError::BadSignature {
                break;
            }
        }
        let wanted = |jwks: &Arc<Jwks>| failure == TokenError::UnknownKey && jwks.want();
        match self.jwks.as_ref().is_some_and(wanted) {
            true => Err(TokenError::KeysPending),
            false => Err(failure),
        }
    }

    fn grants(&self, claims: ReceivedClaims, now_s: u64) -> Result<Grants, TokenError> {
        let expires_s = claims.exp.saturating_add(self.leeway_s);
        if expires_s <= now_s {
            return Err(TokenError::Expired);
        }
        let valid_now = |from: u64| from <= now_s.saturating_add(self.leeway_s);
        // A token that says it will be issued would outlive the revocation
        // of everything issued until now.
        if !claims.nbf.is_none_or(valid_now) || !claims.iat.is_none_or(valid_now) {
            return Err(TokenError::NotYetValid);
        }
        let issued_s = claims.iat.unwrap_or(now_s);
        if claims.exp > issued_s.saturating_add(self.lifetime_max_s + self.leeway_s) {
            return Err(TokenError::TooLongLived);
        }
        if let Some(id) = &claims.jti
            && id.len() > TOKEN_ID_MAX_BYTES
        {
            let reason = format!("jti has at most {TOKEN_ID_MAX_BYTES} bytes");
            return Err(TokenError::Claims(reason.into()));
        }
        Ok(Grants {
            inbox: Channel::inbox(&claims.sub),
            user: claims.sub,
            expires_s,
            issued_s: claims.iat,
            token_id: claims.jti,
            subscribe: claims.rejoin.subscribe.into(),
            publish: claims.rejoin.publish.into(),
        })
    }
}

impl TokenKey {
    fn new(at: &str, config: &KeyConfig, auth: &AuthConfig) -> Result<Self, AuthConfigError> {
        let material = config.material(at)?;
        let bad = |reason: String| AuthConfigError::new(at, reason);
        let not_pem = |error: JwtError| {
            bad(format!(
                "not a public key for {:?} as PEM: {error}",
                config.alg
            ))
        };
        if config.alg != TokenAlgorithm::HS256 && contains(&material, b"PRIVATE KEY") {
            return Err(bad(
                "this is a private key; an edge needs only the public one".to_owned(),
            ));
        }
        let (algorithm, key) = match config.alg {
            TokenAlgorithm::HS256 => {
                if material.len() < SECRET_MIN_BYTES {
                    return Err(bad(format!(
                        "an HS256 secret has at least {SECRET_MIN_BYTES} bytes, this one has {}; \
                         make one with: openssl rand -base64 48",
                        material.len()
                    )));
                }
                (Algorithm::HS256, DecodingKey::from_secret(&material))
            }
            TokenAlgorithm::RS256 => {
                let key = DecodingKey::from_rsa_pem(&material).map_err(not_pem)?;
                (Algorithm::RS256, key)
            }
            TokenAlgorithm::ES256 => {
                let key = DecodingKey::from_ec_pem(&material).map_err(not_pem)?;
                (Algorithm::ES256, key)
            }
            TokenAlgorithm::EdDSA => {
                let key = DecodingKey::from_ed_pem(&material).map_err(not_pem)?;
                (Algorithm::EdDSA, key)
            }
        };
        Self::of(config.kid.as_deref(), key, algorithm, auth).map_err(not_pem)
    }

    /// A key for one algorithm, if it can verify that at all.
    pub(super) fn of(
        kid: Option<&str>,
        key: DecodingKey,
        algorithm: Algorithm,
        auth: &AuthConfig,
    ) -> Result<Self, JwtError> {
        let key = Self {
            kid: kid.map(Into::into),
            key,
            algorithm,
            validation: validation(algorithm, auth),
        };
        key.probe()?;
        Ok(key)
    }

    /// Whether a token with this header may have been signed with this key.
    fn serves(&self, header: &Header) -> bool {
        let named = match (&self.kid, &header.kid) {
            (Some(ours), Some(theirs)) => **ours == **theirs,
            (None, Some(_)) | (Some(_), None) | (None, None) => true,
        };
        named && header.alg == self.algorithm
    }

    /// Finds out at start whether the key can verify at all: a P-384 key
    /// given for ES256 parses, and then fails every token.
    fn probe(&self) -> Result<(), JwtError> {
        jsonwebtoken::crypto::verify("", b"", &self.key, self.algorithm).map(|_| ())
    }
}

/// What the library checks: signature, algorithm, `iss` and `aud`. Times are
/// checked here, because the time is a parameter.
fn validation(algorithm: Algorithm, config: &AuthConfig) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = config.audience.is_some();
    let mut required = Vec::new();
    if let Some(issuer) = &config.issuer {
        validation.set_issuer(&[issuer]);
        required.push("iss");
    }
    if let Some(audience) = &config.audience {
        validation.set_audience(&[audience]);
        required.push("aud");
    }
    validation.set_required_spec_claims(&required);
    validation
}

fn refused(error: &JwtError) -> TokenError {
    match error.kind() {
        ErrorKind::InvalidSignature => TokenError::BadSignature,
        ErrorKind::InvalidIssuer => TokenError::Issuer,
        ErrorKind::InvalidAudience => TokenError::Audience,
        ErrorKind::MissingRequiredClaim(claim) | ErrorKind::InvalidClaimFormat(claim) => {
            match claim.as_str() {
                "iss" => TokenError::Issuer,
                "aud" => TokenError::Audience,
                other => TokenError::Claims(other.into()),
            }
        }
        ErrorKind::Json(error) => TokenError::Claims(error.to_string().into()),
        // Foreign and not exhaustive: whatever else is wrong, it is not a
        // token that we can read.
        _ => TokenError::Malformed,
    }
}

/// RFC 7519 allows fractions of a second; some issuers write them.
fn numeric_date<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Number {
        Whole(u64),
        Fraction(f64),
    }
    match Number::deserialize(deserializer) {
        Ok(Number::Whole(seconds)) => Ok(seconds),
        // `as` saturates, and rounding down ends a token early, not late.
        Ok(Number::Fraction(seconds)) if seconds >= 0.0 => Ok(seconds as u64),
        Ok(Number::Fraction(_)) | Err(_) => Err(serde::de::Error::custom(
            "exp, nbf and iat are seconds since 1970 as a number",
        )),
    }
}

fn optional_numeric_date<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<u64>, D::Error> {
    numeric_date(deserializer).map(Some)
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack
        .windows(needle.len())
        .any(|window| window == needle)
}

/// Why no token was made.
#[derive(Debug, thiserror::Error)]
pub enum MintError {
    /// No HS256 key with a secret is configured: a public key cannot sign.
    #[error("minting needs a key with alg HS256 in auth.keys; a public key cannot sign")]
    NoSecret,
    /// The key cannot be read.
    #[error(transparent)]
    Key(#[from] AuthConfigError),
    /// The library could not sign.
    #[error("signing failed: {0}")]
    Signing(#[from] JwtError),
}

/// Signs a token with the first HS256 key of the configuration: for
/// development and tests. In production the application's own backend issues
/// tokens.
pub fn mint(config: &AuthConfig, claims: &Claims) -> Result<Secret, MintError> {
    let (index, key) = config
        .keys
        .iter()
        .enumerate()
        .find(|(_, key)| key.alg == TokenAlgorithm::HS256)
        .ok_or(MintError::NoSecret)?;
    let material = key.material(&format!("keys[{index}]"))?;
    let mut header = Header::new(Algorithm::HS256);
    header.kid.clone_from(&key.kid);
    let token = jsonwebtoken::encode(&header, claims, &EncodingKey::from_secret(&material))?;
    Ok(Secret::new(token))
}

#[cfg(test)]
#[path = "token_tests.rs"]
mod tests;
