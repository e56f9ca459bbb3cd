//! The users of `deploy/nats-users.conf`: what each can do, and what not.

use std::time::Duration;

use async_nats::{Client, ConnectOptions};
use backplane::{Auth, Backplane, BackplaneConfig};
use delivery::archive::ArchiveSource;
use delivery::publish::Publish;
use delivery::signal::{Signal, Signals};
use devstack::{NatsOptions, NatsServer};
use futures_util::StreamExt;
use serde_json::{Value, json};

use crate::support::{PATIENCE, channel, config, publication};

/// How long the answer to something forbidden is waited for: NATS drops it
/// without a word to the one who asked.
const SILENCE: Duration = Duration::from_millis(300);

pub(crate) async fn server() -> NatsServer {
    let users = include_str!("../../../../deploy/nats-users.conf");
    // Variables of the file, in the place of those of the environment.
    let passwords: String = ["EDGE", "ARCHIVER", "SERVICE", "VIEWER", "OPERATOR"]
        .map(|name| format!("NATS_{name}_PASSWORD: \"{}\"\n", password(name)))
        .concat();
    let options = NatsOptions {
        extra_config: format!("{passwords}{users}"),
        ..NatsOptions::default()
    };
    NatsServer::start(options).await.unwrap()
}

fn password(user: &str) -> String {
    format!("password-of-{}", user.to_lowercase())
}

pub(crate) fn config_of(nats: &NatsServer, user: &str) -> BackplaneConfig {
    BackplaneConfig {
        auth: Auth {
            user: Some(user.into()),
            password: Some(password(user)),
            ..Auth::default()
        },
        ..config(nats, 1)
    }
}

/// A plain client of one of the users, as `nats` would be.
pub(crate) async fn client(nats: &NatsServer, user: &str) -> Client {
    let prefix = match user {
        "edge" | "archiver" => "_INBOX".to_owned(),
        other => format!("_INBOX_{other}"),
    };
    ConnectOptions::with_user_and_password(user.into(), password(user))
        .custom_inbox_prefix(prefix)
        .connect(nats.url())
        .await
        .unwrap()
}

pub(crate) async fn answered(client: &Client, subject: &str, body: Value) -> Option<Value> {
    let payload = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    let request = client.request(subject.to_owned(), payload.into());
    let answer = tokio::time::timeout(SILENCE, request).await.ok()?.ok()?;
    serde_json::from_slice(&answer.payload).ok()
}

/// Messages in the stream, as the operator sees it; `None` if it is gone.
async fn stored(operator: &Client) -> Option<u64> {
    let info = answered(operator, "$JS.API.STREAM.INFO.REJOIN_0", Value::Null).await?;
    info["state"]["messages"].as_u64()
}

