use super::harness::*;
use super::presence::TwoOthers;
use super::sse::Events;
use super::*;

#[tokio::test(start_paused = true)]
async fn only_an_administrative_key_administers() {
    let live = Live::new();
    let api = live.edge().await;
    let cases = [
        (String::new(), StatusCode::UNAUTHORIZED),
        (token("alice", 60), StatusCode::FORBIDDEN),
        (SERVICE_KEY.to_owned(), StatusCode::FORBIDDEN),
        (ADMIN_KEY.to_owned(), StatusCode::OK),
    ];
    for (bearer, status) in &cases {
        assert_eq!(api.get("/v1/admin/edges", bearer).await.status, *status);
        let drain = api
            .post("/v1/admin/drain", bearer, r#"{"edge":"edge-1"}"#)
            .await;
        assert_eq!(drain.status, *status);
    }
    assert!(api.edge.drain().is_resting(), "the last one did it");
    let undrain = api
        .post("/v1/admin/undrain", ADMIN_KEY, r#"{"edge":"edge-1"}"#)
        .await;
    assert_eq!(undrain.body["edges"][0]["draining"], false);
    assert!(!api.edge.drain().is_resting());
}

#[tokio::test(start_paused = true)]
async fn a_get_changes_nothing_and_bad_requests_are_told() {
    let live = Live::new();
    let api = live.edge().await;
    for path in [
        "drain?edge=edge-1",
        "disconnect?user=a",
        "publish",
        "log?filter=info",
    ] {
        let answer = api.get(&format!("/v1/admin/{path}"), ADMIN_KEY).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{path}");
    }
    assert!(!api.edge.drain().is_resting());
    let cases = [
        ("nothing", "{}", StatusCode::NOT_FOUND),
        ("drain", "{}", StatusCode::BAD_REQUEST),
        ("drain", r#"{"edge":"*"}"#, StatusCode::BAD_REQUEST),
        ("drain", r#"{"edge":"edge-9"}"#, StatusCode::NOT_FOUND),
        ("disconnect", "{}", StatusCode::BAD_REQUEST),
        (
            "disconnect",
            r#"{"user":"a","session":"edge-1-1"}"#,
            StatusCode::BAD_REQUEST,
        ),
        (
            "publish",
            r#"{"channel":"a","data":1}"#,
            StatusCode::BAD_REQUEST,
        ),
        ("publish", r#"{"channel":"a:b"}"#, StatusCode::BAD_REQUEST),
        ("log", r#"{"filter":"debug"}"#, StatusCode::NOT_IMPLEMENTED),
    ];
    for (operation, body, status) in cases {
        let path = format!("/v1/admin/{operation}");
        let answer = api.post(&path, ADMIN_KEY, body).await;
        assert_eq!(answer.status, status, "{operation} {body}: {}", answer.text);
    }
}

#[tokio::test(start_paused = true)]
async fn edges_that_did_not_answer_are_named() {
    let mut live = Live::new();
    live.fleet = Some(Arc::new(TwoOthers::default()));
    let api = live.edge().await;
    let edges = api.get("/v1/admin/edges", ADMIN_KEY).await;
    assert_eq!(edges.body["edges"][0]["edge"], "edge-1");
    assert_eq!(edges.body["missing"], json!(["edge-2", "edge-3"]));
    let channel = api.get("/v1/admin/channel?channel=room:7", ADMIN_KEY).await;
    assert_eq!(channel.body["readers"], 2);
    assert_eq!(channel.body["missing"], json!(["edge-3"]));
    let drain = api
        .post("/v1/admin/drain", ADMIN_KEY, r#"{"edge":"edge-3"}"#)
        .await;
    assert_eq!(
        drain.status,
        StatusCode::SERVICE_UNAVAILABLE,
        "{}",
        drain.text
    );
}

#[tokio::test(start_paused = true)]
async fn a_user_is_looked_up_and_disconnected() {
    let live = Live::new();
    let api = live.edge().await;
    let path = "/v1/events?channels=user:alice&from=earliest";
    let mut events = Events::open(&api, path, &token("alice", 60)).await;
    events.expect("live").await;
    // The client does not read on, so this is what it lags by.
    live.publish("user:alice", 1).await;
    let looked_up = {
        let get = api.get("/v1/admin/connections?user=alice", ADMIN_KEY);
        // Somebody has to poll the stream's task, as the socket's writer does.
        let (answer, event) = tokio::join!(get, events.next());
        assert_eq!(event.unwrap().key, "messages");
        answer
    };
    let connection = &looked_up.body["connections"][0];
    assert_eq!(connection["transport"], "sse", "{}", looked_up.text);
    assert_eq!(connection["user"], "alice");
    let session = connection["session"].as_str().unwrap();
    let body = json!({ "session": session }).to_string();
    let closed = api.post("/v1/admin/disconnect", ADMIN_KEY, body).await;
    assert_eq!(closed.body["disconnected"], 1);
    assert!(events.next().await.is_none());
    let nobody = api
        .post("/v1/admin/disconnect", ADMIN_KEY, r#"{"user":"bob"}"#)
        .await;
    assert_eq!(nobody.body["disconnected"], 0);
}
