//! No credential reaches a channel outside what it names, by whichever way.

use std::collections::BTreeSet;

use proptest::prelude::*;
use protocol::frame::{SendSignal, ServerBody, Subscribe};
use protocol::{ClientBody, ClientFrame, ErrorCode, From};

use super::harness::Live;
use super::*;
use crate::auth::Caller;

/// A small alphabet, so that patterns and channels often meet or nearly do.
fn part() -> impl Strategy<Value = String> {
    prop_oneof![
        "[ab]{1,2}",
        Just("room".to_owned()),
        Just("user".to_owned())
    ]
}

fn pattern() -> impl Strategy<Value = (String, String)> {
    (part(), prop_oneof![Just("*".to_owned()), part().boxed()])
}

type Patterns = Vec<(String, String)>;

fn covered(patterns: &Patterns, (namespace, id): &(String, String)) -> bool {
    patterns
        .iter()
        .any(|(ns, it)| ns == namespace && (it == "*" || it == id))
}

fn parsed(patterns: &Patterns) -> Vec<Pattern> {
    let text = |(ns, id): &(String, String)| Pattern::parse(&format!("{ns}:{id}")).unwrap();
    patterns.iter().map(text).collect()
}

fn token_of(user: &str, subscribe: &Patterns, publish: &Patterns) -> String {
    let claims = Claims {
        sub: UserId::parse(user).unwrap(),
        exp: unix_now_s() + 600,
        iat: None,
        nbf: None,
        jti: None,
        iss: None,
        aud: None,
        rejoin: ChannelClaims {
            subscribe: parsed(subscribe),
            publish: parsed(publish),
        },
    };
    mint(&auth_config(), &claims).unwrap().expose().to_owned()
}

/// Whether the answer to a request over HTTP is a refusal, or what was asked.
async fn allowed(
    api: &Api,
    method: Method,
    path: &str,
    token: &str,
) -> Result<bool, TestCaseError> {
    let request = request(method, path, token, Body::from("1"));
    // The head is enough: an event stream has no end.
    let response = api.router.clone().oneshot(request).await.unwrap();
    match response.status() {
        StatusCode::OK => Ok(true),
        StatusCode::FORBIDDEN => Ok(false),
        other => Err(TestCaseError::fail(format!("{path}: {other}"))),
    }
}

/// The same over WebSocket.
fn allowed_by_frame(api: &Api, token: &str, body: ClientBody) -> Result<bool, TestCaseError> {
    let Ok(Caller::User(grants)) = api.edge.auth().verify_bearer(token, unix_now_s()) else {
        return Err(TestCaseError::fail("not a user"));
    };
    let answers = crate::ws::answers(&api.edge, grants, vec![ClientFrame::request(7, body)]);
    let mut refused = None;
    for answer in &answers {
        match &answer.body {
            ServerBody::Error(error) if error.code == ErrorCode::Forbidden => refused = Some(true),
            ServerBody::Error(error) => return Err(TestCaseError::fail(format!("{error:?}"))),
            _ => {}
        }
    }
    Ok(refused.is_none())
}

#[derive(Debug, Clone)]
struct Case {
    user: String,
    subscribe: Patterns,
    publish: Patterns,
    name: (String, String),
    is_member: bool,
}

fn case() -> impl Strategy<Value = Case> {
    let patterns = || prop::collection::vec(pattern(), 0..3);
    (
        part(),
        patterns(),
        patterns(),
        (part(), part()),
        any::<bool>(),
    )
        .prop_map(|(user, subscribe, publish, name, is_member)| Case {
            user,
            subscribe,
            publish,
            name,
            is_member,
        })
}

async fn check(case: &Case) -> Result<(), TestCaseError> {
    let live = Live::new();
    let api = live.edge().await;
    let name = format!("{}:{}", case.name.0, case.name.1);
    let is_room = case.name.0 == "room";
    if is_room && case.is_member {
        let user = UserId::parse(&case.user).unwrap();
        let members = api.edge.members().unwrap();
        members.add(channel(&name), vec![user]).await.unwrap();
    }
    let token = token_of(&case.user, &case.subscribe, &case.publish);
    let member = is_room && case.is_member;
    let own_inbox = case.name.0 == "user" && case.name.1 == case.user;
    let may_read = member || own_inbox || covered(&case.subscribe, &case.name);
    let may_publish = member || covered(&case.publish, &case.name);
    let mut seen = BTreeSet::new();
    for path in [
        format!("/v1/channels/{name}/messages"),
        format!("/v1/channels/{name}/messages?from=earliest"),
        format!("/v1/channels/{name}/messages?order=desc"),
        format!("/v1/events?channels={name}&from=earliest"),
        format!("/v1/poll?channels={name}&from=earliest&wait_ms=0"),
    ] {
        let allowed = allowed(&api, Method::GET, &path, &token).await?;
        prop_assert_eq!(allowed, may_read, "{}", path);
        seen.insert(allowed);
    }
    for from in [
        From::Tail,
        From::Earliest,
        From::Last(1),
        From::Cursor(Cursor::new(EPOCH, 0)),
    ] {
        let subscribe = Subscribe {
            channel: channel(&name),
            from,
            max_catchup: 0,
        };
        let allowed = allowed_by_frame(&api, &token, ClientBody::Subscribe(subscribe))?;
        prop_assert_eq!(allowed, may_read, "subscribe");
    }
    for path in ["messages", "signals"] {
        let path = format!("/v1/channels/{name}/{path}");
        let allowed = allowed(&api, Method::POST, &path, &token).await?;
        prop_assert_eq!(allowed, may_publish, "{}", path);
    }
    let signal = SendSignal {
        channel: channel(&name),
        kind: "".into(),
        data: "1".into(),
    };
    // A member of a room signals while listening; else what may be published to.
    let allowed = allowed_by_frame(&api, &token, ClientBody::Signal(signal))?;
    prop_assert!(!allowed || may_publish, "signal");
    let publish = protocol::frame::Publish {
        id: MessageId::random(),
        channel: channel(&name),
        kind: "".into(),
        data: "1".into(),
        traceparent: None,
    };
    let allowed = allowed_by_frame(&api, &token, ClientBody::Publish(publish))?;
    prop_assert_eq!(allowed, may_publish, "publish");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn no_token_reaches_a_channel_outside_its_rights_by_any_way(case in case()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(check(&case))?;
    }
}

