use std::collections::{HashMap, HashSet};

use super::*;

/// The samples of an exposition by name and labels, after checking that
/// every line is one that Prometheus reads.
fn parse(text: &str) -> HashMap<String, f64> {
    let mut kinds: HashMap<&str, &str> = HashMap::new();
    let mut helped = HashSet::new();
    let mut samples = HashMap::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(!help.is_empty(), "{line}");
            assert!(helped.insert(name), "{name} is there twice");
            continue;
        }
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(helped.contains(name), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            kinds.insert(name, kind);
            continue;
        }
        let (id, value) = line.rsplit_once(' ').unwrap();
        let name = id.split('{').next().unwrap();
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        assert!(name.starts_with("rejoin_"), "{line}");
        assert!(name.chars().all(allowed), "{line}");
        let histogram = ["_bucket", "_sum", "_count"].iter().any(|suffix| {
            let family = name.strip_suffix(suffix).unwrap_or_default();
            kinds.get(family) == Some(&"histogram")
        });
        assert!(histogram || kinds.contains_key(name), "{line} has no type");
        let labels = &id[name.len()..];
        assert!(labels.is_empty() || (labels.starts_with('{') && labels.ends_with("\"}")));
        let twice = samples.insert(id.to_owned(), value.parse().unwrap());
        assert_eq!(twice, None, "{line} is there twice");
    }
    samples
}

async fn scrape(api: &Api) -> HashMap<String, f64> {
    let answer = api.get("/metrics", ADMIN_KEY).await;
    assert_eq!(answer.status, StatusCode::OK);
    let kind = answer.headers[header::CONTENT_TYPE].to_str().unwrap();
    assert_eq!(kind, "text/plain; version=0.0.4; charset=utf-8");
    parse(&answer.text)
}

#[tokio::test]
async fn the_numbers_move_with_what_happens() {
    let api = Api::filled().await;
    let before = scrape(&api).await;
    assert_eq!(before["rejoin_deliveries_total"], 0.0);
    assert_eq!(before["rejoin_ready"], 1.0);
    assert_eq!(before["rejoin_draining"], 0.0);
    assert_eq!(before["rejoin_window_head_sequence{shard=\"0\"}"], 10.0);
    assert_eq!(before["rejoin_window_messages{shard=\"0\"}"], 10.0);
    assert_eq!(before["rejoin_window_filled{shard=\"0\"}"], 1.0);
    assert_eq!(
        before["rejoin_window_oldest_timestamp_seconds{shard=\"0\"}"],
        1_700_000_000.0
    );
    let path = "/v1/channels/room:1/messages?from=";
    for from in ["00000000000000ff-0", "00000000000000aa-0"] {
        let answer = api.get(&format!("{path}{from}"), SERVICE_KEY).await;
        assert_eq!(answer.status, StatusCode::OK);
    }
    api.edge.readiness().not_ready("nats", "away");
    api.edge.drain().advance(Phase::Unready);
    let after = scrape(&api).await;
    assert_eq!(after["rejoin_deliveries_total"], 10.0);
    // The second one went on at the head after its reset.
    assert_eq!(
        after["rejoin_catch_up_messages_count{source=\"window\"}"],
        2.0
    );
    assert_eq!(
        after["rejoin_catch_up_messages_sum{source=\"window\"}"],
        10.0
    );
    assert_eq!(after["rejoin_resets_total{reason=\"epoch\"}"], 1.0);
    assert_eq!(after["rejoin_log_requests_total{log=\"stream\"}"], 1.0);
    assert_eq!(after["rejoin_ready"], 0.0);
    assert_eq!(after["rejoin_draining"], 1.0);
}

#[tokio::test]
async fn connections_are_counted_by_transport_and_close_code() {
    let api = Api::new();
    let user = UserId::parse("42").unwrap();
    let transport = crate::registry::Transport::EventStream;
    let registered = api.edge.registry().add(user, None, transport);
    let counters = api.edge.counters();
    counters.count_close(Some(protocol::CloseCode::Draining));
    counters.count_close(None);
    let open = scrape(&api).await;
    assert_eq!(open["rejoin_connections{transport=\"sse\"}"], 1.0);
    assert_eq!(open["rejoin_connections{transport=\"websocket\"}"], 0.0);
    assert_eq!(open["rejoin_users"], 1.0);
    assert_eq!(
        open["rejoin_closes_total{code=\"4000\",reason=\"draining\"}"],
        1.0
    );
    assert_eq!(open["rejoin_closes_total{code=\"0\",reason=\"peer\"}"], 1.0);
    drop(registered);
    let closed = scrape(&api).await;
    assert_eq!(closed["rejoin_connections{transport=\"sse\"}"], 0.0);
    assert_eq!(closed["rejoin_users"], 0.0);
}

#[tokio::test]
async fn other_parts_add_their_own() {
    let api = Api::new();
    api.edge.metrics().add(|out| {
        out.gauge("rejoin_archive_lag_messages", "Not archived yet.")
            .sample(&[("shard", "0")], 7_u64);
    });
    let samples = scrape(&api).await;
    assert_eq!(samples["rejoin_archive_lag_messages{shard=\"0\"}"], 7.0);
}

#[tokio::test]
async fn only_an_administrator_sees_them() {
    let api = Api::new();
    for (bearer, status) in [
        ("", StatusCode::UNAUTHORIZED),
        ("rj_wrong", StatusCode::UNAUTHORIZED),
        (SERVICE_KEY, StatusCode::FORBIDDEN),
        (&*token("alice", 60), StatusCode::FORBIDDEN),
    ] {
        let answer = api.get("/metrics", bearer).await;
        assert_eq!(answer.status, status, "{bearer}");
        assert!(!answer.text.contains("rejoin_deliveries"), "{bearer}");
    }
}
