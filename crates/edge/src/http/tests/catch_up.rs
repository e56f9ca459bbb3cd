use super::*;

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
