use devstack::{NatsOptions, NatsServer, SyncInterval};

use super::*;

async fn check(setup: &Setup, more: &[&str]) -> (Option<i32>, String) {
    let arguments = [&["check"], more].concat();
    let output = run(&arguments, &setup.config(), &[]).await;
    (output.status.code(), stdout(&output))
}

#[tokio::test]
async fn a_deployment_that_works_is_told_what_is_weak() {
    let nats = NatsServer::start(NatsOptions {
        monitoring: true,
        sync: SyncInterval::Always,
        ..NatsOptions::default()
    })
    .await
    .unwrap();
    let setup = Setup::new(&nats.url(), "");
    let (code, report) = check(&setup, &[]).await;
    assert_eq!(code, Some(0), "{report}");
    assert!(report.contains("does not exist yet"), "{report}");

    let _edge = setup.serve();
    setup.until("/readyz", 200).await;
    let monitor = nats.monitor_url().unwrap();
    let (code, report) = check(&setup, &["--nats-monitor", &monitor]).await;
    assert_eq!(code, Some(0), "{report}");
    assert!(report.contains("nats-server 2."), "{report}");
    assert!(report.contains("REJOIN_0: 0 messages"), "{report}");
    assert!(report.contains("reaches the streams"), "{report}");
    assert!(report.contains("on the disk before"), "{report}");
    assert!(report.contains("Postgres: not configured"), "{report}");
    // The look at the mapping has stored nothing.
    let (_, report) = check(&setup, &[]).await;
    assert!(report.contains("REJOIN_0: 0 messages"), "{report}");
}

#[tokio::test]
async fn a_mapping_for_another_number_of_shards_is_found() {
    // The server maps for one shard, the edges look into four.
    let nats = NatsServer::start(NatsOptions::default()).await.unwrap();
    let setup = Setup::new(&nats.url(), "shards = 4\n");
    let _edge = setup.serve();
    setup.until("/readyz", 200).await;
    let (code, report) = check(&setup, &[]).await;
    assert_eq!(code, Some(1), "{report}");
    assert!(report.contains("in which no edge looks"), "{report}");
    assert!(report.contains("partition(4,1,2)"), "{report}");
}

#[tokio::test]
async fn what_is_not_there_is_told_with_what_to_do() {
    let port = PortLease::take().unwrap();
    let setup = Setup::new(&format!("nats://{}", port.addr()), "");
    let (code, report) = check(&setup, &[]).await;
    assert_eq!(code, Some(1), "{report}");
    assert!(report.contains("BAD   NATS"), "{report}");
    assert!(report.contains("backplane.urls"), "{report}");

    std::fs::write(setup.config(), "[edge]\nnmae = \"x\"\n").unwrap();
    let (code, report) = check(&setup, &[]).await;
    assert_eq!(code, Some(1), "{report}");
    assert!(report.contains("nmae"), "{report}");
}

#[tokio::test]
async fn what_a_user_may_not_do_is_found() {
    // Edges have every right, the user that is checked has not.
    let nats = NatsServer::start(NatsOptions {
        extra_config: "authorization { users: [
            { user: all, password: all }
            { user: few, password: few, permissions: { publish: { deny: [\"rejoin.msg.>\"] } } }
        ] }
        no_auth_user: all"
            .to_owned(),
        ..NatsOptions::default()
    })
    .await
    .unwrap();
    let setup = Setup::new(&nats.url(), "");
    let _edge = setup.serve();
    setup.until("/readyz", 200).await;
    let (code, report) = check(&setup, &[]).await;
    assert_eq!(code, Some(0), "{report}");
    assert!(report.contains("ok    NATS permissions"), "{report}");
    assert!(report.contains("ok    clock of NATS"), "{report}");

    let variables = [
        ("REJOIN_BACKPLANE__AUTH__USER", "few"),
        ("REJOIN_BACKPLANE__AUTH__PASSWORD", "few"),
        // More than any limit.
        ("REJOIN_EDGE__LISTEN__CONNECTIONS", "10000000"),
    ];
    let output = run(&["check"], &setup.config(), &variables).await;
    let report = stdout(&output);
    assert_eq!(output.status.code(), Some(1), "{report}");
    assert!(
        report.contains("nothing gets through to rejoin.msg.0.rejoin-check.0\n"),
        "{report}"
    );
    assert!(report.contains("deploy/nats-users.conf"), "{report}");
    let descriptors = report.contains("edge.listen.connections is 10000000");
    assert!(
        descriptors || report.contains("file descriptors: no limit"),
        "{report}"
    );
}
