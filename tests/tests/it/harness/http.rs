//! The HTTP API, as a service would use it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use protocol::{Channel, Cursor};
use serde_json::Value;

use super::SOON;

/// The API key that the edges under test know: it may publish and read everywhere.
pub(crate) const API_KEY: &str = "rj_test_key_of_the_integration_tests";

/// A client of one address.
#[derive(Debug, Clone)]
pub(crate) struct Http {
    base: String,
    client: reqwest::Client,
}

/// A status and a body.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Value,
}

/// A page for Prometheus.
#[derive(Debug)]
pub(crate) struct Metrics(String);

impl Metrics {
    /// The sum of all samples of a metric; fails the test if there is none.
    #[track_caller]
    pub(crate) fn sum(&self, name: &str) -> f64 {
        let value = |line: &str| {
            let rest = line.strip_prefix(name)?;
            let of_this_name = rest.starts_with('{') || rest.starts_with(' ');
            let value = rest.rsplit(' ').next()?;
            of_this_name.then(|| value.parse::<f64>().expect("a number"))
        };
        let values: Vec<f64> = self.0.lines().filter_map(value).collect();
        assert!(!values.is_empty(), "no {name} in {}", self.0);
        values.iter().sum()
    }
}

impl Answer {
    /// The position that a publish got.
    pub(crate) fn cursor(&self) -> Cursor {
        assert_eq!(self.status, 200, "{self:?}");
        let text = self.body["cursor"].as_str().expect("a cursor");
        text.parse().expect("a cursor")
    }

    /// `error.code`.
    pub(crate) fn error_code(&self) -> &str {
        self.body["error"]["code"].as_str().unwrap_or("no error")
    }
}

impl Http {
    pub(crate) fn new(address: SocketAddr) -> Self {
        let client = reqwest::Client::builder()
            .timeout(Duration::from_secs(30))
            // Each request gets a connection of its own, so that a balancer spreads them.
            .pool_max_idle_per_host(0)
            .build();
        Self {
            base: format!("http://{address}"),
            client: client.expect("a client without TLS"),
        }
    }

    /// Publishes one message under an id, with the API key.
    pub(crate) async fn publish(&self, channel: &Channel, id: &str, data: &str) -> Answer {
        let path = format!("/v1/channels/{channel}/messages?id={id}");
        self.post(&path, data.to_owned()).await
    }

    /// Publishes one message with a trace context.
    pub(crate) async fn publish_traced(&self, channel: &Channel, traceparent: &str) -> Answer {
        let url = format!("{}/v1/channels/{channel}/messages", self.base);
        let request = self.client.post(url).header("traceparent", traceparent);
        answer(request.bearer_auth(API_KEY).body("1")).await
    }

    /// Publishes messages to one channel in order, in batches, until all are acknowledged; returns their positions.
    pub(crate) async fn publish_all(&self, channel: &Channel, texts: &[String]) -> Vec<Cursor> {
        let end = Instant::now() + SOON;
        let mut cursors = Vec::with_capacity(texts.len());
        while cursors.len() < texts.len() {
            // Ids are short, whatever the text.
            let id = |text: &String| text.chars().take(64).collect::<String>();
            let item = |text: &String| serde_json::json!({ "channel": channel, "id": id(text), "data": text });
            let body: Vec<Value> = texts[cursors.len()..].iter().take(100).map(item).collect();
            let answer = self
                .post("/v1/messages", Value::from(body).to_string())
                .await;
            let results = answer.body["results"].as_array().cloned();
            for body in results.unwrap_or_else(|| panic!("{answer:?}")) {
                // What is not known to be stored is tried again, and with it all behind it.
                if body["error"]["retryable"] == true {
                    assert!(Instant::now() < end, "{body}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    break;
                }
                let status = answer.status;
                cursors.push(Answer { status, body }.cursor());
            }
        }
        cursors
    }

    /// One try of a POST with the API key. A broken connection is status 0.
    pub(crate) async fn post(&self, path: &str, body: String) -> Answer {
        let request = self.client.post(format!("{}{path}", self.base));
        answer(request.bearer_auth(API_KEY).body(body)).await
    }

    /// One try of a POST with a credential.
    pub(crate) async fn post_as(&self, credential: &str, path: &str, body: &str) -> Answer {
        let request = self.client.post(format!("{}{path}", self.base));
        answer(request.bearer_auth(credential).body(body.to_owned())).await
    }

    /// A GET whose answer is read piece by piece, with a credential or without.
    pub(crate) async fn open(&self, credential: Option<&str>, path: &str) -> reqwest::Response {
        let mut request = self.client.get(format!("{}{path}", self.base));
        if let Some(credential) = credential {
            request = request.bearer_auth(credential);
        }
        request.send().await.expect("an answer")
    }

    /// One try of a PUT without a body, with the API key.
    pub(crate) async fn put(&self, path: &str) -> Answer {
        let request = self.client.put(format!("{}{path}", self.base));
        answer(request.bearer_auth(API_KEY)).await
    }

    /// One try of a DELETE with the API key.
    pub(crate) async fn delete(&self, path: &str) -> Answer {
        let request = self.client.delete(format!("{}{path}", self.base));
        answer(request.bearer_auth(API_KEY)).await
    }

    /// One try of a GET with the API key.
    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.get_as(API_KEY, path).await
    }

    /// One try of a GET with a credential.
    pub(crate) async fn get_as(&self, credential: &str, path: &str) -> Answer {
        let request = self.client.get(format!("{}{path}", self.base));
        answer(request.bearer_auth(credential)).await
    }

    /// What `/readyz` says; nothing when nobody answers.
    pub(crate) async fn ready(&self) -> Option<bool> {
        match self.get("/readyz").await.status {
            0 => None,
            status => Some(status == 200),
        }
    }

    /// What `/metrics` says.
    pub(crate) async fn metrics(&self) -> Metrics {
        let answer = self.get("/metrics").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        Metrics(answer.body.as_str().unwrap_or_default().to_owned())
    }

    /// Whether `/healthz` answers.
    pub(crate) async fn alive(&self) -> bool {
        self.get("/healthz").await.status == 200
    }
}

async fn answer(request: reqwest::RequestBuilder) -> Answer {
    let sent = async {
        let response = request.send().await?;
        let status = response.status().as_u16();
        Ok::<_, reqwest::Error>((status, response.text().await?))
    };
    match sent.await {
        Ok((status, text)) => Answer {
            status,
            body: serde_json::from_str(&text).unwrap_or(Value::String(text)),
        },
        Err(error) => Answer {
            status: 0,
            body: Value::String(error.to_string()),
        },
    }
}
