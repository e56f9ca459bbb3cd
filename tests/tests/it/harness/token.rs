//! Tokens, as an application's login service would sign them.

use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::json;

/// The secret that the edges under test know.
pub(super) const SECRET: &str = "integration-test-secret-of-more-than-32-bytes";

/// What a token says.
#[derive(Debug, Clone)]
pub(crate) struct TokenSpec {
    pub(crate) user: String,
    pub(crate) subscribe: Vec<String>,
    pub(crate) publish: Vec<String>,
    /// From now, in seconds; negative: expired.
    pub(crate) ttl_s: i64,
    /// `jti`.
    pub(crate) id: Option<String>,
    /// `iat`, from now, in seconds.
    pub(crate) issued_s: Option<i64>,
    pub(crate) secret: String,
    pub(crate) algorithm: Algorithm,
}

impl TokenSpec {
    /// A token of a user who may do everything in these channels, for an hour.
    pub(crate) fn new(user: &str, channels: &[&str]) -> Self {
        let channels: Vec<String> = channels.iter().map(|it| (*it).to_owned()).collect();
        Self {
            user: user.to_owned(),
            subscribe: channels.clone(),
            publish: channels,
            ttl_s: 3_600,
            id: None,
            issued_s: None,
            secret: SECRET.to_owned(),
            algorithm: Algorithm::HS256,
        }
    }
}

/// Signs it.
pub(crate) fn sign(spec: &TokenSpec) -> String {
    let mut claims = json!({
        "sub": spec.user,
        "exp": now_s() + spec.ttl_s,
        "rejoin": { "subscribe": spec.subscribe, "publish": spec.publish },
    });
    if let Some(id) = &spec.id {
        claims["jti"] = json!(id);
    }
    if let Some(issued_s) = spec.issued_s {
        claims["iat"] = json!(now_s() + issued_s);
    }
    let key = EncodingKey::from_secret(spec.secret.as_bytes());
    jsonwebtoken::encode(&Header::new(spec.algorithm), &claims, &key).expect("claims are JSON")
}

fn now_s() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    i64::try_from(since.expect("after 1970").as_secs()).expect("before the year 292 billion")
}
