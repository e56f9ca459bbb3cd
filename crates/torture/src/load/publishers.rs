//! Publishers: each message until it is acknowledged, under one id; sometimes they give up, sometimes they ask again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use client::{ConnectOptions, Connection, RequestError};
use protocol::{Channel, Cursor, ErrorCode, MessageId};
use rand::Rng;
use rand::rngs::StdRng;
use serde_json::Value;
use tokio::time::{sleep, timeout};
use torture::history::{Message, What};

use super::seen::content;
use super::{Phase, Scene, http};
use crate::world::{API_KEY, READ_ONLY_KEY, token};

/// A try without an answer is over after this.
const TRY: Duration = Duration::from_secs(3);
/// When the run calms down, a message that is still open stays so.
const LAST_PATIENCE: Duration = Duration::from_secs(15);

/// Messages that a publisher may ask for again, seconds and faults later.
const OLD_MAX: usize = 200;

/// Who publishes where.
pub(super) struct Writer {
    pub(super) old: Vec<Draft>,
    pub(super) scene: Scene,
    pub(super) channel: Channel,
    pub(super) pace: Duration,
    pub(super) random: StdRng,
}

/// What became of a try.
enum Outcome {
    Acked(Cursor),
    /// Nothing was stored.
    Refused,
    /// It may be stored.
    Unknown,
}

/// A message that is being published.
#[derive(Clone)]
pub(super) struct Draft {
    message: Message,
    id: MessageId,
    content: Arc<str>,
}

impl Writer {
    /// A new message, or one that was acknowledged before.
    fn draft(&mut self) -> Draft {
        if !self.old.is_empty() && self.random.random_bool(0.06) {
            let index = self.random.random_range(0..self.old.len());
            return self.old[index].clone();
        }
        let id = MessageId::random();
        let at = self.scene.recorder.elapsed();
        Draft {
            message: Message {
                channel: self.channel.clone(),
                id: id.as_str().into(),
            },
            content: content(id.as_str(), at).into(),
            id,
        }
    }

    fn begins(&self, draft: &Draft) {
        self.scene.recorder.note(What::Publish {
            message: draft.message.clone(),
            content: draft.content.clone(),
        });
    }

    fn note(&self, draft: &Draft, outcome: &Outcome) {
        let message = draft.message.clone();
        self.scene.recorder.note(match outcome {
            Outcome::Acked(cursor) => {
                self.scene.progress.acked(&self.channel, *cursor);
                What::Acked {
                    message,
                    cursor: *cursor,
                }
            }
            Outcome::Refused => What::Refused { message },
            Outcome::Unknown => What::Unknown { message },
        });
    }

    /// Whether to go on with the next message; waits while nobody is to publish.
    async fn goes_on(&mut self) -> bool {
        let pause = self.random.random_range(Duration::ZERO..self.pace);
        sleep(pause).await;
        let on = |phase: &Phase| *phase != Phase::Hush;
        match self.scene.phase.wait_for(on).await {
            Ok(phase) => *phase == Phase::Storm,
            Err(_) => false,
        }
    }

    fn remember(&mut self, draft: &Draft) {
        if self.old.len() >= OLD_MAX {
            let index = self.random.random_range(0..OLD_MAX);
            self.old.swap_remove(index);
        }
        self.old.push(draft.clone());
    }

    /// Whether to try a message again.
    async fn tries_again(&mut self, since: Instant) -> bool {
        let calm = *self.scene.phase.borrow() >= Phase::Calm;
        if calm && since.elapsed() > LAST_PATIENCE {
            return false;
        }
        let pause = self.random.random_range(30..250);
        sleep(Duration::from_millis(pause)).await;
        // Some have lost what they wanted to say.
        !self.random.random_bool(0.02)
    }
}

