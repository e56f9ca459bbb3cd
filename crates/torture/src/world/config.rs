//! The configuration of edges and archivers, and the tokens of clients.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::Plan;

const SECRET: &str = "the-secret-of-the-fault-harness-is-long-enough";
/// May publish everywhere.
pub(crate) const API_KEY: &str = "rj_torture_key_that_may_do_everything";
/// May not publish.
pub(crate) const READ_ONLY_KEY: &str = "rj_torture_key_that_may_only_read";

/// Every wait is shorter than in production, so that a run sees many of them.
pub(super) fn text(plan: &Plan, nats: &[String], store: &str) -> String {
    let urls: Vec<String> = nats.iter().map(|url| format!("\"{url}\"")).collect();
    let urls = urls.join(", ");
    let (all, read) = (digest(API_KEY), digest(READ_ONLY_KEY));
    let Plan {
        backplane, archive, ..
    } = plan;
    format!(
        r#"
[log]
format = "text"

[edge.drain]
unready_ms = 200
spread_ms = 500
deadline_ms = 3000

[edge.limits]
ping_ms = 1500
retry_min_ms = 100
retry_max_ms = 1000
window_bytes = 1048576

[[edge.auth.keys]]
alg = "HS256"
secret = "{SECRET}"

[[edge.auth.api_keys]]
name = "all"
sha256 = "{all}"
publish = ["*:*"]
read = ["*:*"]
admin = true

[[edge.auth.api_keys]]
name = "reader"
sha256 = "{read}"
read = ["*:*"]

[store]
url = "{store}"

[store.archive]
lease_ms = 1000
batch_messages = 50
{archive}

[backplane]
urls = [{urls}]
publish_timeout_ms = 2000
{backplane}
"#
    )
}

fn digest(key: &str) -> String {
    let digest = Sha256::digest(key.as_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A token of a user who may do everything in every room.
pub(crate) fn token(user: &str, valid_s: i64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_or(0, |it| i64::try_from(it.as_secs()).unwrap_or(i64::MAX));
    let rooms = ["room:*"];
    let claims = json!({
        "sub": user,
        "exp": now.saturating_add(valid_s),
        "rejoin": { "subscribe": rooms, "publish": rooms },
    });
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    // Claims of texts and numbers can always be written; an empty token would be refused.
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key).unwrap_or_default()
}

/// Lets another account pass through a folder.
pub(super) fn open_to_all(folder: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755))
}
