//! The application decides, over HTTP, about what neither a token nor a
//! membership grants.
//!
//! Its answer is kept for some seconds. No answer, or one that is not
//! understood, grants nothing. A subscription that it granted lasts until
//! the token ends or is revoked, or the client subscribes anew.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use delivery::members::StoreFailure;
use parking_lot::Mutex;
use protocol::{Channel, UserId};
use reqwest::Client;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::config::{AuthConfigError, Secret, read_key_file};
use super::unix_now_s;
use crate::outbound::{self, OutboundError};
use crate::webhook::{ID_HEADER, SIGNATURE_HEADER, Signer, TIMESTAMP_HEADER};

/// Longest answer, in bytes: it is one flag.
const ANSWER_BYTES_MAX: usize = 4 * 1024;

/// Answers that are kept; beyond, all are asked for anew. Some 200 bytes each.
const ANSWERS_MAX: usize = 65_536;

/// When it is worth asking again where there was no answer.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Whom to ask.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuthorizerConfig {
    /// `https://…`; gets a POST for each question.
    pub url: String,
    /// Signs the questions, after Standard Webhooks: `whsec_` and base64 of
    /// 24 to 64 bytes. Exactly one of it and `secret_file` is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<Secret>,
    /// A file with the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_file: Option<PathBuf>,
    /// How long an answer may take, in milliseconds; 100 to 10000. Default:
    /// 2000.
    pub timeout_ms: u32,
    /// How long an answer is kept, in seconds; 0 to 300. Default: 10.
    pub cache_s: u32,
    /// Questions under way at a time; more wait for their turn, within
    /// `timeout_ms`. 1 to 1000. Default: 64.
    pub concurrency: usize,
}

impl Default for AuthorizerConfig {
    fn default() -> Self {
        Self {
            url: String::new(),
            secret: None,
            secret_file: None,
            timeout_ms: 2_000,
            cache_s: 10,
            concurrency: 64,
        }
    }
}

/// What somebody wants to do in a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Subscribe, replay, read, see who is there.
    Read,
    /// Publish, signal.
    Publish,
}

impl Action {
    fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Publish => "publish",
        }
    }
}

type Question = (UserId, Channel, Action);

/// Asks the application.
pub struct Authorizer {
    config: AuthorizerConfig,
    client: Client,
    signer: Signer,
    turns: Semaphore,
    answers: Mutex<HashMap<Question, (bool, Instant)>>,
}

impl std::fmt::Debug for Authorizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authorizer")
    }
}

#[derive(Debug, thiserror::Error)]
enum NoAnswer {
    #[error(transparent)]
    Outbound(#[from] OutboundError),
    #[error("the answer is not {{\"allow\": true or false}}")]
    NotUnderstood,
    #[error("too many questions are under way")]
    Busy,
}

impl Authorizer {
    pub(super) fn new(config: &AuthorizerConfig) -> Result<Arc<Self>, AuthConfigError> {
        let bad = |field: &str, reason: String| {
            AuthConfigError::new(format!("authorizer.{field}"), reason)
        };
        outbound::check_url(&config.url).map_err(|reason| bad("url", reason))?;
        if !(100..=10_000).contains(&config.timeout_ms) {
            return Err(bad("timeout_ms", "100 to 10000".to_owned()));
        }
        if config.cache_s > 300 {
            return Err(bad("cache_s", "0 to 300".to_owned()));
        }
        if !(1..=1_000).contains(&config.concurrency) {
            return Err(bad("concurrency", "1 to 1000".to_owned()));
        }
        let secret = match (&config.secret, &config.secret_file) {
            (Some(secret), None) => secret.expose().to_owned(),
            (None, Some(file)) => {
                let bytes = read_key_file("authorizer.secret_file", file)?;
                String::from_utf8(bytes).unwrap_or_default()
            }
            (Some(_), Some(_)) | (None, None) => {
                let reason = "exactly one of secret and secret_file is needed";
                return Err(bad("secret", reason.to_owned()));
            }
        };
        let signer = Signer::new(&secret).map_err(|reason| bad("secret", reason.to_owned()))?;
        let timeout = Duration::from_millis(config.timeout_ms.into());
        let client = outbound::client(timeout).map_err(|error| bad("url", error.to_string()))?;
        Ok(Arc::new(Self {
            client,
            signer,
            turns: Semaphore::new(config.concurrency),
            answers: Mutex::default(),
            config: config.clone(),
        }))
    }

    /// Whether the application allows it. `Unavailable` where it does not
    /// say.
    pub async fn allows(
        &self,
        user: UserId,
        channel: Channel,
        action: Action,
    ) -> Result<bool, StoreFailure> {
        let question = (user, channel, action);
        if let Some(allowed) = self.kept(&question) {
            return Ok(allowed);
        }
        match self.ask(&question).await {
            Ok(allowed) => {
                self.keep(question, allowed);
                Ok(allowed)
            }
            Err(error) => {
                tracing::warn!(%error, "authorizer.no_answer");
                Err(StoreFailure::Unavailable {
                    retry_after: RETRY_AFTER,
                    reason: error.to_string(),
                })
            }
        }
    }

    async fn ask(&self, (user, channel, action): &Question) -> Result<bool, NoAnswer> {
        #[derive(Deserialize)]
        struct Answer {
            allow: bool,
        }
        let timeout = Duration::from_millis(self.config.timeout_ms.into());
        let turn = tokio::time::timeout(timeout, self.turns.acquire()).await;
        let Ok(Ok(_turn)) = turn else {
            return Err(NoAnswer::Busy);
        };
        let body = json!({ "user": user, "channel": channel, "action": action.as_str() });
        let body = body.to_string();
        let id = format!("ask_{:032x}", rand::random::<u128>());
        let now_s = unix_now_s();
        let signature = self.signer.sign(&id, now_s, body.as_bytes());
        let request = self
            .client
            .post(&self.config.url)
            .header("content-type", "application/json")
            .header(ID_HEADER, id)
            .header(TIMESTAMP_HEADER, now_s)
            .header(SIGNATURE_HEADER, signature)
            .body(body);
        let response = request.send().await.map_err(OutboundError::from)?;
        let answer = outbound::body(response, ANSWER_BYTES_MAX).await?;
        let answer: Answer =
            serde_json::from_slice(&answer).map_err(|_| NoAnswer::NotUnderstood)?;
        Ok(answer.allow)
    }

    fn kept(&self, question: &Question) -> Option<bool> {
        let answers = self.answers.lock();
        let (allowed, since) = answers.get(question)?;
        let keep = Duration::from_secs(self.config.cache_s.into());
        (since.elapsed() < keep).then_some(*allowed)
    }

    fn keep(&self, question: Question, allowed: bool) {
        let keep = Duration::from_secs(self.config.cache_s.into());
        let mut answers = self.answers.lock();
        if answers.len() >= ANSWERS_MAX {
            answers.retain(|_, (_, since)| since.elapsed() < keep);
        }
        if answers.len() >= ANSWERS_MAX {
            answers.clear();
        }
        answers.insert(question, (allowed, Instant::now()));
    }
}

#[cfg(test)]
#[path = "authorizer_tests.rs"]
mod tests;
