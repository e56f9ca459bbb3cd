//! Clients where no WebSocket passes: long-poll and server-sent events.

use std::time::Duration;

use bytes::BytesMut;
use protocol::{Cursor, Encoding, ServerBody, ServerFrame};
use serde_json::Value;
use tokio::time::{sleep, timeout};

use super::seen::{Next, Seen};
use super::{Phase, Scene, http};
use crate::world::token;

/// A poll that waits is answered within this, plus what the machine takes.
const POLL_TIMEOUT: Duration = Duration::from_secs(6);
/// An event stream says something within two pings.
const EVENT_SILENCE: Duration = Duration::from_secs(4);
/// An event that is longer is none.
const EVENT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// After a failed request.
const PAUSE: Duration = Duration::from_millis(150);

/// Polls until the run is over. Each answer is a session of its own.
pub(super) async fn poll(scene: Scene, mut seen: Seen) {
    let client = http::client(POLL_TIMEOUT);
    while *scene.phase.borrow() != Phase::End {
        let from = seen.begin();
        let url = format!(
            "http://{}/v1/poll?channels={}&from={from}&wait_ms=1000",
            scene.address, seen.channel
        );
        let request = client.get(url).bearer_auth(token("reader", scene.token_s));
        match answer(request).await {
            Some(answer) => take(&mut seen, &answer),
            None => {
                seen.end();
                sleep(PAUSE).await;
            }
        }
    }
    seen.end();
}

async fn answer(request: reqwest::RequestBuilder) -> Option<Value> {
    let response = request.send().await.ok()?.error_for_status().ok()?;
    serde_json::from_str(&response.text().await.ok()?).ok()
}

fn take(seen: &mut Seen, answer: &Value) {
    for frame in answer["frames"].as_array().into_iter().flatten() {
        if let Some(frame) = decode(frame.to_string().as_bytes()) {
            seen.frame(&frame);
        }
    }
    let cursor = answer["cursors"][0].as_str().and_then(|it| it.parse().ok());
    if let Some(cursor) = cursor {
        seen.moved(cursor);
    }
}

fn decode(json: &[u8]) -> Option<ServerFrame> {
    protocol::decode_server(Encoding::Json, json).ok()
}

/// Reads event streams until the run is over.
pub(super) async fn events(scene: Scene, mut seen: Seen) {
    // No limit on the whole: a stream does not end.
    let client = http::client(Duration::from_secs(3_600));
    while *scene.phase.borrow() != Phase::End {
        let from = seen.begin();
        let url = format!(
            "http://{}/v1/events?channels={}&from={from}",
            scene.address, seen.channel
        );
        let request = client.get(url).bearer_auth(token("reader", scene.token_s));
        if let Ok(Ok(response)) = timeout(EVENT_SILENCE, request.send()).await
            && response.status().is_success()
        {
            stream(response, &scene, &mut seen).await;
        }
        seen.end();
        sleep(PAUSE).await;
    }
}

async fn stream(mut response: reqwest::Response, scene: &Scene, seen: &mut Seen) {
    let mut buffer = BytesMut::new();
    while *scene.phase.borrow() != Phase::End {
        let Ok(Ok(Some(chunk))) = timeout(EVENT_SILENCE, response.chunk()).await else {
            return;
        };
        buffer.extend_from_slice(&chunk);
        while let Some(end) = buffer.windows(2).position(|it| it == b"\n\n") {
            let event = buffer.split_to(end + 2);
            if event_of(&event, seen) == Next::ComeBack {
                return;
            }
        }
        if buffer.len() > EVENT_BYTES_MAX {
            return;
        }
    }
}

/// One event: the frame is its data, and the id is the position after it.
fn event_of(event: &[u8], seen: &mut Seen) -> Next {
    let text = String::from_utf8_lossy(event);
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
    let mut next = Next::GoOn;
    if let Some(frame) = field("data: ").and_then(|data| decode(data.as_bytes())) {
        // The id says what a ping means, for this client.
        if !matches!(frame.body, ServerBody::Ping { .. }) {
            next = seen.frame(&frame);
        }
    }
    let id: Option<Cursor> = field("id: ").and_then(|id| id.parse().ok());
    if let Some(id) = id {
        seen.moved(id);
    }
    next
}
