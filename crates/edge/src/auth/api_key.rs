//! Keys of services: long random texts of which the configuration holds
//! only the SHA-256, so that reading the configuration gives no access.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use super::config::AuthConfigError;
use super::grants::{Scope, ServiceGrants};
use super::pattern::Pattern;

/// What every API key begins with; no JSON Web Token does.
pub const API_KEY_PREFIX: &str = "rj_";

/// Longest API key, in bytes: longer ones are not even hashed.
pub const API_KEY_MAX_BYTES: usize = 256;

/// Most API keys: each is compared with every request's key.
pub const API_KEYS_MAX: usize = 1_000;

/// Written as the only pattern of a list: every channel there is.
pub(super) const EVERYTHING: &str = "*:*";

/// A service's key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiKeyConfig {
    /// Who it is, `[A-Za-z0-9_-]{1,64}`; unique. Two keys of one service
    /// (during a rotation) need different names, and a message retried under
    /// the other key is another message.
    pub name: String,
    /// SHA-256 of the whole key, as 64 hexadecimal digits:
    /// `printf %s "$KEY" | sha256sum`.
    pub sha256: String,
    /// Channels it may publish to: exact, `namespace:*`, or `*:*` alone for
    /// every channel. Default: none.
    #[serde(default)]
    pub publish: Vec<String>,
    /// Channels it may read, written the same way. Default: none.
    #[serde(default)]
    pub read: Vec<String>,
    /// Rooms whose members it may see and change, written the same way:
    /// `room:1`, `room:*`. Default: none.
    #[serde(default)]
    pub members: Vec<String>,
    /// May use the administrative endpoints. Default: false.
    #[serde(default)]
    pub admin: bool,
}

#[derive(Debug)]
pub(super) struct ApiKeys {
    keys: Vec<([u8; 32], ServiceGrants)>,
}

impl ApiKeys {
    pub(super) fn new(configs: &[ApiKeyConfig]) -> Result<Self, AuthConfigError> {
        if configs.len() > API_KEYS_MAX {
            let reason = format!("at most {API_KEYS_MAX} keys");
            return Err(AuthConfigError::new("api_keys", reason));
        }
        let mut keys: Vec<([u8; 32], ServiceGrants)> = Vec::with_capacity(configs.len());
        for (index, config) in configs.iter().enumerate() {
            let at = format!("api_keys[{index}]");
            // The name becomes part of a message id's scope.
            if let Err(error) = protocol::UserId::parse(&config.name) {
                let reason = error.to_string().replace("a user id", "a key's name");
                return Err(AuthConfigError::new(format!("{at}.name"), reason));
            }
            if keys.iter().any(|(_, grants)| *grants.name == *config.name) {
                let reason = format!("{:?} is used twice", config.name);
                return Err(AuthConfigError::new(format!("{at}.name"), reason));
            }
            let digest = parse_sha256(&config.sha256).ok_or_else(|| {
                AuthConfigError::new(
                    format!("{at}.sha256"),
                    "expected the SHA-256 of the key as 64 hexadecimal digits",
                )
            })?;
            let grants = ServiceGrants {
                name: config.name.as_str().into(),
                admin: config.admin,
                publish: parse_scope(&format!("{at}.publish"), &config.publish)?,
                read: parse_scope(&format!("{at}.read"), &config.read)?,
                members: parse_scope(&format!("{at}.members"), &config.members)?,
            };
            keys.push((digest, grants));
        }
        Ok(Self { keys })
    }

    /// The grants of a key. Every configured key is compared, each in
    /// constant time, so that timing tells nothing about a near miss.
    pub(super) fn find(&self, key: &str) -> Option<ServiceGrants> {
        if key.len() > API_KEY_MAX_BYTES {
            return None;
        }
        let digest = <[u8; 32]>::from(Sha256::digest(key.as_bytes()));
        // usize::MAX stands for "none": a Vec never has that many elements.
        let mut found = u64::MAX;
        for (index, (candidate, _)) in self.keys.iter().enumerate() {
            let equal: Choice = candidate[..].ct_eq(&digest[..]);
            found.conditional_assign(&(index as u64), equal);
        }
        let index = usize::try_from(found).ok()?;
        self.keys.get(index).map(|(_, grants)| grants.clone())
    }
}

