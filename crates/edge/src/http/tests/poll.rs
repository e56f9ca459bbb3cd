use super::harness::*;
use super::*;

use delivery::members::Members;
use tokio::time::Instant;

/// The frames' keys, the payloads in them, and the cursors.
fn parts(answer: &Answer) -> (Vec<String>, Vec<u64>, String) {
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    let frames = answer.body["frames"].as_array().unwrap();
    let key = |frame: &Value| frame.as_object().unwrap().keys().next().unwrap().clone();
    let cursors = answer.body["cursors"].as_array().unwrap();
    let cursors: Vec<&str> = cursors.iter().map(|it| it.as_str().unwrap()).collect();
    (
        frames.iter().map(key).collect(),
        frames.iter().flat_map(numbers).collect(),
        cursors.join(","),
    )
}

#[tokio::test(start_paused = true)]
async fn without_a_cursor_it_is_answered_at_once_with_one() {
    let live = Live::new();
    let api = live.edge().await;
    live.publish("topic:x", 1).await;
    live.publish("room:1", 2).await;
    let begin = Instant::now();
    let (keys, seen, cursors) = parts(&api.get("/v1/poll?channels=room:1", SERVICE_KEY).await);
    assert_eq!(keys, ["subscribed", "live"]);
    assert!(seen.is_empty(), "{seen:?}");
    assert_eq!(cursors, at(2));
    let path = "/v1/poll?channels=room:1,topic:x&from=earliest";
    let (_, seen, cursors) = parts(&api.get(path, SERVICE_KEY).await);
    assert_eq!(seen, [2, 1]);
    assert_eq!(cursors, format!("{},{}", at(2), at(2)));
    assert_eq!(begin.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn it_waits_for_something_new_and_not_longer() {
    let live = Live::new();
    let api = live.edge().await;
    let path = format!("/v1/poll?channels=room:1&from={}&wait_ms=40000", at(0));
    let begin = Instant::now();
    let key = SERVICE_KEY;
    let (answer, ()) = tokio::join!(api.get(&path, key), async {
        tokio::time::sleep(Duration::from_secs(20)).await;
        live.publish("topic:x", 1).await;
        live.publish("room:1", 2).await;
    });
    assert_eq!(begin.elapsed(), Duration::from_secs(20));
    let (keys, seen, cursors) = parts(&answer);
    assert_eq!(keys, ["subscribed", "live", "messages"]);
    assert_eq!(seen, [2]);
    assert_eq!(cursors, at(2));
}

#[tokio::test(start_paused = true)]
async fn a_quiet_wait_ends_in_time_with_an_advanced_cursor() {
    let live = Live::new();
    let api = live.edge().await;
    let path = format!("/v1/poll?channels=room:1&from={}", at(0));
    let begin = Instant::now();
    let (answer, ()) = tokio::join!(api.get(&path, SERVICE_KEY), async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        live.publish("topic:x", 1).await;
    });
    // Above the 15 s that any other request may take.
    assert_eq!(begin.elapsed(), Duration::from_secs(25));
    let (keys, seen, cursors) = parts(&answer);
    assert_eq!(keys, ["subscribed", "live"]);
    assert!(seen.is_empty(), "{seen:?}");
    assert_eq!(cursors, at(1));
    let answer = api
        .get("/v1/poll?channels=a:1&wait_ms=55001", SERVICE_KEY)
        .await;
    assert_eq!(answer.code(), "bad_request");
}

#[tokio::test(start_paused = true)]
async fn consecutive_polls_at_different_edges_lose_and_repeat_nothing() {
    // A window of a few messages: most is read from the log below.
    let live = Live::with(|_| {}, 2_000);
    let edges = [live.edge().await, live.edge().await];
    let mut cursors = "earliest".to_owned();
    let (mut seen, mut sent) = (Vec::new(), 0);
    for round in 0..40 {
        for _ in 0..round % 7 * 40 {
            sent += 1;
            live.publish(if sent % 3 == 0 { "topic:x" } else { "room:1" }, sent)
                .await;
        }
        let path = format!("/v1/poll?channels=room:1,topic:x&from={cursors}&wait_ms=0");
        let answer = edges[round % 2].get(&path, SERVICE_KEY).await;
        let (_, new, next) = parts(&answer);
        seen.extend(new);
        cursors = next;
    }
    loop {
        let path = format!("/v1/poll?channels=room:1,topic:x&from={cursors}&wait_ms=0");
        let (_, new, next) = parts(&edges[0].get(&path, SERVICE_KEY).await);
        if new.is_empty() {
            break;
        }
        seen.extend(new);
        cursors = next;
    }
    let (x, room): (Vec<u64>, Vec<u64>) = seen.iter().partition(|n| *n % 3 == 0);
    assert!(x.iter().copied().eq((1..=sent).filter(|n| n % 3 == 0)));
    assert!(room.iter().copied().eq((1..=sent).filter(|n| n % 3 != 0)));
}

#[tokio::test(start_paused = true)]
async fn a_leaving_edge_and_a_lost_right_end_the_wait() {
    let live = Live::new();
    let api = live.edge().await;
    let (bob, room) = (UserId::parse("bob").unwrap(), channel("room:7"));
    live.rooms
        .add(room.clone(), vec![bob.clone()])
        .await
        .unwrap();
    let path = format!("/v1/poll?channels=room:7&from={}", at(0));
    let begin = Instant::now();
    let bearer = token("bob", 60);
    let (answer, ()) = tokio::join!(api.get(&path, &bearer), async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        live.rooms.remove(room.clone(), vec![bob]).await.unwrap();
    });
    assert_eq!(parts(&answer).0, ["subscribed", "live", "unsubscribed"]);
    assert_eq!(begin.elapsed(), Duration::from_secs(1));
    assert_eq!(api.get(&path, &bearer).await.status, StatusCode::FORBIDDEN);
    let (answer, ()) = tokio::join!(api.get(&path, SERVICE_KEY), async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        api.edge.drain().advance(Phase::Leaving);
    });
    assert_eq!(parts(&answer).2, at(0));
    assert_eq!(begin.elapsed(), Duration::from_secs(2));
}
