use super::harness::*;
use super::*;

const PATH: &str = "/v1/channels/room:1/messages";

/// A hundred messages, every second one in `room:1`, of which the window
/// holds the newest few.
async fn hundred() -> (Live, Api) {
    let live = Live::with(|_| {}, 8_000);
    let api = live.edge().await;
    for n in 1..=100 {
        let to = if n % 2 == 0 { "room:1" } else { "topic:x" };
        live.publish(to, n).await;
    }
    let floor = api.edge.hub().windows()[0].stats().floor;
    assert!((60..95).contains(&floor), "{floor}");
    (live, api)
}

fn data(answer: &Answer) -> Vec<u64> {
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    let messages = answer.body["messages"].as_array().unwrap();
    messages
        .iter()
        .map(|it| it["data"].as_u64().unwrap())
        .collect()
}

#[tokio::test]
async fn backwards_page_by_page_is_everything_newest_first() {
    let (live, api) = hundred().await;
    let expected: Vec<u64> = (1..=50).rev().map(|n| n * 2).collect();
    for limit in [1, 3, 7, 10, 50, 60] {
        let mut path = format!("{PATH}?order=desc&limit={limit}");
        let mut seen = Vec::new();
        loop {
            let page = api.get(&path, SERVICE_KEY).await;
            let new = data(&page);
            assert!(new.len() <= limit);
            seen.extend(new);
            if page.body["more"] == false {
                break;
            }
            let before = page.body["before"].as_str().unwrap();
            path = format!("{PATH}?before={before}&limit={limit}");
            // What is published meanwhile does not shift the pages.
            live.publish("topic:x", 1).await;
        }
        assert_eq!(seen, expected, "limit {limit}");
    }
}

#[tokio::test]
async fn a_page_has_the_nearest_messages_in_the_order_asked_for() {
    let (_live, api) = hundred().await;
    let get = async |query: &str| {
        let page = api
            .get(&format!("{PATH}?limit=3&{query}"), SERVICE_KEY)
            .await;
        data(&page)
    };
    // Inside the window, across its floor, and below it.
    for end in [98, 90, 80, 70, 40, 10] {
        let before = format!("before={}", at(end));
        let newest_first = [end - 2, end - 4, end - 6];
        assert_eq!(get(&before).await, newest_first, "{end}");
        let oldest_first = [end - 6, end - 4, end - 2];
        assert_eq!(get(&format!("{before}&order=asc")).await, oldest_first);
        let after = format!("after={}", at(end - 8));
        assert_eq!(get(&after).await, oldest_first, "{end}");
        assert_eq!(get(&format!("{after}&order=desc")).await, newest_first);
    }
    assert_eq!(get("order=desc").await, [100, 98, 96]);
    assert_eq!(get("order=asc").await, [2, 4, 6]);
    assert_eq!(get(&format!("before={}", at(5))).await, [4, 2]);
    assert!(get(&format!("before={}", at(2))).await.is_empty());
    assert!(get(&format!("after={}", at(100))).await.is_empty());
}

#[tokio::test]
async fn history_is_read_with_the_right_to_read() {
    let (_live, api) = hundred().await;
    let path = format!("{PATH}?order=desc");
    let alice = api.get(&path, &token("alice", 60)).await;
    assert_eq!(alice.status, StatusCode::OK);
    let other = "/v1/channels/room:2/messages?order=desc";
    let refused = api.get(other, &token("alice", 60)).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    assert_eq!(api.get(&path, "").await.status, StatusCode::UNAUTHORIZED);
    let empty = api.get(other, SERVICE_KEY).await;
    assert_eq!(data(&empty), [] as [u64; 0]);
    assert_eq!(empty.body["more"], false);
}

#[tokio::test]
async fn bad_questions_about_history_are_told() {
    let (_live, api) = hundred().await;
    let (before, after) = (format!("before={}", at(9)), format!("after={}", at(3)));
    let unknown = "before=00000000000000aa-9".to_owned();
    for (query, code) in [
        (format!("{before}&{after}"), "bad_request"),
        (format!("{before}&from=tail"), "bad_request"),
        (format!("{before}&limit=0"), "bad_request"),
        ("order=up".to_owned(), "bad_request"),
        ("before=x".to_owned(), "bad_cursor"),
        ("after=tail".to_owned(), "bad_cursor"),
        (unknown, "not_found"),
    ] {
        let answer = api.get(&format!("{PATH}?{query}"), SERVICE_KEY).await;
        assert_eq!(answer.code(), code, "{query}");
    }
}
