use super::harness::*;
use super::sse::*;
use super::*;

use delivery::members::Members;

#[tokio::test(start_paused = true)]
async fn what_was_missed_comes_first_then_what_is_new() {
    let live = Live::new();
    let api = live.edge().await;
    for n in 1..=3 {
        live.publish("room:1", n).await;
    }
    let path = format!("/v1/events?channels=room:1&from={}", at(1));
    let mut events = Events::open(&api, &path, &token("alice", 60)).await;
    let connected = events.next().await.unwrap();
    assert_eq!(connected.key, "connected");
    assert_eq!(connected.frame["connected"]["user"], "alice");
    assert_eq!(connected.frame["connected"]["edge"], "edge-1");
    assert_eq!(connected.id, at(1));
    let min_ms = u64::from(api.edge.config().limits.retry_min_ms);
    assert!((min_ms / 2..=min_ms * 3 / 2).contains(&events.retry_ms.unwrap()));
    let subscribed = events.next().await.unwrap();
    assert_eq!(subscribed.key, "subscribed");
    assert_eq!(subscribed.id, at(1));
    let missed = events.next().await.unwrap();
    assert_eq!(numbers(&missed.frame), [2, 3]);
    assert_eq!(missed.id, at(3));
    assert_eq!(events.next().await.unwrap().key, "live");
    live.publish("room:1", 4).await;
    let new = events.next().await.unwrap();
    assert_eq!(numbers(&new.frame), [4]);
    assert_eq!(new.id, at(4));
}

#[tokio::test(start_paused = true)]
async fn the_last_events_id_goes_on_at_another_edge_without_gap_or_repeat() {
    let live = Live::new();
    let (here, there) = (live.edge().await, live.edge().await);
    let path = "/v1/events?channels=room:1,topic:x&from=earliest";
    let mut seen = Vec::new();
    let mut id = String::new();
    let mut sent = 0;
    for round in 0..12 {
        for _ in 0..3 {
            sent += 1;
            live.publish(if sent % 2 == 0 { "room:1" } else { "topic:x" }, sent)
                .await;
        }
        let api = if round % 2 == 0 { &here } else { &there };
        let mut ask = request(Method::GET, path, SERVICE_KEY, Body::empty());
        ask.headers_mut()
            .insert("last-event-id", id.parse().unwrap());
        let mut events = Events::send(api, ask).await;
        // Cut at any event, the first among them: an id is always right.
        for _ in 0..=round % 5 {
            let event = events.next().await.unwrap();
            id = event.id;
            seen.extend(numbers(&event.frame));
        }
    }
    let mut ask = request(Method::GET, path, SERVICE_KEY, Body::empty());
    ask.headers_mut()
        .insert("last-event-id", id.parse().unwrap());
    let mut events = Events::send(&here, ask).await;
    while seen.len() < 36 {
        seen.extend(numbers(&events.next().await.unwrap().frame));
    }
    let in_order = |odd| seen.iter().copied().filter(move |n| n % 2 == odd);
    assert!(in_order(0).eq((1..=18).map(|n| n * 2)), "{seen:?}");
    assert!(in_order(1).eq((0..18).map(|n| n * 2 + 1)), "{seen:?}");
}

#[tokio::test(start_paused = true)]
async fn a_quiet_channels_position_moves_with_the_ping() {
    let live = Live::new();
    let api = live.edge().await;
    let mut events = Events::open(&api, "/v1/events?channels=room:1,topic:q", SERVICE_KEY).await;
    // Until a subscription has started, what was asked for stands for it.
    assert_eq!(events.next().await.unwrap().id, format!("{},tail", at(0)));
    for _ in 0..3 {
        let begin = format!("{},{}", at(0), at(0));
        assert_eq!(events.next().await.unwrap().id, begin);
    }
    live.publish("room:1", 1).await;
    let moved = events.expect("messages").await;
    assert_eq!(moved.id, format!("{},{}", at(1), at(0)));
    live.publish("user:other", 2).await;
    let ping = events.expect("ping").await;
    assert_eq!(ping.id, format!("{},{}", at(2), at(2)));
    assert_eq!(ping.frame["ping"]["positions"]["0"], at(2));
}