/// Publishes over HTTP until the run calms down.
pub(super) async fn http(mut writer: Writer) {
    let client = http::client(TRY);
    while writer.goes_on().await {
        let draft = writer.draft();
        // Some are not allowed to.
        let key = match writer.random.random_bool(0.03) {
            true => READ_ONLY_KEY,
            false => API_KEY,
        };
        let begin = Instant::now();
        loop {
            writer.begins(&draft);
            let outcome = post(&client, &writer, &draft, key).await;
            writer.note(&draft, &outcome);
            if let Outcome::Acked(_) = outcome {
                writer.remember(&draft);
            }
            let again = match outcome {
                // Some did not hear the answer.
                Outcome::Acked(_) => writer.random.random_bool(0.05),
                Outcome::Refused => key == API_KEY,
                Outcome::Unknown => true,
            };
            if !again || !writer.tries_again(begin).await {
                break;
            }
        }
    }
}

async fn post(client: &reqwest::Client, writer: &Writer, draft: &Draft, key: &str) -> Outcome {
    let url = format!(
        "http://{}/v1/channels/{}/messages?id={}",
        writer.scene.address, writer.channel, draft.message.id
    );
    let request = client
        .post(url)
        .bearer_auth(key)
        .body(draft.content.to_string());
    let sent = async {
        let response = request.send().await?;
        let status = response.status().as_u16();
        Ok::<_, reqwest::Error>((status, response.text().await?))
    };
    let Ok((status, text)) = sent.await else {
        return Outcome::Unknown;
    };
    let body: Value = serde_json::from_str(&text).unwrap_or_default();
    let code = body["error"]["code"].as_str().unwrap_or_default();
    match (status, body["cursor"].as_str().map(str::parse)) {
        (200, Some(Ok(cursor))) => Outcome::Acked(cursor),
        (403, _) => Outcome::Refused,
        (503, _) if code == "stream_full" => Outcome::Refused,
        (500.., _) => Outcome::Unknown,
        _ => {
            let words = format!("a publish was answered {status} {text}");
            writer.scene.progress.defect(words);
            Outcome::Unknown
        }
    }
}

/// Publishes over a WebSocket until the run calms down.
pub(super) async fn socket(mut writer: Writer) {
    let mut connection = None;
    while writer.goes_on().await {
        let draft = writer.draft();
        let begin = Instant::now();
        loop {
            if connection.is_none() {
                connection = connect(&writer).await;
            }
            let Some(open) = &mut connection else {
                match writer.tries_again(begin).await {
                    true => continue,
                    false => break,
                }
            };
            writer.begins(&draft);
            let (outcome, usable) = publish(open, &writer, &draft).await;
            writer.note(&draft, &outcome);
            if !usable {
                connection = None;
            }
            if let Outcome::Acked(_) = outcome {
                writer.remember(&draft);
            }
            let again = match outcome {
                Outcome::Acked(_) => writer.random.random_bool(0.05),
                Outcome::Refused | Outcome::Unknown => true,
            };
            if !again || !writer.tries_again(begin).await {
                break;
            }
        }
    }
}

async fn connect(writer: &Writer) -> Option<Connection> {
    let url = format!("ws://{}/v1/connect", writer.scene.address);
    let options = ConnectOptions {
        timeout: TRY,
        ..ConnectOptions::default()
    };
    let token = token("writer", writer.scene.token_s);
    let connected = Connection::connect(&url, &token, &options).await;
    connected.ok().map(|(connection, _)| connection)
}

/// One try; also whether the connection is of any more use.
async fn publish(connection: &mut Connection, writer: &Writer, draft: &Draft) -> (Outcome, bool) {
    let data = bytes::Bytes::copy_from_slice(draft.content.as_bytes());
    let publishing = connection.publish(draft.id.clone(), writer.channel.clone(), "", data);
    match timeout(TRY, publishing).await {
        Ok(Ok(published)) => (Outcome::Acked(published.cursor), true),
        Ok(Err(RequestError::Refused(error))) => match error.code {
            ErrorCode::StreamFull => (Outcome::Refused, true),
            code if code.is_retryable() => (Outcome::Unknown, true),
            _ => {
                let words = format!("a publish was refused: {error:?}");
                writer.scene.progress.defect(words);
                (Outcome::Refused, true)
            }
        },
        Ok(Err(RequestError::Closed(_) | RequestError::Unexpected(_))) | Err(_) => {
            (Outcome::Unknown, false)
        }
    }
}
