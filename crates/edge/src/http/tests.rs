use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use axum::routing::get;
use delivery::log::{Log, Page, PageError, PageRequest, Stream};
use delivery::publish::{Publication, Publish, PublishError, Published, Publisher};
use delivery::{DeliveryLimits, Hub, Message, Tail, TailEvent, window};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use protocol::{Channel, Cursor, Epoch, MessageId, UserId};
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::auth::api_key::api_key_sha256;
use crate::auth::token::ChannelClaims;
use crate::auth::{
    ApiKeyConfig, AuthConfig, Authenticator, Claims, KeyConfig, Pattern, Secret, TokenAlgorithm,
    mint, unix_now_s,
};
use crate::origin::OriginConfig;
use crate::{Edge, EdgeConfig, EdgeParts, Phase};

mod admin;
mod admission;
mod batch;
mod catch_up;
mod chain;
mod devices;
mod events;
mod harness;
mod history;
mod inbox;
mod limits;
mod metrics;
mod pages;
mod poll;
mod presence;
mod publish;
mod rights;
mod rooms;
mod secured;
mod sse;

const EPOCH: Epoch = Epoch(255);
const SERVICE_KEY: &str = "rj_test_service";
const READER_KEY: &str = "rj_test_reader";
const ADMIN_KEY: &str = "rj_test_admin";

/// What a test's publisher does with a message.
type Verdict = fn(&Publication) -> Result<bool, PublishError>;

/// Stands in the place of the backplane: these tests are about the API, and
/// need refusals at will. Real ones are tested over a real nats-server.
struct Recorder {
    verdict: Verdict,
    published: Mutex<Vec<Publication>>,
}

impl Publish for Recorder {
    fn publish(&self, publication: Publication) -> BoxFuture<'_, Result<Published, PublishError>> {
        async move {
            let duplicate = (self.verdict)(&publication)?;
            let mut published = self.published.lock();
            published.push(publication);
            Ok(Published {
                cursor: Cursor::new(EPOCH, published.len() as u64),
                duplicate,
            })
        }
        .boxed()
    }
}

/// A stream that holds nothing below the window.
struct EmptyStream;

impl Log for EmptyStream {
    fn page(&self, request: PageRequest) -> BoxFuture<'_, Result<Page, PageError>> {
        let known = request.after.epoch == EPOCH;
        async move {
            match known {
                true => Err(PageError::Unavailable {
                    retry_after: Duration::from_millis(1_500),
                    reason: "test".to_owned(),
                }),
                false => Err(PageError::UnknownEpoch),
            }
        }
        .boxed()
    }

    fn earliest(&self, _: Channel) -> BoxFuture<'_, Result<Cursor, PageError>> {
        async { Ok(Cursor::new(EPOCH, 0)) }.boxed()
    }

    fn before_last(
        &self,
        _: Channel,
        _: Cursor,
        _: usize,
    ) -> BoxFuture<'_, Result<Cursor, PageError>> {
        async { Ok(Cursor::new(EPOCH, 0)) }.boxed()
    }
}

impl Stream for EmptyStream {
    fn head(&self, _: u16) -> BoxFuture<'_, Result<Cursor, PageError>> {
        async { Ok(Cursor::new(EPOCH, 10)) }.boxed()
    }
}

/// Fills a window with ten messages in `room:1`, from the stream's start.
struct TenMessages {
    events: std::vec::IntoIter<TailEvent>,
}

impl TenMessages {
    fn new() -> Self {
        let messages = (1..=10).map(|seq| Message {
            channel: channel("room:1"),
            position: Cursor::new(EPOCH, seq),
            prev: 0,
            id: Some(MessageId::parse(&format!("m-{seq}")).unwrap()),
            kind: "chat".into(),
            sender: None,
            time_ms: 1_700_000_000_000,
            data: format!("{{\"n\":{seq}}}").into(),
            traceparent: None,
        });
        let events = vec![
            TailEvent::Started {
                after: Cursor::new(EPOCH, 0),
                last: 10,
            },
            TailEvent::Messages {
                messages: messages.collect(),
                epoch: EPOCH,
                through: 10,
            },
        ];
        Self {
            events: events.into_iter(),
        }
    }
}

impl Tail for TenMessages {
    async fn next(&mut self) -> TailEvent {
        match self.events.next() {
            Some(event) => event,
            None => std::future::pending().await,
        }
    }
}

struct Api {
    edge: Edge,
    router: Router,
    recorder: Arc<Recorder>,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    text: String,
    body: Value,
}

