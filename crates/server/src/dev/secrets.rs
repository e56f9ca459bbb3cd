//! The keys of one demonstration: random, and kept with its data.

use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::Context;
use edge::auth::api_key::api_key_sha256;
use edge::auth::token::ChannelClaims;
use edge::auth::{
    AuthConfig, Claims, KeyConfig, Pattern, Secret, TokenAlgorithm, mint, unix_now_s,
};
use protocol::UserId;
use rand::Rng;
use rand::distr::Alphanumeric;
use serde::{Deserialize, Serialize};

/// A working day, so that a terminal left open goes on working.
const TOKEN_TTL_S: u64 = 24 * 60 * 60;

/// The room that both users of the demonstration are in.
pub(super) const ROOM: &str = "room:lobby";

/// The keys.
#[derive(Serialize, Deserialize)]
pub(super) struct Secrets {
    /// Signs tokens.
    token_secret: String,
    /// Publishes everywhere.
    pub(super) api_key: String,
}

impl Secrets {
    /// Those of an earlier run in this folder, or new ones.
    pub(super) fn load_or_make(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join("secrets.json");
        match std::fs::read(&path) {
            Ok(bytes) => {
                return serde_json::from_slice(&bytes)
                    .with_context(|| format!("{} is damaged", path.display()));
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| path.display().to_string()),
        }
        let secrets = Self {
            token_secret: random_text(48),
            api_key: format!("rj_dev_{}", random_text(32)),
        };
        write_private(&path, &serde_json::to_vec(&secrets)?)?;
        Ok(secrets)
    }

    /// The configuration file of the edges; name and address come from each
    /// one's environment.
    pub(super) fn edge_config(&self, nats: &str, database: Option<&str>) -> String {
        let mut text = String::from("# Written by `rejoin dev` at every start.\n");
        // Every value is ours and free of quotes; writing to a String cannot
        // fail.
        let _ = write!(
            text,
            r#"
[log]
format = "text"

[edge]
dev = true

[edge.drain]
# Ctrl-C should not take long; production has the defaults.
unready_ms = 0
spread_ms = 500
deadline_ms = 3000

[[edge.auth.keys]]
alg = "HS256"
secret = "{token_secret}"

[[edge.auth.api_keys]]
name = "dev"
sha256 = "{api_key_sha256}"
publish = ["*:*"]
read = ["*:*"]
admin = true

[backplane]
urls = ["{nats}"]
"#,
            token_secret = self.token_secret,
            api_key_sha256 = api_key_sha256(&self.api_key),
        );
        if let Some(url) = database {
            let _ = write!(text, "\n[store]\nurl = \"{url}\"\n");
        }
        text
    }

    /// A token for a user of the demonstration.
    pub(super) fn token(&self, user: &str) -> anyhow::Result<Secret> {
        let auth = AuthConfig {
            keys: vec![KeyConfig {
                alg: TokenAlgorithm::HS256,
                kid: None,
                secret: Some(Secret::new(self.token_secret.clone())),
                secret_file: None,
                public_key_pem: None,
                public_key_pem_file: None,
            }],
            ..AuthConfig::default()
        };
        let room = Pattern::parse(ROOM)?;
        let claims = Claims {
            sub: UserId::parse(user)?,
            exp: unix_now_s() + TOKEN_TTL_S,
            iat: None,
            nbf: None,
            jti: None,
            iss: None,
            aud: None,
            rejoin: ChannelClaims {
                subscribe: vec![room.clone(), Pattern::parse("topic:*")?],
                publish: vec![room],
            },
        };
        Ok(mint(&auth, &claims)?)
    }
}

/// Random letters and digits.
pub(super) fn random_text(chars: usize) -> String {
    let letters = rand::rng().sample_iter(Alphanumeric).take(chars);
    letters.map(char::from).collect()
}

/// Writes a file that only this user can read.
pub(super) fn write_private(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .with_context(|| path.display().to_string())?;
    file.write_all(bytes)?;
    Ok(())
}