fn parse_sha256(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut digest = [0; 32];
    for (byte, pair) in digest.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(digest)
}

fn parse_scope(field: &str, texts: &[String]) -> Result<Scope, AuthConfigError> {
    if texts == [EVERYTHING] {
        return Ok(Scope::Everything);
    }
    let mut patterns = Vec::with_capacity(texts.len());
    for (index, text) in texts.iter().enumerate() {
        let pattern = Pattern::parse(text).map_err(|error| {
            AuthConfigError::new(format!("{field}[{index}]"), error.to_string())
        })?;
        patterns.push(pattern);
    }
    Ok(Scope::Patterns(patterns.into()))
}

/// The SHA-256 of an API key as its configuration wants it.
pub fn api_key_sha256(key: &str) -> String {
    use std::fmt::Write;
    let mut text = String::with_capacity(64);
    for byte in Sha256::digest(key.as_bytes()) {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{AuthConfig, Authenticator, BearerError, Caller};
    use protocol::Channel;

    fn key(name: &str, key: &str, publish: &[&str]) -> ApiKeyConfig {
        ApiKeyConfig {
            name: name.to_owned(),
            sha256: api_key_sha256(key),
            publish: publish.iter().map(|text| (*text).to_owned()).collect(),
            read: Vec::new(),
            members: Vec::new(),
            admin: false,
        }
    }

    fn authenticator(api_keys: Vec<ApiKeyConfig>) -> Result<Authenticator, AuthConfigError> {
        Authenticator::new(&AuthConfig {
            api_keys,
            ..AuthConfig::default()
        })
    }

    #[test]
    fn the_digest_is_what_sha256sum_prints() {
        // FIPS 180-2, the example "abc".
        assert_eq!(
            api_key_sha256("abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn a_key_gets_its_own_grants_and_no_more() {
        let auth = authenticator(vec![
            key("billing", "rj_billing", &["user:*"]),
            key("prices", "rj_prices", &["topic:prices"]),
            key("all", "rj_all", &["*:*"]),
        ])
        .unwrap();
        let inbox = Channel::parse("user:42").unwrap();
        let prices = Channel::parse("topic:prices").unwrap();
        let may = |credential: &str| {
            let caller = auth.verify_bearer(credential, 0).unwrap();
            (
                caller.may_publish(&inbox),
                caller.may_publish(&prices),
                caller.may_read(&inbox),
            )
        };
        assert_eq!(may("rj_billing"), (true, false, false));
        assert_eq!(may("rj_prices"), (false, true, false));
        assert_eq!(may("rj_all"), (true, true, false));
        let Ok(Caller::Service(grants)) = auth.verify_bearer("rj_prices", 0) else {
            panic!("not a service");
        };
        assert_eq!(&*grants.name, "prices");
    }

    #[test]
    fn unknown_and_oversized_keys_are_refused() {
        let long = format!("rj_{}", "x".repeat(API_KEY_MAX_BYTES));
        let auth = authenticator(vec![key("a", "rj_a", &[]), key("long", &long, &[])]).unwrap();
        for credential in ["rj_", "rj_b", "rj_A", "rj_a ", long.as_str()] {
            assert_eq!(
                auth.verify_bearer(credential, 0),
                Err(BearerError::UnknownApiKey),
                "{credential:?}"
            );
        }
    }

    #[test]
    fn a_bad_key_configuration_names_its_field() {
        let cases = [
            (key("a b", "rj_a", &[]), "api_keys[1].name"),
            (key("first", "rj_a", &[]), "api_keys[1].name"),
            (
                key("a", "rj_a", &["topic:*", "*"]),
                "api_keys[1].publish[1]",
            ),
            (
                // Everything is said alone, so that nobody overlooks it.
                key("a", "rj_a", &["topic:*", "*:*"]),
                "api_keys[1].publish[1]",
            ),
            (
                ApiKeyConfig {
                    sha256: "abc".to_owned(),
                    ..key("a", "rj_a", &[])
                },
                "api_keys[1].sha256",
            ),
        ];
        for (config, field) in cases {
            let error = authenticator(vec![key("first", "rj_first", &[]), config]).unwrap_err();
            assert_eq!(error.field, field, "{error}");
        }
    }
}
