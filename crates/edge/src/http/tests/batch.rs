use super::*;

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
