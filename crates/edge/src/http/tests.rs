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

mod events;
mod harness;
mod history;
mod inbox;
mod metrics;
mod poll;
mod rooms;

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

#[tokio::test]
async fn a_service_publishes_bytes_as_they_are() {
    let api = Api::new();
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let mut request = request(
        Method::POST,
        "/v1/channels/user:42/messages",
        SERVICE_KEY,
        Body::from(&b"\x00\xff not JSON"[..]),
    );
    let headers = request.headers_mut();
    headers.insert("rejoin-id", "order-7".parse().unwrap());
    headers.insert("rejoin-type", "invoice".parse().unwrap());
    headers.insert("traceparent", trace.parse().unwrap());
    let answer = api.send(request).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    assert_eq!(
        answer.body,
        json!({
            "id": "order-7",
            "channel": "user:42",
            "cursor": "00000000000000ff-1",
            "duplicate": false,
        })
    );
    let published = api.published();
    assert_eq!(&published[0].data[..], b"\x00\xff not JSON");
    assert_eq!(&*published[0].kind, "invoice");
    assert_eq!(published[0].traceparent.as_deref(), Some(trace));
    assert_eq!(published[0].publisher, Publisher::Service("service".into()));
    assert_eq!(published[0].sender, None);
}

#[tokio::test]
async fn a_missing_id_is_made_and_returned() {
    let api = Api::new();
    let answer = api
        .post("/v1/channels/user:42/messages?type=note", SERVICE_KEY, "{}")
        .await;
    let id = MessageId::parse(answer.body["id"].as_str().unwrap()).unwrap();
    assert!(id.created_ms().is_some(), "not a UUIDv7: {id}");
    assert_eq!(api.published()[0].id, id);
    assert_eq!(&*api.published()[0].kind, "note");
}

#[tokio::test]
async fn a_user_publishes_as_itself_where_its_token_allows() {
    let api = Api::new();
    let alice = token("alice", 60);
    let answer = api
        .post("/v1/channels/topic:x/messages", &alice, "{}")
        .await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    let sender = UserId::parse("alice").unwrap();
    assert_eq!(
        api.published()[0].publisher,
        Publisher::User(sender.clone())
    );
    assert_eq!(api.published()[0].sender, Some(sender));
    for other in ["room:1", "user:alice", "user:bob"] {
        let path = format!("/v1/channels/{other}/messages");
        let answer = api.post(&path, &alice, "{}").await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{other}");
        assert_eq!(answer.code(), "forbidden");
    }
    assert_eq!(api.published().len(), 1);
}

#[tokio::test]
async fn who_is_not_known_is_refused() {
    let api = Api::new();
    let expired = token("alice", -60);
    for bearer in ["", "rj_wrong", "a.b.c", &expired] {
        for method in [Method::POST, Method::GET] {
            let path = "/v1/channels/user:alice/messages";
            let answer = api
                .send(request(method, path, bearer, Body::from("{}")))
                .await;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{bearer:?}");
            assert_eq!(answer.code(), "unauthorized");
            assert!(answer.headers.contains_key(header::WWW_AUTHENTICATE));
        }
    }
    assert!(api.published().is_empty());
}

