//! Server-sent events, read one by one as a browser reads them.

use axum::body::BodyDataStream;
use futures_util::StreamExt;

use super::*;

/// Bounds every wait for something that is to happen.
const LONG: Duration = Duration::from_secs(120);

/// One server-sent event.
#[derive(Debug, PartialEq)]
pub(super) struct Event {
    pub(super) key: String,
    pub(super) frame: Value,
    pub(super) id: String,
}

/// The events of an answer, one by one, read as a browser reads them.
pub(super) struct Events {
    body: BodyDataStream,
    text: String,
    pub(super) retry_ms: Option<u64>,
}

impl Events {
    pub(super) async fn open(api: &Api, path: &str, bearer: &str) -> Self {
        Self::send(api, request(Method::GET, path, bearer, Body::empty())).await
    }

    pub(super) async fn send(api: &Api, request: Request<Body>) -> Self {
        let response = api.router.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let kind = &response.headers()[header::CONTENT_TYPE];
        assert_eq!(kind, "text/event-stream");
        Self {
            body: response.into_body().into_data_stream(),
            text: String::new(),
            retry_ms: None,
        }
    }

    /// The next event; `None` once the stream has ended.
    pub(super) async fn next(&mut self) -> Option<Event> {
        loop {
            while let Some((block, rest)) = self.text.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.text = rest;
                if let Some(event) = self.take(&block) {
                    return Some(event);
                }
            }
            let chunk = tokio::time::timeout(LONG, self.body.next()).await;
            let chunk = chunk.expect("nothing came")?.unwrap();
            self.text += std::str::from_utf8(&chunk).unwrap();
        }
    }

    /// The next event of this kind; only `connected`, `subscribed` and
    /// `ping` may come before it.
    pub(super) async fn expect(&mut self, key: &str) -> Event {
        loop {
            let event = self.next().await.expect("the stream ended");
            if event.key == key {
                return event;
            }
            let skipped = ["connected", "subscribed", "ping", "live"];
            assert!(skipped.contains(&&*event.key), "{event:?}");
        }
    }

    fn take(&mut self, block: &str) -> Option<Event> {
        let (mut key, mut data, mut id) = (None, None, None);
        for line in block.lines() {
            let (field, value) = line.split_once(": ").expect("a field and its value");
            match field {
                "event" => key = Some(value.to_owned()),
                "data" => data = Some(value.to_owned()),
                "id" => id = Some(value.to_owned()),
                "retry" => self.retry_ms = Some(value.parse().unwrap()),
                other => panic!("unknown field {other}"),
            }
        }
        let frame: Value = serde_json::from_str(&data?).unwrap();
        let key = key.unwrap();
        assert!(frame.get(&key).is_some(), "{key} is not the key of {frame}");
        Some(Event {
            key,
            frame,
            id: id.unwrap(),
        })
    }
}
