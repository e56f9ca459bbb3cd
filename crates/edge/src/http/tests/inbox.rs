use super::harness::*;
use super::sse::*;
use super::*;

#[tokio::test]
async fn reading_lowers_what_is_unread_and_tells_the_other_devices() {
    let live = Live::new();
    let api = live.edge().await;
    let bearer = token("bob", 60);
    let mut other_device = Events::open(&api, "/v1/events?channels=user:bob", &bearer).await;
    other_device.expect("live").await;
    let ack = |read: u64| {
        let body = json!({ "device": "phone", "channel": "user:bob", "read": at(read) });
        api.post("/v1/users/bob/acks", &bearer, body.to_string())
    };
    assert_eq!(ack(0).await.body["receipt"]["unread"], 0);
    for n in 1..=4 {
        live.publish("user:bob", n).await;
    }
    let before = api.get("/v1/users/bob/inbox", &bearer).await;
    assert_eq!(
        before.body,
        json!({
            "user": "bob",
            "unread": 4,
            "channels": [{ "channel": "user:bob", "unread": 4, "read": at(0) }],
        })
    );
    let receipt = ack(3).await;
    assert_eq!(receipt.status, StatusCode::OK, "{}", receipt.text);
    assert_eq!(receipt.body["receipt"]["read"], at(3));
    assert_eq!(receipt.body["receipt"]["unread"], 1);
    loop {
        let told = other_device.next().await.unwrap();
        if told.key == "receipt" && told.frame["receipt"]["read"] == at(3) {
            break assert_eq!(told.frame, receipt.body);
        }
    }
    let after = api.get("/v1/users/bob/inbox", READER_KEY).await;
    assert_eq!(after.body["unread"], 1);
}

#[tokio::test]
async fn an_inbox_is_for_its_user_and_for_keys_that_may_read_it() {
    let live = Live::new();
    let api = live.edge().await;
    let (path, acks) = ("/v1/users/bob/inbox", "/v1/users/bob/acks");
    for (bearer, status) in [
        (&*token("bob", 60), StatusCode::OK),
        (READER_KEY, StatusCode::OK),
        (ADMIN_KEY, StatusCode::OK),
        (&*token("eve", 60), StatusCode::FORBIDDEN),
        ("", StatusCode::UNAUTHORIZED),
    ] {
        assert_eq!(api.get(path, bearer).await.status, status, "{bearer}");
    }
    let body = format!(
        r#"{{"device":"d","channel":"user:bob","read":"{}"}}"#,
        at(0)
    );
    for bearer in [ADMIN_KEY, &*token("eve", 60)] {
        let answer = api.post(acks, bearer, body.clone()).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN);
    }
    let bob = token("bob", 60);
    let elsewhere = body.replace("user:bob", "topic:x");
    let answer = api.post(acks, &bob, elsewhere).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    for bad in [
        "{}",
        r#"{"device":"d","channel":"user:bob"}"#,
        r#"{"device":"a b","channel":"user:bob","read":"x"}"#,
        r#"{"device":"d","channel":"user:bob","read":"x"}"#,
    ] {
        assert_eq!(
            api.post(acks, &bob, bad).await.code(),
            "bad_request",
            "{bad}"
        );
    }
    let without = Api::new();
    assert_eq!(without.get(path, &bob).await.code(), "unsupported");
    assert_eq!(without.post(acks, &bob, body).await.code(), "unsupported");
}
