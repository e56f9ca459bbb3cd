//! Connecting and provisioning.

use backplane::{Backplane, BackplaneConfig, ConnectError, ProvisionError};
use delivery::Stream;
use devstack::{NatsOptions, NatsServer};
use futures_util::future::join_all;
use protocol::Channel;
use serde_json::json;

use crate::support::{World, config};

#[tokio::test]
async fn edges_that_provision_at_once_agree() {
    let nats = NatsServer::start(NatsOptions::default()).await.unwrap();
    let edges = join_all((0..5).map(|_| Backplane::connect(config(&nats, 4)))).await;
    let edges: Vec<_> = edges.into_iter().map(Result::unwrap).collect();
    let reports = join_all(edges.iter().map(Backplane::provision)).await;
    let created: Vec<_> = reports
        .into_iter()
        .flat_map(|report| report.unwrap().created)
        .collect();
    assert!(created.len() >= 4, "{created:?}");
    for shard in 0..4 {
        let heads = join_all(
            edges
                .iter()
                .map(async |edge| edge.stream_log().head(shard).await.unwrap()),
        )
        .await;
        assert!(heads.iter().all(|head| *head == heads[0]), "{heads:?}");
    }
    // Again, nothing happens.
    let report = edges[0].provision().await.unwrap();
    assert_eq!(report, backplane::Provisioned::default());
}

#[tokio::test]
async fn what_an_operator_changed_stays() {
    let world = World::new(1).await;
    let epoch = world.backplane.stream_log().head(0).await.unwrap().epoch;
    let info = world.api("STREAM.INFO.REJOIN_0", ().into()).await;
    let mut changed = info["config"].clone();
    changed["max_bytes"] = json!(5_000_000);
    changed["max_age"] = json!(3_600_000_000_000_u64);
    changed["duplicate_window"] = json!(60_000_000_000_u64);
    changed["metadata"]["team"] = json!("billing");
    let updated = world.api("STREAM.UPDATE.REJOIN_0", changed).await;
    assert!(updated["error"].is_null(), "{updated}");
    let report = world.backplane.provision().await.unwrap();
    assert_eq!(report.created, Vec::<String>::new());
    let [age, window] = report.warnings.as_slice() else {
        panic!("{report:?}");
    };
    assert!(age.contains("max_age"), "{age}");
    assert!(window.contains("60000 ms is shorter"), "{window}");
    let info = world.api("STREAM.INFO.REJOIN_0", ().into()).await;
    assert_eq!(info["config"]["max_bytes"], 5_000_000);
    assert_eq!(info["config"]["metadata"]["team"], "billing");
    let now = world.backplane.stream_log().head(0).await.unwrap().epoch;
    assert_eq!(now, epoch);
}

#[tokio::test]
async fn another_number_of_shards_is_refused() {
    let world = World::new(4).await;
    let other = Backplane::connect(config(&world.nats, 2)).await.unwrap();
    let error = other.provision().await.unwrap_err();
    assert!(
        matches!(&error, ProvisionError::ShardsMismatch { found, configured: 2, .. } if found == "4"),
        "{error}"
    );
    // Another prefix is another deployment.
    let elsewhere = BackplaneConfig {
        prefix: "staging".into(),
        ..config(&world.nats, 2)
    };
    let elsewhere = Backplane::connect(elsewhere).await.unwrap();
    assert_eq!(elsewhere.provision().await.unwrap().created.len(), 2);
}

#[tokio::test]
async fn a_stream_of_somebody_else_is_left_alone() {
    let nats = NatsServer::start(NatsOptions::default()).await.unwrap();
    let backplane = Backplane::connect(config(&nats, 1)).await.unwrap();
    let world = World { nats, backplane };
    let theirs = json!({"name": "REJOIN_0", "subjects": ["orders.>"]});
    world.api("STREAM.CREATE.REJOIN_0", theirs).await;
    let error = world.backplane.provision().await.unwrap_err();
    assert!(matches!(error, ProvisionError::Foreign { .. }), "{error}");
}