#[tokio::test]
async fn a_token_in_the_url_is_not_taken() {
    let api = Api::filled().await;
    let path = format!(
        "/v1/channels/room:1/messages?access_token={}",
        token("alice", 60)
    );
    let answer = api.get(&path, "").await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn hostile_names_are_refused() {
    let api = Api::new();
    for channel in [
        "user",
        "user:",
        ":1",
        "user:*",
        "user:%3E",
        "user:a.b",
        "user:a%20b",
        "user:a%0D%0Ab",
        "user:%00",
        "user:%C3%A9",
        "%FF",
        "a:b:c",
    ] {
        let path = format!("/v1/channels/{channel}/messages");
        let answer = api.post(&path, SERVICE_KEY, "{}").await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{channel}");
        assert_eq!(answer.code(), "bad_channel", "{channel}");
    }
    for query in ["id=", "id=a%20b", "id=%0D%0Ax", "type=a%0Ab", "typ=x"] {
        let path = format!("/v1/channels/user:1/messages?{query}");
        let answer = api.post(&path, SERVICE_KEY, "{}").await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{query}");
        assert_eq!(answer.code(), "bad_request", "{query}");
    }
    assert!(api.published().is_empty());
}

#[tokio::test]
async fn header_and_query_must_agree() {
    let api = Api::new();
    let mut conflicting = request(
        Method::POST,
        "/v1/channels/user:1/messages?id=a",
        SERVICE_KEY,
        Body::from("{}"),
    );
    let value = "b".parse().unwrap();
    conflicting.headers_mut().insert("rejoin-id", value);
    let answer = api.send(conflicting).await;
    assert_eq!(answer.code(), "bad_request");
}

#[tokio::test]
async fn a_body_at_the_limit_passes_and_one_beyond_does_not() {
    let api = Api::new();
    let path = "/v1/channels/user:1/messages";
    let limit = api.edge.config().limits.message_bytes;
    let fits = api.post(path, SERVICE_KEY, "x".repeat(limit)).await;
    assert_eq!(fits.status, StatusCode::OK);
    let beyond = api.post(path, SERVICE_KEY, "x".repeat(limit + 1)).await;
    assert_eq!(beyond.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(beyond.code(), "too_large");
    assert_eq!(api.published().len(), 1);
}

#[tokio::test]
async fn a_publish_that_is_not_stored_says_when_to_retry() {
    type Case = (Verdict, StatusCode, &'static str, u64, &'static str);
    let cases: [Case; 3] = [
        (
            |_| {
                Err(PublishError::Unavailable {
                    retry_after: Duration::from_millis(1_200),
                    reason: "secret detail".to_owned(),
                })
            },
            StatusCode::SERVICE_UNAVAILABLE,
            "unavailable",
            1_200,
            "2",
        ),
        (
            |_| {
                Err(PublishError::Full {
                    retry_after: Duration::from_secs(30),
                })
            },
            StatusCode::SERVICE_UNAVAILABLE,
            "stream_full",
            30_000,
            "30",
        ),
        (
            |_| {
                Err(PublishError::Refused {
                    reason: "no".to_owned(),
                })
            },
            StatusCode::BAD_REQUEST,
            "bad_request",
            0,
            "",
        ),
    ];
    for (verdict, status, code, retry_ms, header) in cases {
        let api = Api::with(verdict, |_| {});
        let answer = api
            .post("/v1/channels/user:1/messages", SERVICE_KEY, "{}")
            .await;
        assert_eq!(answer.status, status);
        assert_eq!(answer.code(), code);
        assert!(!answer.body.to_string().contains("secret detail"));
        let after = answer.body["error"]["retry_after_ms"].as_u64();
        assert_eq!(after.unwrap_or(0), retry_ms);
        let seconds = answer.headers.get(header::RETRY_AFTER);
        assert_eq!(seconds.map_or("", |value| value.to_str().unwrap()), header);
    }
}

#[tokio::test]
async fn a_batch_answers_item_by_item_in_order() {
    let api = Api::with(|p| Ok(p.id.as_str() == "seen"), |_| {});
    let batch = json!([
        { "channel": "user:1", "id": "a", "type": "t", "data": { "n": 1 } },
        { "channel": "user:*", "data": 1 },
        { "channel": "user:1", "id": "seen", "data": "x" },
        { "channel": "topic:x", "data_base64": "AP8=" },
        { "channel": "topic:x" },
        { "channel": "topic:x", "data": 1, "data_base64": "AP8=" },
        { "channel": "topic:x", "data_base64": "!" },
        { "channel": "topic:x", "data": null },
    ]);
    let answer = api
        .post("/v1/messages", SERVICE_KEY, batch.to_string())
        .await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    let results = answer.body["results"].as_array().unwrap();
    assert_eq!(results.len(), 8);
    assert_eq!(results[0]["id"], "a");
    assert_eq!(results[1]["error"]["code"], "bad_channel");
    assert_eq!(results[2]["duplicate"], true);
    assert_eq!(results[3]["channel"], "topic:x");
    for result in &results[4..7] {
        assert_eq!(result["error"]["code"], "bad_request", "{result}");
    }
    assert_eq!(results[7]["channel"], "topic:x");
    let published = api.published();
    let of = |name: &str| -> Vec<Vec<u8>> {
        let channel = channel(name);
        let of_channel = published.iter().filter(|p| p.channel == channel);
        of_channel.map(|p| p.data.to_vec()).collect()
    };
    // JSON is passed on as it was written.
    assert_eq!(of("user:1"), [&b"{\"n\":1}"[..], b"\"x\""]);
    assert_eq!(of("topic:x"), [&b"\x00\xff"[..], b"null"]);
}

#[tokio::test]
async fn a_batch_stops_a_channel_at_its_first_message_that_is_not_stored() {
    let api = Api::with(
        |p| match p.id.as_str() {
            "b" => Err(PublishError::Unavailable {
                retry_after: Duration::from_secs(1),
                reason: String::new(),
            }),
            _ => Ok(false),
        },
        |_| {},
    );
    let item = |channel: &str, id: &str| json!({ "channel": channel, "id": id, "data": 1 });
    let batch = json!([
        item("user:1", "a"),
        item("user:1", "b"),
        item("user:2", "c"),
        item("user:1", "d"),
    ]);
    let answer = api
        .post("/v1/messages", SERVICE_KEY, batch.to_string())
        .await;
    let results = answer.body["results"].as_array().unwrap();
    assert_eq!(results[0]["id"], "a");
    assert_eq!(results[1]["error"]["code"], "unavailable");
    assert_eq!(results[2]["id"], "c");
    assert_eq!(results[3]["error"]["code"], "unavailable");
    let published = api.published();
    let mut ids: Vec<&str> = published.iter().map(|p| p.id.as_str()).collect();
    ids.sort_unstable();
    assert_eq!(ids, ["a", "c"], "d must not overtake b");
}

#[tokio::test]
async fn a_malformed_batch_is_refused_as_a_whole() {
    let api = Api::new();
    let too_many = json!(vec![json!({ "channel": "user:1", "data": 1 }); 101]).to_string();
    let cases = [
        ("", "bad_request"),
        ("{}", "bad_request"),
        ("[1]", "bad_request"),
        (
            "[{\"channel\":\"user:1\",\"data\":1,\"subject\":\"x\"}]",
            "bad_request",
        ),
        (too_many.as_str(), "too_large"),
    ];
    for (body, code) in cases {
        let body = body.to_owned();
        let answer = api.post("/v1/messages", SERVICE_KEY, body.clone()).await;
        assert_eq!(answer.code(), code, "{body}");
    }
    assert!(api.published().is_empty());
}

#[tokio::test]
async fn catching_up_goes_page_by_page_to_the_head() {
    let api = Api::filled().await;
    let path = "/v1/channels/room:1/messages";
    let mut from = "00000000000000ff-3".to_owned();
    let mut seen = Vec::new();
    loop {
        let answer = api
            .get(&format!("{path}?from={from}&limit=4"), READER_KEY)
            .await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
        let messages = answer.body["messages"].as_array().unwrap();
        assert!(messages.len() <= 4);
        seen.extend(messages.iter().map(|m| m["seq"].as_u64().unwrap()));
        from = answer.body["cursor"].as_str().unwrap().to_owned();
        if answer.body["live"] == true {
            break;
        }
    }
    assert_eq!(seen, [4, 5, 6, 7, 8, 9, 10]);
    assert_eq!(from, "00000000000000ff-10");
}

#[tokio::test]
async fn every_start_is_understood() {
    let api = Api::filled().await;
    let get = |from: &'static str| {
        let api = &api;
        async move {
            let path = format!("/v1/channels/room:1/messages?{from}");
            api.get(&path, &token("alice", 60)).await.body
        }
    };
    let tail = get("").await;
    assert_eq!(tail["messages"], json!([]));
    assert_eq!(tail["cursor"], "00000000000000ff-10");
    assert_eq!(tail["live"], true);
    let last = get("from=last:2").await;
    assert_eq!(last["messages"][0]["data"], json!({ "n": 9 }));
    assert_eq!(last["messages"][0]["id"], "m-9");
    assert_eq!(last["messages"].as_array().unwrap().len(), 2);
    let earliest = get("from=earliest").await;
    assert_eq!(earliest["messages"].as_array().unwrap().len(), 10);
    assert_eq!(earliest["epoch"], "00000000000000ff");
}

#[tokio::test]
async fn a_break_of_continuity_is_told() {
    let api = Api::filled().await;
    let path = "/v1/channels/room:1/messages?from=";
    let unknown = api
        .get(&format!("{path}00000000000000aa-3"), READER_KEY)
        .await
        .body;
    assert_eq!(unknown["reset"]["reason"], "epoch", "{unknown}");
    assert_eq!(unknown["reset"]["head"], "00000000000000ff-10");
    assert_eq!(unknown["messages"], json!([]));
    let ahead = api
        .get(&format!("{path}00000000000000ff-11"), READER_KEY)
        .await
        .body;
    assert_eq!(ahead["reset"]["reason"], "ahead", "{ahead}");
}

#[tokio::test]
async fn reading_is_checked_like_subscribing() {
    let api = Api::filled().await;
    let alice = token("alice", 60);
    for (channel, status) in [
        ("room:1", StatusCode::OK),
        ("user:alice", StatusCode::OK),
        ("user:bob", StatusCode::FORBIDDEN),
        ("room:11", StatusCode::FORBIDDEN),
        // Publishing does not include reading.
        ("topic:x", StatusCode::FORBIDDEN),
    ] {
        let path = format!("/v1/channels/{channel}/messages");
        assert_eq!(api.get(&path, &alice).await.status, status, "{channel}");
    }
}

#[tokio::test]
async fn bad_queries_are_told() {
    let api = Api::filled().await;
    for (query, code) in [
        ("from=yesterday", "bad_cursor"),
        ("from=", "bad_cursor"),
        ("from=00000000000000FF-1", "bad_cursor"),
        ("from=acked", "bad_request"),
        ("limit=0", "bad_request"),
        ("limit=1001", "bad_request"),
        ("limit=-1", "bad_request"),
        ("limit=x", "bad_request"),
        ("form=tail", "bad_request"),
    ] {
        let path = format!("/v1/channels/room:1/messages?{query}");
        let answer = api.get(&path, READER_KEY).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{query}");
        assert_eq!(answer.code(), code, "{query}");
    }
}

#[tokio::test]
async fn an_edge_is_ready_when_all_of_it_is() {
    let cold = Api::new();
    let answer = cold.get("/readyz", "").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.body["reasons"]["windows"], "0 of 1 are filled");
    assert_eq!(cold.get("/healthz", "").await.status, StatusCode::OK);

    let api = Api::filled().await;
    assert_eq!(api.get("/readyz", "").await.status, StatusCode::OK);
    api.edge.readiness().not_ready("nats", "not connected");
    let answer = api.get("/readyz", "").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.body["reasons"], json!({ "nats": "not connected" }));
    api.edge.readiness().ready("nats");
    assert_eq!(api.get("/readyz", "").await.status, StatusCode::OK);
    api.edge.drain().advance(Phase::Unready);
    let answer = api.get("/readyz", "").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.body["reasons"]["drain"].is_string());
    // Still serving what comes.
    let answer = api.get("/v1/channels/room:1/messages", READER_KEY).await;
    assert_eq!(answer.status, StatusCode::OK);
}

