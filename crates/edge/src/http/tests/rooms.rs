use super::harness::*;
use super::*;

async fn send(api: &Api, method: Method, path: &str, bearer: &str) -> Answer {
    let ask = request(method, path, bearer, Body::empty());
    api.send(ask).await
}

#[tokio::test]
async fn members_are_added_listed_and_removed() {
    let live = Live::new();
    let api = live.edge().await;
    let member = "/v1/rooms/7/members/bob";
    let put = || send(&api, Method::PUT, member, ADMIN_KEY);
    assert_eq!(put().await.body, json!({ "added": 1 }));
    assert_eq!(put().await.body, json!({ "added": 0 }));
    let body = r#"{"add":["carol","alice"],"remove":["nobody"]}"#;
    let changed = api.post("/v1/rooms/7/members", ADMIN_KEY, body).await;
    assert_eq!(changed.body, json!({ "added": 2, "removed": 0 }));
    let first = api.get("/v1/rooms/7/members?limit=2", ADMIN_KEY).await;
    assert_eq!(
        first.body,
        json!({ "members": ["alice", "bob"], "more": true })
    );
    let rest = api
        .get("/v1/rooms/7/members?limit=2&after=bob", ADMIN_KEY)
        .await;
    assert_eq!(rest.body, json!({ "members": ["carol"], "more": false }));
    send(&api, Method::PUT, "/v1/rooms/8/members/bob", ADMIN_KEY).await;
    let rooms = api.get("/v1/users/bob/rooms", &token("bob", 60)).await;
    assert_eq!(
        rooms.body,
        json!({ "rooms": ["room:7", "room:8"], "more": false })
    );
    let after = api.get("/v1/users/bob/rooms?after=room:7", ADMIN_KEY).await;
    assert_eq!(after.body["rooms"], json!(["room:8"]));
    let delete = || send(&api, Method::DELETE, member, ADMIN_KEY);
    assert_eq!(delete().await.body, json!({ "removed": 1 }));
    assert_eq!(delete().await.body, json!({ "removed": 0 }));
}

