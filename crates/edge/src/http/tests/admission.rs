use super::harness::*;
use super::sse::Events;
use super::*;

#[tokio::test(start_paused = true)]
async fn who_is_over_the_limit_is_told_when_to_come_back() {
    let live = Live::with(|config| config.admission.connects_burst = 2, 1 << 20);
    let api = live.edge().await;
    api.edge.admission().set_edges(1);
    let path = "/v1/events?channels=room:1";
    let _first = Events::open(&api, path, SERVICE_KEY).await;
    let _second = Events::open(&api, path, SERVICE_KEY).await;
    let refused = api.get(path, SERVICE_KEY).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.code(), "unavailable");
    assert_eq!(refused.headers[header::RETRY_AFTER], "1");
    assert!(refused.body["error"]["retry_after_ms"].is_u64());
    // Requests are not connects.
    assert_eq!(api.get("/readyz", "").await.status, StatusCode::OK);
    let poll = api.get("/v1/poll?channels=room:1", SERVICE_KEY).await;
    assert_eq!(poll.status, StatusCode::OK);
    tokio::time::sleep(Duration::from_millis(2)).await;
    let _third = Events::open(&api, path, SERVICE_KEY).await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_lived_long_enough_is_sent_away() {
    let live = Live::with(|config| config.limits.lifetime_ms = 10_000, 1 << 20);
    let api = live.edge().await;
    let begin = tokio::time::Instant::now();
    let mut events = Events::open(&api, "/v1/events?channels=room:1", SERVICE_KEY).await;
    let goaway = events.expect("goaway").await;
    assert_eq!(goaway.frame["goaway"]["reason"], "lifetime");
    assert!(events.next().await.is_none());
    let lived = begin.elapsed().as_millis();
    assert!((7_500..=10_010).contains(&lived), "{lived} ms");
}

#[tokio::test(start_paused = true)]
async fn a_drained_edge_takes_no_connections_until_it_is_undrained() {
    let live = Live::new();
    let api = live.edge().await;
    let path = "/v1/events?channels=room:1";
    let mut events = Events::open(&api, path, SERVICE_KEY).await;
    api.edge.drain().rest(Some(Duration::from_secs(1)));
    let goaway = events.expect("goaway").await;
    assert_eq!(goaway.frame["goaway"]["reason"], "drain");
    let refused = api.get(path, SERVICE_KEY).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    let ready = api.get("/readyz", "").await;
    assert_eq!(ready.status, StatusCode::SERVICE_UNAVAILABLE);
    api.edge.drain().resume();
    assert_eq!(api.get("/readyz", "").await.status, StatusCode::OK);
    let _again = Events::open(&api, path, SERVICE_KEY).await;
}