#[tokio::test]
async fn a_panic_is_one_failed_request() {
    let api = Api::new();
    let answer = api.get("/panics", "").await;
    assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(answer.code(), "internal");
    assert!(!answer.body.to_string().contains("this handler"));
}

#[tokio::test]
async fn what_is_not_there_answers_in_the_same_form() {
    let api = Api::new();
    let answer = api.get("/v2/nothing", "").await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    assert_eq!(answer.code(), "not_found");
    let path = "/v1/channels/user:1/messages";
    let answer = api
        .send(request(Method::DELETE, path, SERVICE_KEY, Body::empty()))
        .await;
    assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(answer.code(), "bad_request");
}

#[tokio::test]
async fn the_demonstration_is_there_in_development_only() {
    let api = Api::new();
    for path in ["/", "/dev/token/alice"] {
        assert_eq!(api.get(path, "").await.status, StatusCode::NOT_FOUND);
    }
    let dev = Api::with(|_| Ok(false), |config| config.dev = true);
    assert_eq!(dev.get("/", "").await.status, StatusCode::OK);
    let token = dev.get("/dev/token/alice", "").await;
    let token = token.body["token"].as_str().unwrap();
    let grants = dev.edge.auth().verify_token(token, unix_now_s()).unwrap();
    assert_eq!(grants.user.as_str(), "alice");
    let answer = dev.get("/dev/token/a.b", "").await;
    assert_eq!(answer.code(), "bad_request");
}