/// What only an operator may do to a stream.
const DESTRUCTIVE: [&str; 3] = [
    "$JS.API.STREAM.DELETE.REJOIN_0",
    "$JS.API.STREAM.MSG.DELETE.REJOIN_0",
    "$JS.API.STREAM.RESTORE.REJOIN_0",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_does_its_work_and_cannot_harm_a_stream() {
    let nats = server().await;
    let archiver = Backplane::connect(config_of(&nats, "archiver")).await;
    archiver.unwrap().provision().await.unwrap();

    let edge = Backplane::connect(config_of(&nats, "edge")).await.unwrap();
    edge.provision().await.unwrap();
    let publisher = edge.publisher();
    let published = publisher.publish(publication("room:1", "1")).await;
    let position = published.unwrap().cursor;
    let start = backplane::TailStart::Fill {
        budget_bytes: 1 << 20,
        max_age: None,
    };
    let mut tail = crate::support::Reader::new(edge.tail(0, start));
    tail.until(position).await;
    let mut heard = edge.signals().subscribe().await.unwrap();
    let signal = Signal {
        channel: channel("room:1"),
        kind: "typing".into(),
        sender: None,
        data: "true".into(),
    };
    edge.signals().send(signal).await.unwrap();
    let heard = tokio::time::timeout(PATIENCE, heard.next()).await.unwrap();
    assert_eq!(&*heard.unwrap().kind, "typing");

    let operator = client(&nats, "operator").await;
    let stranger = client(&nats, "edge").await;
    let info = answered(&stranger, "$JS.API.STREAM.INFO.REJOIN_0", Value::Null).await;
    let mut emptied = info.unwrap()["config"].clone();
    emptied["max_age"] = json!(100_000_000);
    for subject in DESTRUCTIVE {
        let body = json!({"seq": position.seq});
        assert_eq!(answered(&stranger, subject, body).await, None, "{subject}");
    }
    let calls = [
        ("$JS.API.STREAM.PURGE.REJOIN_0", Value::Null),
        ("$JS.API.STREAM.UPDATE.REJOIN_0", emptied),
        (
            "$JS.API.STREAM.CREATE.OTHER",
            json!({"name": "OTHER", "subjects": ["rejoin.sig.>"]}),
        ),
        ("$JS.API.CONSUMER.DELETE.REJOIN_0.archiver", Value::Null),
        ("anything.else", json!(1)),
    ];
    for (subject, body) in calls {
        assert_eq!(answered(&stranger, subject, body).await, None, "{subject}");
    }
    assert_eq!(
        stored(&operator).await,
        Some(1),
        "nothing was lost or added"
    );
    // It was the permission that stopped it: an operator is not stopped.
    let purged = answered(&operator, "$JS.API.STREAM.PURGE.REJOIN_0", Value::Null).await;
    assert_eq!(purged.unwrap()["purged"], 1);
    let deleted = answered(&operator, DESTRUCTIVE[0], Value::Null).await;
    assert_eq!(deleted.unwrap()["success"], true);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_archiver_does_its_work_and_cannot_delete_a_stream() {
    let nats = server().await;
    let backplane = Backplane::connect(config_of(&nats, "archiver"))
        .await
        .unwrap();
    backplane.provision().await.unwrap();
    for data in ["1", "2", "3"] {
        let publication = publication("room:1", data);
        backplane.publisher().publish(publication).await.unwrap();
    }
    let source = backplane.archive_source(0);
    let batch = source.next_batch(10, PATIENCE).await.unwrap();
    assert_eq!(batch.messages.len(), 3);
    source.ack_through(3).await.unwrap();
    source.trim_through(2).await.unwrap();
    let operator = client(&nats, "operator").await;
    assert_eq!(stored(&operator).await, Some(1));
    let before = source.state().await.unwrap().epoch;
    let after = source.begin_epoch().await.unwrap();
    assert_ne!(before, after);

    let stranger = client(&nats, "archiver").await;
    for subject in DESTRUCTIVE {
        let body = json!({"seq": 3});
        assert_eq!(answered(&stranger, subject, body).await, None, "{subject}");
    }
    assert_eq!(stored(&operator).await, Some(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_publishes_to_its_namespaces_and_reads_nothing() {
    let nats = server().await;
    let archiver = Backplane::connect(config_of(&nats, "archiver"))
        .await
        .unwrap();
    archiver.provision().await.unwrap();
    let operator = client(&nats, "operator").await;
    let service = client(&nats, "service").await;
    let ack = answered(&service, "rejoin.pub.user.42", json!({"n": 1})).await;
    assert_eq!(ack.unwrap()["seq"], 1);

    // Everything that it could try to listen to.
    let mut heard = Vec::new();
    for subject in [
        ">",
        "rejoin.>",
        "rejoin.msg.>",
        "rejoin.sig.>",
        "_INBOX.>",
        "$JS.>",
    ] {
        heard.push((subject, service.subscribe(subject).await.unwrap()));
    }
    let forbidden = [
        "rejoin.pub.room.1",
        "rejoin.msg.0.room.1",
        "rejoin.sig.user.42",
        "rejoin.ctl.revoke",
        "$JS.API.STREAM.INFO.REJOIN_0",
        "$JS.API.STREAM.MSG.GET.REJOIN_0",
        "$JS.API.DIRECT.GET.REJOIN_0",
        "$JS.API.CONSUMER.CREATE.REJOIN_0.mine",
        "$JS.API.STREAM.DELETE.REJOIN_0",
    ];
    let mut controls = operator.subscribe("rejoin.*.>").await.unwrap();
    operator.flush().await.unwrap();
    for subject in forbidden {
        let body = json!({"seq": 1});
        assert_eq!(answered(&service, subject, body).await, None, "{subject}");
    }
    assert_eq!(stored(&operator).await, Some(1));
    // Something that it would hear if it could: also an edge reading the
    // message into its inbox.
    let edge = client(&nats, "edge").await;
    let read = "$JS.API.STREAM.MSG.GET.REJOIN_0";
    assert!(answered(&edge, read, json!({"seq": 1})).await.is_some());
    operator
        .publish("rejoin.sig.user.42", "end".into())
        .await
        .unwrap();
    // Nothing of what the service tried came before it.
    let control = tokio::time::timeout(PATIENCE, controls.next())
        .await
        .unwrap();
    assert_eq!(&*control.unwrap().payload, b"end");
    for (subject, mut subscription) in heard {
        let message = tokio::time::timeout(Duration::from_millis(50), subscription.next()).await;
        assert!(!matches!(message, Ok(Some(_))), "it hears {subject}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_viewer_sees_messages_and_changes_nothing() {
    let nats = server().await;
    let archiver = Backplane::connect(config_of(&nats, "archiver"))
        .await
        .unwrap();
    archiver.provision().await.unwrap();
    let operator = client(&nats, "operator").await;
    let viewer = client(&nats, "viewer").await;
    let mut seen = viewer.subscribe("rejoin.msg.>").await.unwrap();
    viewer.flush().await.unwrap();
    assert_eq!(stored(&viewer).await, Some(0));
    for subject in ["rejoin.pub.user.42", "rejoin.msg.0.user.42", DESTRUCTIVE[0]] {
        assert_eq!(
            answered(&viewer, subject, json!(1)).await,
            None,
            "{subject}"
        );
    }
    answered(&operator, "rejoin.pub.user.42", json!("seen"))
        .await
        .unwrap();
    let message = tokio::time::timeout(PATIENCE, seen.next()).await.unwrap();
    assert_eq!(&*message.unwrap().payload, b"\"seen\"");
    assert_eq!(stored(&operator).await, Some(1));
    // A stranger is not even let in.
    let nobody = async_nats::connect(nats.url()).await;
    assert!(nobody.is_err());
}
