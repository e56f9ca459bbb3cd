//! What naming a device gives to clients without a WebSocket.

use super::harness::*;
use super::sse::Events;
use super::*;

const EVENTS: &str = "/v1/events?channels=user:bob";
const POLL: &str = "/v1/poll?channels=user:bob";

/// Five messages; the phone got three, and two were read.
async fn inbox(live: &Live) -> (Api, String) {
    let api = live.edge().await;
    for n in 1..=5 {
        live.publish("user:bob", n).await;
    }
    let bob = token("bob", 60);
    let body =
        json!({ "device": "phone", "channel": "user:bob", "delivered": at(3), "read": at(2) });
    let acked = api.post("/v1/users/bob/acks", &bob, body.to_string()).await;
    assert_eq!(acked.body["receipt"]["unread"], 3, "{}", acked.text);
    (api, bob)
}

#[tokio::test(start_paused = true)]
async fn a_device_goes_on_from_what_it_acknowledged() {
    let live = Live::new();
    let (api, bob) = inbox(&live).await;
    let path = format!("{EVENTS}&device=phone&from=acked");
    let mut events = Events::open(&api, &path, &bob).await;
    let subscribed = events.expect("subscribed").await;
    assert_eq!(subscribed.frame["subscribed"]["cursor"], at(3));
    assert_eq!(subscribed.id, at(3));
    let missed = events.expect("messages").await;
    assert_eq!(numbers(&missed.frame), [4, 5]);

    let polled = api
        .get(&format!("{POLL}&device=phone&from=acked"), &bob)
        .await;
    let frames = polled.body["frames"].as_array().unwrap();
    let seen: Vec<u64> = frames.iter().flat_map(numbers).collect();
    assert_eq!(seen, [4, 5], "{}", polled.text);
    assert_eq!(polled.body["cursors"], json!([at(5)]));

    // A device that never acknowledged anything there.
    let path = format!("{EVENTS}&device=tablet&from=acked");
    let mut events = Events::open(&api, &path, &bob).await;
    let subscribed = events.expect("subscribed").await;
    assert_eq!(subscribed.frame["subscribed"]["cursor"], at(5));
}

#[tokio::test]
async fn acked_needs_a_device_of_a_user_and_a_store() {
    let live = Live::new();
    let (api, bob) = inbox(&live).await;
    for path in [EVENTS, POLL] {
        for (query, bearer) in [
            ("&from=acked", &*bob),
            ("&from=acked&device=a%20b", &bob),
            ("&from=acked&device=phone", READER_KEY),
        ] {
            let answer = api.get(&format!("{path}{query}"), bearer).await;
            assert_eq!(answer.code(), "bad_request", "{path}{query}");
        }
        let without = Api::filled().await;
        let answer = without
            .get(&format!("{path}&from=acked&device=phone"), &bob)
            .await;
        assert_eq!(answer.code(), "unsupported", "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn subscribed_says_how_much_is_unread() {
    let live = Live::new();
    let (api, bob) = inbox(&live).await;
    let unread = async |path: String| {
        let mut events = Events::open(&api, &path, &bob).await;
        let subscribed = events.expect("subscribed").await;
        subscribed.frame["subscribed"]["unread"].as_u64()
    };
    assert_eq!(unread(format!("{EVENTS}&device=phone")).await, Some(3));
    assert_eq!(
        unread(EVENTS.to_owned()).await,
        Some(0),
        "nobody keeps receipts"
    );
    let polled = api.get(&format!("{POLL}&device=phone"), &bob).await;
    let subscribed = &polled.body["frames"][0]["subscribed"];
    assert_eq!(subscribed["unread"], 3, "{}", polled.text);
    // A poll that goes on was told before.
    let path = format!("{POLL}&device=phone&wait_ms=0&from={}", at(5));
    let polled = api.get(&path, &bob).await;
    let subscribed = &polled.body["frames"][0]["subscribed"];
    assert!(subscribed["unread"] == 0, "{}", polled.text);
}

#[tokio::test(start_paused = true)]
async fn a_slow_count_follows_and_holds_nothing_up() {
    let live = Live::new();
    let (api, bob) = inbox(&live).await;
    *live.read_state.pause.lock() = Duration::from_secs(5);
    let begin = tokio::time::Instant::now();
    let path = format!("{EVENTS}&device=phone&from={}", at(4));
    let mut events = Events::open(&api, &path, &bob).await;
    let subscribed = events.expect("subscribed").await;
    assert_eq!(subscribed.frame["subscribed"]["unread"], 0);
    assert_eq!(numbers(&events.expect("messages").await.frame), [5]);
    assert_eq!(events.expect("live").await.key, "live");
    assert!(
        begin.elapsed() < Duration::from_secs(1),
        "{:?}",
        begin.elapsed()
    );
    let receipt = &events.expect("receipt").await.frame["receipt"];
    assert_eq!(receipt["device"], "phone");
    assert_eq!(receipt["read"], at(2));
    assert_eq!(receipt["unread"], 3);
    assert_eq!(begin.elapsed(), Duration::from_secs(5));
}