#[tokio::test]
async fn a_membership_grants_reading_and_publishing_over_http() {
    let live = Live::new();
    let api = live.edge().await;
    let bob = token("bob", 60);
    let (messages, signals) = (
        "/v1/channels/room:7/messages",
        "/v1/channels/room:7/signals",
    );
    assert_eq!(api.get(messages, &bob).await.status, StatusCode::FORBIDDEN);
    assert_eq!(
        api.post(messages, &bob, "{}").await.status,
        StatusCode::FORBIDDEN
    );
    assert_eq!(
        api.post(signals, &bob, "{}").await.status,
        StatusCode::FORBIDDEN
    );
    let batch = r#"[{"channel":"room:7","data":1},{"channel":"topic:x","data":2}]"#;
    let before = api.post("/v1/messages", &bob, batch).await;
    assert_eq!(before.body["results"][0]["error"]["code"], "forbidden");
    assert_eq!(before.body["results"][0]["error"]["channel"], "room:7");
    assert!(before.body["results"][1]["cursor"].is_string());
    send(&api, Method::PUT, "/v1/rooms/7/members/bob", ADMIN_KEY).await;
    assert_eq!(api.get(messages, &bob).await.status, StatusCode::OK);
    assert_eq!(api.post(messages, &bob, "{}").await.status, StatusCode::OK);
    let after = api.post("/v1/messages", &bob, batch).await;
    assert!(
        after.body["results"][0]["cursor"].is_string(),
        "{}",
        after.text
    );
    let sent = api
        .post(&format!("{signals}?type=typing"), &bob, "true")
        .await;
    assert_eq!(sent.status, StatusCode::OK, "{}", sent.text);
    let signals = live.sent.0.lock().clone();
    assert_eq!(signals.len(), 1);
    assert_eq!(signals[0].sender, Some(UserId::parse("bob").unwrap()));
    assert_eq!(
        (&*signals[0].kind, &signals[0].data[..]),
        ("typing", &b"true"[..])
    );
    // A room's members are users; other namespaces have none.
    live.rooms
        .away
        .store(true, std::sync::atomic::Ordering::Relaxed);
    let inbox = api.get("/v1/channels/user:carol/messages", &bob).await;
    assert_eq!(inbox.status, StatusCode::FORBIDDEN);
    let away = api.get(messages, &bob).await;
    assert_eq!(away.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(away.code(), "unavailable");
}

#[tokio::test]
async fn only_keys_with_that_scope_manage_a_room() {
    const ROOMS_KEY: &str = "rj_test_rooms";
    let live = Live::with(
        |config| {
            config.auth.api_keys.push(ApiKeyConfig {
                name: "rooms".to_owned(),
                sha256: api_key_sha256(ROOMS_KEY),
                publish: Vec::new(),
                read: Vec::new(),
                members: vec!["room:7".to_owned()],
                admin: false,
            });
        },
        1 << 20,
    );
    let api = live.edge().await;
    let path = "/v1/rooms/7/members/bob";
    let allowed = send(&api, Method::PUT, path, ROOMS_KEY).await;
    assert_eq!(allowed.status, StatusCode::OK);
    let bob = token("bob", 60);
    for (method, path, bearer) in [
        (Method::PUT, path, SERVICE_KEY),
        (Method::PUT, path, &*bob),
        (Method::DELETE, path, &bob),
        (Method::GET, "/v1/rooms/7/members", &bob),
        (Method::PUT, "/v1/rooms/8/members/bob", ROOMS_KEY),
        (Method::GET, "/v1/users/bob/rooms", &token("eve", 60)),
        (Method::GET, "/v1/users/bob/rooms", SERVICE_KEY),
    ] {
        let answer = send(&api, method, path, bearer).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{path}");
        assert_eq!(answer.code(), "forbidden");
    }
    let nobody = send(&api, Method::PUT, path, "").await;
    assert_eq!(nobody.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn bad_changes_are_told() {
    let live = Live::new();
    let api = live.edge().await;
    let cases = [
        (
            Method::PUT,
            "/v1/rooms/a%20b/members/bob",
            "",
            "bad_channel",
        ),
        (Method::PUT, "/v1/rooms/7/members/a%2Fb", "", "bad_request"),
        (
            Method::GET,
            "/v1/rooms/7/members?limit=0",
            "",
            "bad_request",
        ),
        (
            Method::GET,
            "/v1/rooms/7/members?limit=1001",
            "",
            "bad_request",
        ),
        (
            Method::GET,
            "/v1/rooms/7/members?after=a.b",
            "",
            "bad_request",
        ),
        (
            Method::GET,
            "/v1/users/bob/rooms?after=room",
            "",
            "bad_channel",
        ),
        (Method::POST, "/v1/rooms/7/members", "7", "bad_request"),
        (
            Method::POST,
            "/v1/rooms/7/members",
            r#"{"add":["a b"]}"#,
            "bad_request",
        ),
        (
            Method::POST,
            "/v1/rooms/7/members",
            r#"{"ad":[]}"#,
            "bad_request",
        ),
        (
            Method::POST,
            "/v1/rooms/7/members",
            r#"{"add":["a"],"remove":["a"]}"#,
            "bad_request",
        ),
    ];
    for (method, path, body, code) in cases {
        let answer = api
            .send(request(method, path, ADMIN_KEY, Body::from(body)))
            .await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{path} {body}");
        assert_eq!(answer.code(), code, "{path} {body}");
    }
    let many: Vec<String> = (0..10_001).map(|n| n.to_string()).collect();
    let body = json!({ "add": many }).to_string();
    let answer = api.post("/v1/rooms/7/members", ADMIN_KEY, body).await;
    assert_eq!(answer.code(), "too_large");
}

#[tokio::test]
async fn without_a_store_or_while_it_is_away_rooms_say_so() {
    let without = Api::new();
    for path in ["/v1/rooms/7/members", "/v1/users/bob/rooms"] {
        let answer = without.get(path, ADMIN_KEY).await;
        assert_eq!(answer.status, StatusCode::NOT_IMPLEMENTED, "{path}");
        assert_eq!(answer.code(), "unsupported", "{path}");
    }
    let live = Live::new();
    let api = live.edge().await;
    live.rooms
        .away
        .store(true, std::sync::atomic::Ordering::Relaxed);
    let answer = send(&api, Method::PUT, "/v1/rooms/7/members/bob", ADMIN_KEY).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.code(), "unavailable");
    assert_eq!(answer.body["error"]["retry_after_ms"], 2_500);
    assert!(!answer.text.contains("secret"));
}
