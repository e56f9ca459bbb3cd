//! What operators do to running edges, with the stock `nats` command and over HTTP.

mod rolling;

use std::time::{Duration, Instant};

use client::ConnectOptions;
use protocol::{ClientBody, CloseCode, Encoding, ErrorCode, From, ServerBody};
use serde_json::{Value, json};

use crate::harness::{NatsCli, SOON, Stack, StackOptions, TokenSpec, connect, sign, until};

fn names(answer: &Value) -> Vec<&str> {
    let edges = answer["edges"].as_array().expect("edges");
    edges
        .iter()
        .map(|it| it["edge"].as_str().unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_nats_command_shows_and_moves_the_fleet() {
    let mut stack = Stack::start_with(StackOptions {
        edges: 3,
        ..StackOptions::default()
    })
    .await;
    let Some(nats) = NatsCli::get(&stack.nats).await else {
        return;
    };
    until("the edges know each other", async || {
        let edges = nats.request("rejoin.admin.edges", "").await;
        names(&edges) == ["edge-1", "edge-2", "edge-3"]
    })
    .await;

    // nats micro.
    let listed = nats.run(&["micro", "ls", "--json"]).await.out;
    assert_eq!(
        listed.matches("\"name\": \"rejoin\"").count(),
        3,
        "{listed}"
    );
    let stats = nats.run(&["micro", "stats", "rejoin", "--json"]).await.out;
    for number in ["connections", "readers", "floor", "head", "archives"] {
        assert!(stats.contains(number), "{number} in {stats}");
    }
    let pinged = nats.run(&["micro", "ping", "rejoin"]).await;
    let pinged = pinged.out + &pinged.err;
    assert_eq!(pinged.matches("rtt=").count(), 3, "{pinged}");
    let info = nats.run(&["micro", "info", "rejoin", "--json"]).await.out;
    assert!(info.contains("\"edge\": \"edge-"), "{info}");
    let version = format!("\"version\": \"{}\"", env!("CARGO_PKG_VERSION"));
    assert!(info.contains(&version), "{info}");

    // A user's connections, from any edge.
    let options = ConnectOptions {
        device: Some("phone".parse().unwrap()),
        encoding: Encoding::Proto,
        ..ConnectOptions::default()
    };
    let options = options.subscribe("room:7".parse().unwrap(), From::Tail);
    let token = sign(&TokenSpec::new("42", &["room:*"]));
    let (mut phone, connected) = connect(&stack.edges[1].url(), &token, &options).await;
    let user = nats
        .request("rejoin.admin.connections", r#"{"user":"42"}"#)
        .await;
    let connection = &user["connections"][0];
    assert_eq!(connection["session"], &*connected.session, "{user}");
    assert_eq!(connection["edge"], "edge-2");
    assert_eq!(connection["device"], "phone");
    assert_eq!(connection["transport"], "websocket");
    assert_eq!(connection["channels"][0]["channel"], "room:7");
    assert_eq!(connection["channels"][0]["lag"], 0);
    let channel = nats
        .request("rejoin.admin.channel", r#"{"channel":"room:7"}"#)
        .await;
    assert_eq!(
        (&channel["readers"], &channel["users"]),
        (&json!(1), &json!(["42"]))
    );
    let one = nats
        .request(
            "rejoin.admin.edge.edge-2.channel",
            r#"{"channel":"room:7"}"#,
        )
        .await;
    assert_eq!(
        (&one["edge"], &one["readers"]),
        (&json!("edge-2"), &json!(1))
    );
    let every = ["req", "--replies=3", "rejoin.admin.every.edges", ""];
    assert_eq!(nats.run(&every).await.out.matches("\"edge\":").count(), 3);
    let slow = nats.request("rejoin.admin.slow", "").await;
    assert_eq!(slow["connections"], json!([]));

    // A message, and the end of the connection.
    let publish = r#"{"channel":"room:7","type":"note","data":{"n":1}}"#;
    let published = nats.request("rejoin.admin.publish", publish).await;
    loop {
        if let ServerBody::Messages(batch) = phone.next().await.unwrap().body {
            assert_eq!(batch.messages[0].data.as_ref(), br#"{"n":1}"#);
            assert!(published["cursor"].is_string());
            break;
        }
    }
    let session = json!({ "session": &*connected.session }).to_string();
    let closed = nats.request("rejoin.admin.disconnect", &session).await;
    assert_eq!(closed["disconnected"], 1, "{closed}");
    let closed = loop {
        if let Err(closed) = phone.next().await {
            break closed;
        }
    };
    assert_eq!(closed.close_code(), Some(CloseCode::Disconnected));

    // The log, of one edge and of all.
    let filter = r#"{"filter":"debug","edge":"edge-3"}"#;
    let log = nats.request("rejoin.admin.log", filter).await;
    assert_eq!(
        log["edges"],
        json!([{ "edge": "edge-3", "filter": "debug" }])
    );
    let all = nats.request("rejoin.admin.log", "").await;
    assert_eq!(all["edges"][0]["filter"], "info,sqlx=warn,async_nats=error");

    // Drain and undrain.
    let drain = r#"{"edge":"edge-1","spread_ms":100}"#;
    let drained = nats.request("rejoin.admin.drain", drain).await;
    assert_eq!(drained["edges"][0]["draining"], true);
    let http = stack.edges[0].http();
    assert_eq!(http.ready().await, Some(false));
    let refused = http.get("/v1/events?channels=room:7").await;
    assert_eq!((refused.status, refused.error_code()), (503, "unavailable"));
    nats.request("rejoin.admin.undrain", r#"{"edge":"edge-1"}"#)
        .await;
    assert_eq!(http.ready().await, Some(true));
    let unknown = nats
        .run(&["req", "rejoin.admin.drain", r#"{"edge":"edge-9"}"#])
        .await;
    let unknown = unknown.out + &unknown.err;
    assert!(
        unknown.contains("Nats-Service-Error-Code: 404"),
        "{unknown}"
    );

    // An edge that is killed is named for as long as it is not forgotten, over HTTP too.
    stack.edges[2].kill();
    for _ in 0..2 {
        let edges = http.get("/v1/admin/edges").await.body;
        assert_eq!(names(&edges), ["edge-1", "edge-2"], "{edges}");
        assert_eq!(edges["missing"], json!(["edge-3"]), "{edges}");
    }
    // One that leaves says so.
    stack.edges[1].terminate();
    stack.edges[1].ended(Duration::from_secs(20)).await;
    let edges = http.get("/v1/admin/edges").await.body;
    assert_eq!(edges["missing"], json!(["edge-3"]), "{edges}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn presence_is_told_over_all_edges() {
    let stack = Stack::start(1).await;
    let options = ConnectOptions::default().subscribe("room:7".parse().unwrap(), From::Tail);
    let join = async |user: &str, edge: usize| {
        let token = sign(&TokenSpec::new(user, &["room:*", "topic:*"]));
        let (mut connection, _) = connect(&stack.edges[edge].url(), &token, &options).await;
        while !matches!(
            connection.next().await.unwrap().body,
            ServerBody::Live { .. }
        ) {}
        connection
    };
    let mut anna = join("anna", 0).await;
    let _ben = join("ben", 1).await;
    let ask = |channel: &str| ClientBody::Presence {
        channel: channel.parse().unwrap(),
    };
    let asked = Instant::now();
    loop {
        let answer = anna.request(ask("room:7")).await.unwrap();
        let ServerBody::Presence(present) = answer else {
            panic!("{answer:?}")
        };
        let users: Vec<_> = present.users.iter().map(|it| it.as_str()).collect();
        if users == ["anna", "ben"] && !present.partial {
            break;
        }
        // Edges that have just started do not know each other yet.
        assert!(asked.elapsed() < SOON, "{present:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let refused = anna.request(ask("topic:x")).await.unwrap_err();
    let refused = refused.refused().expect("an answer").code;
    assert_eq!(refused, ErrorCode::Forbidden);
    let http = stack.edges[0].http();
    let answer = http.get("/v1/channels/room:7/presence").await.body;
    assert_eq!(answer["users"], json!(["anna", "ben"]));
}
