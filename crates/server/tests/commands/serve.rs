use devstack::{NatsOptions, NatsServer, Signal};

use super::*;

#[tokio::test]
async fn an_edge_waits_for_nats_and_says_that_it_is_alive() {
    // A port on which nothing listens, and later nats-server does.
    let nats = NatsServer::start(NatsOptions::default()).await.unwrap();
    nats.stop().await;
    let setup = Setup::new(&nats.url(), "");
    let mut edge = setup.serve();
    setup.until("/healthz", 200).await;
    let reasons = setup.until("/readyz", 503).await;
    assert!(reasons.contains("nats"), "{reasons}");
    let answer = setup.until("/v1/channels/user:1/messages", 503).await;
    assert!(answer.contains("\"unavailable\""), "{answer}");

    nats.restart().await.unwrap();
    setup.until("/readyz", 200).await;

    // And while it runs: alive, not ready, ready again.
    nats.kill();
    let reasons = setup.until("/readyz", 503).await;
    assert!(reasons.contains("not connected"), "{reasons}");
    setup.until("/healthz", 200).await;
    nats.restart().await.unwrap();
    setup.until("/readyz", 200).await;
    assert!(edge.exited().is_none(), "{}", setup.log());
}

#[tokio::test]
async fn an_edge_leaves_in_order_when_asked() {
    let nats = NatsServer::start(NatsOptions::default()).await.unwrap();
    let setup = Setup::new(&nats.url(), "");
    let mut edge = setup.serve();
    setup.until("/readyz", 200).await;
    edge.signal(Signal::Terminate).unwrap();
    // Not ready first, while it still answers.
    let reasons = setup.until("/readyz", 503).await;
    assert!(reasons.contains("drain"), "{reasons}");
    let status = edge.wait(LONG).await.expect("it did not end");
    assert!(status.success(), "{status}; log:\n{}", setup.log());
}

#[tokio::test]
async fn an_edge_stops_before_nats_was_there() {
    let port = PortLease::take().unwrap();
    let setup = Setup::new(&format!("nats://{}", port.addr()), "");
    let mut edge = setup.serve();
    setup.until("/healthz", 200).await;
    edge.signal(Signal::Interrupt).unwrap();
    let status = edge.wait(LONG).await.expect("it did not end");
    assert!(status.success(), "{status}; log:\n{}", setup.log());
}

#[tokio::test]
async fn what_waiting_does_not_heal_ends_the_process_with_the_reason() {
    let nats = NatsServer::start(NatsOptions::default()).await.unwrap();
    let setup = Setup::new(&nats.url(), "");
    let mut first = setup.serve();
    setup.until("/readyz", 200).await;

    // The port is taken.
    let second = run(&["serve"], &setup.config(), &[]).await;
    assert_eq!(second.status.code(), Some(1));
    let message = stderr(&second);
    assert!(message.contains("edge.listen.address"), "{message}");

    // The streams belong to another number of shards.
    let port = PortLease::take().unwrap();
    let address = port.addr().to_string();
    let variables = [
        ("REJOIN_EDGE__LISTEN__ADDRESS", address.as_str()),
        ("REJOIN_BACKPLANE__SHARDS", "4"),
    ];
    let other = run(&["serve"], &setup.config(), &variables).await;
    assert_eq!(other.status.code(), Some(1), "{}", stderr(&other));
    assert!(stderr(&other).contains("shards"), "{}", stderr(&other));
    assert!(first.exited().is_none());
}

#[tokio::test]
async fn bad_configuration_names_the_field() {
    let setup = Setup::new("nats://127.0.0.1:1", "");
    for (name, value, field) in [
        ("REJOIN_EDGE__LIMITS__PING_MS", "1", "edge.limits.ping_ms"),
        ("REJOIN_EDGE__LIMITS__PINGS", "1", "pings"),
        ("REJOIN_BACKPLANE__SHARDS", "many", "backplane.shards"),
        (
            "REJOIN_EDGE__AUTH__KEYS",
            "[{alg=\"none\"}]",
            "edge.auth.keys",
        ),
    ] {
        let output = run(&["serve"], &setup.config(), &[(name, value)]).await;
        assert_eq!(output.status.code(), Some(1), "{name}");
        assert!(stderr(&output).contains(field), "{}", stderr(&output));
    }
    // A key that is well-formed and too weak is found at start as well.
    let weak = "[{alg=\"HS256\", secret=\"short\"}]";
    let nats = NatsServer::start(NatsOptions::default()).await.unwrap();
    let url = format!("[\"{}\"]", nats.url());
    let variables = [
        ("REJOIN_EDGE__AUTH__KEYS", weak),
        ("REJOIN_BACKPLANE__URLS", url.as_str()),
    ];
    let output = run(&["serve"], &setup.config(), &variables).await;
    assert_eq!(output.status.code(), Some(1));
    let message = stderr(&output);
    assert!(
        message.contains("edge.auth") && message.contains("32 bytes"),
        "{message}"
    );
}

#[tokio::test]
async fn the_configuration_can_be_printed_without_its_secrets() {
    let setup = Setup::new("nats://user:hunter2@127.0.0.1:1", "");
    let output = run(&["serve", "--print-config"], &setup.config(), &[]).await;
    assert!(output.status.success(), "{}", stderr(&output));
    let printed = stdout(&output);
    assert!(printed.contains("edge-under-test"), "{printed}");
    assert!(!printed.contains(SECRET), "{printed}");
    assert!(!printed.contains("hunter2"), "{printed}");
}