/// The application's decision counts for what it was asked, and no more.
#[tokio::test]
async fn the_application_decides_about_the_rest() {
    use axum::routing::post;
    // Reading in `topic` only.
    let decide = |body: String| async move {
        let asked: Value = serde_json::from_str(&body).unwrap();
        let allow = asked["action"] == "read" && asked["channel"] == "topic:a";
        json!({ "allow": allow }).to_string()
    };
    let router = Router::new().route("/", post(decide));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let application = tokio::spawn(async move { axum::serve(listener, router).await });
    APPLICATION.set(url).unwrap();
    let configure = |config: &mut EdgeConfig| {
        config.auth.authorizer = Some(crate::auth::AuthorizerConfig {
            url: APPLICATION.get().unwrap().clone(),
            secret: Some(Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")),
            cache_s: 0,
            ..Default::default()
        });
    };
    let live = Live::with(configure, 1 << 20);
    let api = live.edge().await;
    let token = token_of("42", &Vec::new(), &Vec::new());
    let get = async |path: &str| api.get(path, &token).await.status.as_u16();
    let post = async |path: &str| api.post(path, &token, "1").await.status.as_u16();
    assert_eq!(
        get("/v1/channels/topic:a/messages?from=earliest").await,
        200
    );
    assert_eq!(get("/v1/poll?channels=topic:a&wait_ms=0").await, 200);
    assert_eq!(
        get("/v1/channels/topic:b/messages?from=earliest").await,
        403
    );
    assert_eq!(post("/v1/channels/topic:a/messages").await, 403);
    assert_eq!(post("/v1/channels/topic:a/signals").await, 403);
    // A key's rights are in the configuration alone.
    let reader = api.get("/v1/channels/topic:a/messages", ADMIN_KEY).await;
    assert_eq!(reader.status, StatusCode::FORBIDDEN);
    application.abort();
    let _ended = application.await;
    assert_eq!(
        get("/v1/channels/topic:a/messages?from=earliest").await,
        503
    );
    // What the token grants needs nobody's answer.
    let granted = super::token("42", 600);
    let answer = api.get("/v1/channels/room:1/messages", &granted).await;
    assert_eq!(answer.status, StatusCode::OK);
}

static APPLICATION: std::sync::OnceLock<String> = std::sync::OnceLock::new();

/// Nothing but health is answered without a credential, whoever asks.
#[tokio::test]
async fn without_a_credential_nothing_is_answered() {
    let api = Api::filled().await;
    for (method, path) in [
        (Method::GET, "/v1/channels/room:1/messages"),
        (Method::POST, "/v1/channels/room:1/messages"),
        (Method::POST, "/v1/channels/room:1/signals"),
        (Method::POST, "/v1/messages"),
        (Method::GET, "/v1/events?channels=room:1"),
        (Method::GET, "/v1/poll?channels=room:1"),
        (Method::POST, "/v1/tickets"),
        (Method::GET, "/v1/rooms/1/members"),
        (Method::PUT, "/v1/rooms/1/members/42"),
        (Method::GET, "/v1/users/42/rooms"),
        (Method::GET, "/v1/users/42/inbox"),
        (Method::POST, "/v1/users/42/acks"),
        (Method::POST, "/v1/admin/revocations"),
        (Method::DELETE, "/v1/admin/revocations?user=42"),
        (Method::GET, "/v1/whoami"),
        (Method::GET, "/metrics"),
    ] {
        for origin in ["", "https://app.example.com"] {
            let mut asking = request(method.clone(), path, "", Body::from("{}"));
            if !origin.is_empty() {
                let origin = axum::http::HeaderValue::from_static("https://app.example.com");
                asking.headers_mut().insert(header::ORIGIN, origin);
            }
            // Not even a cookie is one, with whatever would be good elsewhere.
            let cookie = format!("token={}; key={ADMIN_KEY}", token("42", 3_600));
            let cookie = cookie.parse().unwrap();
            asking.headers_mut().insert(header::COOKIE, cookie);
            let answer = api.send(asking).await;
            assert_eq!(
                answer.status,
                StatusCode::UNAUTHORIZED,
                "{method} {path} {origin}"
            );
        }
    }
}

#[tokio::test]
async fn every_answer_tells_browsers_what_it_is_not() {
    let api = Api::with(|_| Ok(false), |config| config.dev = true);
    for path in [
        "/",
        "/pane",
        "/inspector",
        "/healthz",
        "/nowhere",
        "/v1/whoami",
        "/panics",
    ] {
        let answer = api.get(path, "").await;
        let csp = answer.headers[header::CONTENT_SECURITY_POLICY]
            .to_str()
            .unwrap();
        assert!(csp.starts_with("default-src 'none'"), "{path}: {csp}");
        assert!(csp.contains("frame-ancestors"), "{path}: {csp}");
        assert!(!csp.contains("unsafe"), "{path}: {csp}");
        assert_eq!(
            answer.headers[header::X_CONTENT_TYPE_OPTIONS],
            "nosniff",
            "{path}"
        );
        assert_eq!(
            answer.headers[header::REFERRER_POLICY],
            "no-referrer",
            "{path}"
        );
    }
}