#[tokio::test]
async fn a_server_that_cannot_serve_is_named_at_start() {
    let nobody = BackplaneConfig {
        // Port 1 is privileged and nobody's.
        urls: vec!["nats://127.0.0.1:1".into()],
        ..BackplaneConfig::default()
    };
    let error = Backplane::connect(nobody).await.err().unwrap();
    assert!(matches!(error, ConnectError::Unreachable { .. }), "{error}");
    assert!(error.is_retryable());

    let accounts = NatsOptions {
        extra_config: r#"
            accounts {
              A: { jetstream: enabled, users: [{user: a, password: b}] }
              B: { users: [{user: c, password: d}] }
            }
            no_auth_user: a
        "#
        .into(),
        ..NatsOptions::default()
    };
    let nats = NatsServer::start(accounts).await.unwrap();
    let mut wrong_password = config(&nats, 1);
    wrong_password.auth.user = Some("a".into());
    wrong_password.auth.password = Some("x".into());
    let error = Backplane::connect(wrong_password).await.err().unwrap();
    assert!(
        matches!(error, ConnectError::Unauthorized { .. }),
        "{error}"
    );
    assert!(!error.is_retryable());
    let mut without_streams = config(&nats, 1);
    without_streams.auth.user = Some("c".into());
    without_streams.auth.password = Some("d".into());
    let error = Backplane::connect(without_streams).await.err().unwrap();
    assert!(matches!(error, ConnectError::NoJetStream { .. }), "{error}");
}

#[tokio::test]
async fn the_server_maps_a_channel_to_our_shard() {
    let world = World::new(4).await;
    let client = world.foreign().await;
    for n in 0..200 {
        let id = format!("{n}-{:x}", n * 7_919);
        let channel = Channel::from_parts(["room", "user", "topic_A"][n % 3], &id).unwrap();
        let subject = format!("rejoin.pub.{}.{}", channel.namespace(), channel.id());
        let answer = client.request(subject, "x".into()).await.unwrap();
        let ack: serde_json::Value = serde_json::from_slice(&answer.payload).unwrap();
        let expected = format!("REJOIN_{}", channel.shard(4));
        assert_eq!(ack["stream"], expected, "{channel}");
    }
}

#[tokio::test]
async fn the_shipped_configuration_is_valid_and_durable() {
    let shipped = include_str!("../../../../deploy/nats.conf");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("nats.conf");
    std::fs::write(&file, shipped).unwrap();
    let program =
        tokio::task::spawn_blocking(|| devstack::Tools::nats_server(&devstack::silent()).unwrap());
    let checked = tokio::process::Command::new(program.await.unwrap())
        .arg("-t")
        .arg("-c")
        .arg(&file)
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success(), "{said}");
    assert!(shipped.contains("sync_interval: always"));
    assert!(shipped.contains("{{partition(1,1,2)}}"));
}

/// No old server is at hand; how one greets is known, and nothing more of it
/// is needed here.
#[tokio::test]
async fn a_server_that_is_too_old_is_refused() {
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let old = tokio::spawn(async move {
        let (socket, _) = listener.accept().await.unwrap();
        let mut socket = BufReader::new(socket);
        let greeting = b"INFO {\"server_id\":\"x\",\"server_name\":\"x\",\"version\":\"2.9.10\",\"go\":\"go1.19\",\"host\":\"127.0.0.1\",\"port\":4222,\"headers\":true,\"max_payload\":1048576,\"proto\":1}\r\n";
        socket.write_all(greeting).await.unwrap();
        let mut line = String::new();
        while socket.read_line(&mut line).await.unwrap_or(0) > 0 {
            if line.starts_with("PING") {
                socket.write_all(b"PONG\r\n").await.unwrap();
            }
            line.clear();
        }
    });
    let config = BackplaneConfig {
        urls: vec![format!("nats://{address}")],
        ..BackplaneConfig::default()
    };
    let error = Backplane::connect(config).await.err().unwrap();
    assert!(
        matches!(error, ConnectError::ServerTooOld { .. }),
        "{error}"
    );
    assert!(error.to_string().contains("2.9.10 is too old, 2.12.6"));
    assert!(!error.is_retryable());
    old.abort();
}