#[tokio::test(start_paused = true)]
async fn pings_come_in_time_and_no_timeout_cuts_the_stream() {
    let live = Live::new();
    let api = live.edge().await;
    let mut events = Events::open(&api, "/v1/events?channels=room:1", SERVICE_KEY).await;
    events.expect("live").await;
    let begin = tokio::time::Instant::now();
    let limits = &api.edge.config().limits;
    let mut last = begin;
    while begin.elapsed() < limits.request_timeout() * 20 {
        events.expect("ping").await;
        let interval = limits.ping_interval() + Duration::from_millis(10);
        assert!(last.elapsed() <= interval, "{:?}", last.elapsed());
        last = tokio::time::Instant::now();
    }
    live.publish("room:1", 1).await;
    assert_eq!(numbers(&events.expect("messages").await.frame), [1]);
}

#[tokio::test(start_paused = true)]
async fn a_leaving_edge_says_so_and_is_counted() {
    let live = Live::new();
    let api = live.edge().await;
    let mut events = Events::open(&api, "/v1/events?channels=room:1", &token("a", 60)).await;
    events.expect("live").await;
    let mut service = Events::open(&api, "/v1/events?channels=room:1", SERVICE_KEY).await;
    service.expect("live").await;
    let transport = crate::registry::Transport::EventStream;
    assert_eq!(api.edge.registry().connections(transport), 2);
    api.edge.drain().advance(Phase::Leaving);
    let goaway = events.expect("goaway").await;
    assert_eq!(goaway.frame["goaway"]["reason"], "drain");
    assert_eq!(
        goaway.frame["goaway"]["retry_after_ms"].as_u64(),
        events.retry_ms
    );
    assert_eq!(goaway.id, at(0));
    assert_eq!(events.next().await, None);
    service.expect("goaway").await;
    drop(events);
    drop(service);
    assert_eq!(api.edge.registry().connections(transport), 0);
    let draining = Some(protocol::CloseCode::Draining);
    let closes: Vec<_> = api.edge.counters().closes().collect();
    assert!(closes.contains(&(draining, 2)), "{closes:?}");
    let late = api.get("/v1/events?channels=room:1", SERVICE_KEY).await;
    assert_eq!(late.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(late.code(), "unavailable");
}

#[tokio::test(start_paused = true)]
async fn a_membership_grants_a_room_until_it_ends() {
    let live = Live::new();
    let api = live.edge().await;
    let (bob, room) = (UserId::parse("bob").unwrap(), channel("room:7"));
    let path = "/v1/events?channels=room:7,user:bob";
    let refused = api.get(path, &token("bob", 60)).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    assert_eq!(refused.body["error"]["channel"], "room:7");
    live.rooms
        .add(room.clone(), vec![bob.clone()])
        .await
        .unwrap();
    let mut events = Events::open(&api, path, &token("bob", 60)).await;
    live.publish("room:7", 1).await;
    events.expect("messages").await;
    live.rooms.remove(room, vec![bob]).await.unwrap();
    let removed = events.expect("unsubscribed").await;
    assert_eq!(removed.frame["unsubscribed"]["channel"], "room:7");
    assert_eq!(removed.frame["unsubscribed"]["code"], "removed");
    live.publish("room:7", 2).await;
    live.publish("user:bob", 3).await;
    assert_eq!(numbers(&events.expect("messages").await.frame), [3]);
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_with_its_last_subscription() {
    let live = Live::new();
    let api = live.edge().await;
    let (bob, room) = (UserId::parse("bob").unwrap(), channel("room:7"));
    live.rooms
        .add(room.clone(), vec![bob.clone()])
        .await
        .unwrap();
    let path = "/v1/events?channels=room:7";
    let mut events = Events::open(&api, path, &token("bob", 60)).await;
    events.expect("live").await;
    live.rooms.remove(room, vec![bob]).await.unwrap();
    events.expect("unsubscribed").await;
    assert_eq!(events.next().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_with_its_token() {
    let live = Live::new();
    let api = live.edge().await;
    let mut events = Events::open(&api, "/v1/events?channels=room:1", &token("a", 3)).await;
    let notice = events.expect("token_expiring").await;
    assert!(
        notice.frame["token_expiring"]["expires_in_ms"]
            .as_u64()
            .unwrap()
            <= 5_000
    );
    let end = events.expect("error").await;
    assert_eq!(end.frame["error"]["code"], "unauthorized");
    assert_eq!(events.next().await, None);
}

#[tokio::test]
async fn a_ticket_opens_one_stream_on_any_edge() {
    let live = Live::new();
    let (here, there) = (live.edge().await, live.edge().await);
    let issued = here.post("/v1/tickets", &token("alice", 60), "").await;
    assert_eq!(issued.status, StatusCode::OK, "{}", issued.text);
    assert_eq!(issued.body["expires_in_ms"], 30_000);
    assert_eq!(issued.headers[header::CACHE_CONTROL], "no-store");
    let ticket = issued.body["ticket"].as_str().unwrap();
    let path = format!("/v1/events?channels=room:1,user:alice&ticket={ticket}");
    let mut events = Events::open(&there, &path, "").await;
    assert_eq!(
        events.next().await.unwrap().frame["connected"]["user"],
        "alice"
    );
    let again = there.get(&path, "").await;
    assert_eq!(again.status, StatusCode::UNAUTHORIZED);
    assert_eq!(again.code(), "unauthorized");
    // It carries the rights of its token, and is nothing elsewhere.
    let issued = here.post("/v1/tickets", &token("alice", 60), "").await;
    let ticket = issued.body["ticket"].as_str().unwrap();
    let elsewhere = here.get("/v1/poll?channels=room:1", ticket).await;
    assert_eq!(elsewhere.status, StatusCode::UNAUTHORIZED);
    let path = format!("/v1/events?channels=topic:x&ticket={ticket}");
    assert_eq!(here.get(&path, "").await.status, StatusCode::FORBIDDEN);
    let service = here.post("/v1/tickets", SERVICE_KEY, "").await;
    assert_eq!(service.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn bad_requests_for_events_are_told() {
    let live = Live::new();
    let api = live.edge().await;
    let cases = [
        ("", "bad_request"),
        ("channels=", "bad_channel"),
        ("channels=room", "bad_channel"),
        ("channels=room:1,room:1", "bad_request"),
        ("channels=room:1&from=x", "bad_cursor"),
        ("channels=room:1&from=acked", "bad_request"),
        ("channels=room:1&from=tail,tail", "bad_cursor"),
        ("channels=room:1&form=tail", "bad_request"),
    ];
    for (query, code) in cases {
        for path in ["events", "poll"] {
            let answer = api.get(&format!("/v1/{path}?{query}"), SERVICE_KEY).await;
            assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{query}");
            assert_eq!(answer.code(), code, "{query}");
        }
    }
    for bearer in ["", "rj_wrong", "a.b.c"] {
        let answer = api.get("/v1/events?channels=room:1", bearer).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    }
    let names: Vec<String> = (0..129).map(|n| format!("room:{n}")).collect();
    let path = format!("/v1/events?channels={}", names.join(","));
    let answer = api.get(&path, SERVICE_KEY).await;
    assert_eq!(answer.code(), "too_many_subscriptions");
    live.rooms
        .away
        .store(true, std::sync::atomic::Ordering::Relaxed);
    let answer = api.get("/v1/events?channels=room:9", &token("a", 60)).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.headers[header::RETRY_AFTER], "3");
    assert!(!answer.text.contains("secret"), "{}", answer.text);
}

#[tokio::test(start_paused = true)]
async fn continuity_that_cannot_be_proved_is_a_reset_event() {
    let live = Live::new();
    let api = live.edge().await;
    live.publish("room:1", 1).await;
    let path = "/v1/events?channels=room:1&from=00000000000000aa-5";
    let mut events = Events::open(&api, path, SERVICE_KEY).await;
    let reset = events.expect("reset").await;
    assert_eq!(reset.frame["reset"]["reason"], "epoch");
    assert_eq!(reset.id, at(1));
}