fn with_origin(mut request: Request<Body>, origin: &str) -> Request<Body> {
    let value = origin.parse().unwrap();
    request.headers_mut().insert(header::ORIGIN, value);
    request
}

#[tokio::test]
async fn only_allowed_pages_get_an_answer_they_can_read() {
    let api = Api::filled().await;
    let path = "/v1/channels/room:1/messages";
    let ask = |origin: &'static str| {
        let get = request(Method::GET, path, READER_KEY, Body::empty());
        api.send(with_origin(get, origin))
    };
    let allowed = ask("https://app.example.com").await;
    assert_eq!(allowed.status, StatusCode::OK);
    assert_eq!(
        allowed.headers[header::ACCESS_CONTROL_ALLOW_ORIGIN],
        "https://app.example.com"
    );
    let stranger = ask("https://evil.example").await;
    assert_eq!(stranger.status, StatusCode::FORBIDDEN);
    assert_eq!(stranger.code(), "forbidden");
    let open = &stranger.headers;
    assert!(!open.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN));
}

#[tokio::test]
async fn a_preflight_allows_what_the_api_takes() {
    let api = Api::new();
    let preflight = |origin: &'static str| {
        let path = "/v1/channels/room:1/messages";
        let mut ask = request(Method::OPTIONS, path, "", Body::empty());
        let headers = ask.headers_mut();
        headers.insert("access-control-request-method", "POST".parse().unwrap());
        let asked = "authorization, rejoin-id".parse().unwrap();
        headers.insert("access-control-request-headers", asked);
        api.send(with_origin(ask, origin))
    };
    let allowed = preflight("https://app.example.com").await;
    assert_eq!(allowed.status, StatusCode::OK);
    let names = allowed.headers[header::ACCESS_CONTROL_ALLOW_HEADERS]
        .to_str()
        .unwrap();
    for name in ["authorization", "rejoin-id", "rejoin-type"] {
        assert!(names.contains(name), "{names}");
    }
    let stranger = preflight("https://evil.example").await;
    assert_eq!(stranger.status, StatusCode::FORBIDDEN);
}
