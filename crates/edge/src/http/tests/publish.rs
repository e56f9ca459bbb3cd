use super::*;

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