fn channel(text: &str) -> Channel {
    Channel::parse(text).unwrap()
}

fn auth_config() -> AuthConfig {
    let all = || vec!["*:*".to_owned()];
    let key = |name: &str, key: &str, publish: Vec<String>| ApiKeyConfig {
        name: name.to_owned(),
        sha256: api_key_sha256(key),
        publish,
        read: all(),
        members: Vec::new(),
        admin: false,
    };
    AuthConfig {
        keys: vec![KeyConfig {
            alg: TokenAlgorithm::HS256,
            kid: None,
            secret: Some(Secret::new("0123456789abcdef0123456789abcdef")),
            secret_file: None,
            public_key_pem: None,
            public_key_pem_file: None,
        }],
        api_keys: vec![
            key("service", SERVICE_KEY, all()),
            key("reader", READER_KEY, Vec::new()),
            ApiKeyConfig {
                read: Vec::new(),
                admin: true,
                ..key("admin", ADMIN_KEY, Vec::new())
            },
        ],
        ..AuthConfig::default()
    }
}

fn token(user: &str, ttl_s: i64) -> String {
    let claims = Claims {
        sub: UserId::parse(user).unwrap(),
        exp: unix_now_s().checked_add_signed(ttl_s).unwrap(),
        iat: None,
        nbf: None,
        jti: None,
        iss: None,
        aud: None,
        rejoin: ChannelClaims {
            subscribe: vec![Pattern::parse("room:1").unwrap()],
            publish: vec![Pattern::parse("topic:*").unwrap()],
        },
    };
    mint(&auth_config(), &claims).unwrap().expose().to_owned()
}

impl Api {
    fn new() -> Self {
        Self::with(|_| Ok(false), |_| {})
    }

    fn with(verdict: Verdict, configure: fn(&mut EdgeConfig)) -> Self {
        let mut config = EdgeConfig {
            auth: auth_config(),
            origins: OriginConfig {
                allowed: vec!["https://app.example.com".to_owned()],
            },
            ..EdgeConfig::default()
        };
        configure(&mut config);
        let recorder = Arc::new(Recorder {
            verdict,
            published: Mutex::default(),
        });
        let edge = Edge::new(EdgeParts {
            auth: Authenticator::new(&config.auth).unwrap(),
            config,
            hub: Hub::new(1, None, Arc::new(EmptyStream), DeliveryLimits::default()),
            publish: recorder.clone(),
            signals: None,
            controls: None,
            members: None,
            receipts: None,
            access: None,
            fleet: None,
            log: None,
        });
        // A route with a defect, under the same chain as all others.
        let routes = super::routes(&edge).route("/panics", get(defect));
        let router = super::layered(&edge, routes);
        Self {
            edge,
            router,
            recorder,
        }
    }

    /// The same with a filled window.
    async fn filled() -> Self {
        let api = Self::new();
        let window = Arc::clone(&api.edge.hub().windows()[0]);
        tokio::spawn({
            let window = Arc::clone(&window);
            async move { window::fill(TenMessages::new(), &window).await }
        });
        window.wait_filled().await;
        api
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let headers = response.headers().clone();
        let bytes = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        Answer {
            status,
            headers,
            text,
            body,
        }
    }

    async fn get(&self, path: &str, bearer: &str) -> Answer {
        self.send(request(Method::GET, path, bearer, Body::empty()))
            .await
    }

    async fn post(&self, path: &str, bearer: &str, body: impl Into<Body>) -> Answer {
        self.send(request(Method::POST, path, bearer, body.into()))
            .await
    }

    fn published(&self) -> Vec<Publication> {
        self.recorder.published.lock().clone()
    }
}

async fn defect() {
    panic!("this handler has a defect");
}

fn request(method: Method, path: &str, bearer: &str, body: Body) -> Request<Body> {
    let request = Request::builder().method(method).uri(path);
    let request = match bearer {
        "" => request,
        bearer => request.header(header::AUTHORIZATION, format!("Bearer {bearer}")),
    };
    request.body(body).unwrap()
}

impl Answer {
    /// The error's code, after checking that the whole body is consistent.
    fn code(&self) -> &str {
        let error = &self.body["error"];
        let code = error["code"].as_str().unwrap_or("(no error)");
        let known = protocol::ErrorCode::parse(code).map(|code| code.is_retryable());
        assert_eq!(known, error["retryable"].as_bool(), "{}", self.body);
        assert_eq!(
            error["retry_after_ms"].is_number(),
            self.headers.contains_key(header::RETRY_AFTER),
            "{}",
            self.body
        );
        code
    }
}
