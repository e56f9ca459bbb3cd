//! What is published arrives: once, in order, on every edge, in both encodings.

use client::{ConnectOptions, Connection};
use protocol::{Channel, Encoding, ErrorCode, From, MessageId};

use crate::harness::{
    Nats, Stack, TokenSpec, Watch, connect, sign, texts, with_one_and_four_shards,
};

with_one_and_four_shards!(
    published_over_http_arrives_on_both_edges,
    published_over_websocket_is_acknowledged_and_arrives,
    the_same_id_is_one_message,
    published_by_a_foreign_service_arrives,
);

fn channel(text: &str) -> Channel {
    Channel::parse(text).unwrap()
}

/// One connection per edge and encoding, all live on the channel.
async fn everywhere(stack: &Stack, channel: &Channel) -> Vec<(Connection, Watch)> {
    let token = sign(&TokenSpec::new("reader", &[channel.as_str()]));
    let mut connections = Vec::new();
    for edge in &stack.edges {
        for encoding in Encoding::ALL {
            let options = ConnectOptions::default()
                .encoding(encoding)
                .subscribe(channel.clone(), From::Tail);
            let (mut connection, connected) = connect(&edge.url(), &token, &options).await;
            assert_eq!(*connected.edge, *edge.name);
            let mut watch = Watch::new(channel);
            watch.until_live(&mut connection).await;
            connections.push((connection, watch));
        }
    }
    connections
}

async fn published_over_http_arrives_on_both_edges(shards: u16) {
    let stack = Stack::start(shards).await;
    let room = channel("room:1");
    let mut readers = everywhere(&stack, &room).await;
    let expected = texts("message", 250);
    let mut cursors = stack.http().publish_all(&room, &expected).await;
    for text in texts("single", 3) {
        let data = format!("\"{text}\"");
        let answer = stack.http().publish(&room, &text, &data).await;
        cursors.push(answer.cursor());
        assert_eq!(answer.body["id"], text);
        assert_eq!(answer.body["duplicate"], false);
    }
    // Another channel's messages are nobody's business here; on one stream they use sequences in between.
    stack
        .http()
        .publish_all(&channel("room:2"), &texts("other", 5))
        .await;
    let last = stack
        .http()
        .publish(&room, "last", "\"last\"")
        .await
        .cursor();
    cursors.push(last);
    let expected = [expected, texts("single", 3), vec!["last".to_owned()]].concat();
    for (connection, watch) in &mut readers {
        watch.until_seen(connection, expected.len()).await;
        watch.assert_exactly(&expected);
        let positions: Vec<_> = watch.seen.iter().map(|seen| seen.cursor).collect();
        assert_eq!(positions, cursors, "acknowledged and delivered positions");
        // Live from the tail, the edge knows what came before each message.
        let mut before = 0;
        for seen in &watch.seen {
            assert!(
                seen.prev == before || seen.prev == 0 && before == 0,
                "{seen:?}"
            );
            before = seen.cursor.seq;
        }
        let ids: Vec<_> = watch
            .seen
            .iter()
            .filter_map(|seen| seen.id.clone())
            .collect();
        assert_eq!(ids, expected);
    }
}

async fn published_over_websocket_is_acknowledged_and_arrives(shards: u16) {
    let stack = Stack::start(shards).await;
    let room = channel("room:1");
    let mut readers = everywhere(&stack, &room).await;
    let mut positions = Vec::new();
    for encoding in Encoding::ALL {
        let options = ConnectOptions::default().encoding(encoding);
        let (mut writer, _) = stack.connect("writer", &["room:1"], &options).await;
        for data in [&b"{\"text\": \"hi\"}"[..], b"\xff\x00\n\"", b""] {
            let id = MessageId::random();
            let published = writer
                .publish(id.clone(), room.clone(), "chat", data.into())
                .await
                .unwrap();
            assert_eq!((&published.id, published.duplicate), (&id, false));
            positions.push((published.cursor, data.to_vec(), id.to_string()));
        }
    }
    for (connection, watch) in &mut readers {
        watch.until_seen(connection, positions.len()).await;
        let seen: Vec<_> = watch
            .seen
            .iter()
            .map(|seen| (seen.cursor, seen.data.to_vec(), seen.id.clone().unwrap()))
            .collect();
        assert_eq!(seen, positions, "{:?}", connection.encoding());
        assert_eq!(watch.defects, [""; 0]);
    }
}

async fn the_same_id_is_one_message(shards: u16) {
    let stack = Stack::start(shards).await;
    let room = channel("room:1");
    let mut readers = everywhere(&stack, &room).await;
    let (mut writer, _) = stack
        .connect("writer", &["room:1"], &ConnectOptions::default())
        .await;
    let id = MessageId::random();
    let mut first = None;
    for attempt in 0..5 {
        let published = writer
            .publish(id.clone(), room.clone(), "", "1".into())
            .await
            .unwrap();
        assert_eq!(published.duplicate, attempt > 0);
        assert_eq!(*first.get_or_insert(published.cursor), published.cursor);
    }
    // Over another connection and edge too.
    for edge in &stack.edges {
        let token = sign(&TokenSpec::new("writer", &["room:1"]));
        let (mut again, _) = connect(&edge.url(), &token, &ConnectOptions::default()).await;
        let published = again
            .publish(id.clone(), room.clone(), "", "1".into())
            .await
            .unwrap();
        assert_eq!((Some(published.cursor), published.duplicate), (first, true));
    }
    // The same id of another user, and of a service, is another message.
    let (mut other, _) = stack
        .connect("other", &["room:1"], &ConnectOptions::default())
        .await;
    let published = other
        .publish(id.clone(), room.clone(), "", "2".into())
        .await
        .unwrap();
    assert!(!published.duplicate);
    let service = stack.http().publish(&room, id.as_str(), "3").await;
    assert_eq!(service.body["duplicate"], false);
    let repeated = stack.http().publish(&room, id.as_str(), "3").await;
    assert_eq!(repeated.body["duplicate"], true);
    assert_eq!(repeated.cursor(), service.cursor());
    for (connection, watch) in &mut readers {
        watch.until_seen(connection, 3).await;
        watch.assert_exactly(&["1", "2", "3"].map(str::to_owned));
    }
}

async fn published_by_a_foreign_service_arrives(shards: u16) {
    let stack = Stack::start(shards).await;
    let (prices, inbox) = (channel("topic:prices"), channel("user:42"));
    let mut readers = everywhere(&stack, &prices).await;
    let mut nats = Nats::connect(&stack.nats).await;
    nats.publish("rejoin.pub.topic.prices", b"{\"eur\":1}")
        .await;
    nats.publish("rejoin.pub.topic.prices", b"not JSON \xfe")
        .await;
    for (connection, watch) in &mut readers {
        watch.until_seen(connection, 2).await;
        assert_eq!(watch.seen[0].data, "{\"eur\":1}");
        assert_eq!(watch.seen[1].data, &b"not JSON \xfe"[..]);
        assert_eq!(watch.seen[0].id, None);
        assert_eq!(watch.defects, [""; 0]);
    }
    // The inbox of a user is there without being named in the token.
    let (mut user, _) = stack.connect("42", &[], &ConnectOptions::default()).await;
    user.subscribe(inbox.clone(), From::Tail).await.unwrap();
    let mut watch = Watch::new(&inbox);
    watch.position = Some("0000000000000000-0".parse().unwrap());
    nats.publish("rejoin.pub.user.42", b"\"for you\"").await;
    watch.until_seen(&mut user, 1).await;
    assert_eq!(watch.texts(), ["for you"]);
}

/// The same with the command that the README tells people to use.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn published_with_the_nats_command_arrives() {
    let found =
        tokio::task::spawn_blocking(|| devstack::Tools::nats_cli(&devstack::silent())).await;
    let nats = match found.unwrap() {
        Ok(path) => path,
        Err(error) => {
            eprintln!("NOT TESTED: the nats command cannot be had here: {error}");
            return;
        }
    };
    let stack = Stack::start(4).await;
    let room = channel("room:981");
    let mut readers = everywhere(&stack, &room).await;
    let output = tokio::process::Command::new(nats)
        .args([
            "--server",
            &stack.nats.url(),
            "pub",
            "rejoin.pub.room.981",
            "hello",
        ])
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    for (connection, watch) in &mut readers {
        watch.until_seen(connection, 1).await;
        assert_eq!(watch.texts(), ["hello"]);
    }
}

/// What one channel sends is read by nobody who may not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rights_are_checked_on_subscribe_publish_and_replay() {
    let stack = Stack::start(1).await;
    let mut spec = TokenSpec::new("42", &[]);
    spec.subscribe = vec!["room:1".to_owned()];
    spec.publish = vec!["room:2".to_owned()];
    let token = sign(&spec);
    let (mut connection, _) = connect(&stack.url(), &token, &ConnectOptions::default()).await;
    let may_read = connection.subscribe(channel("room:1"), From::Tail).await;
    assert!(may_read.is_ok());
    let own_inbox = connection
        .subscribe(channel("user:42"), From::Earliest)
        .await;
    assert!(own_inbox.is_ok());
    for text in ["room:2", "user:43", "topic:prices"] {
        let refused = connection.subscribe(channel(text), From::Earliest).await;
        let refused = refused.unwrap_err();
        assert_eq!(
            refused.refused().unwrap().code,
            ErrorCode::Forbidden,
            "{text}"
        );
        let page = format!("/v1/channels/{text}/messages?from=earliest");
        let page = stack.http().get_as(&token, &page).await;
        assert_eq!(
            (page.status, page.error_code()),
            (403, "forbidden"),
            "{text}"
        );
    }
    for text in ["room:1", "user:42", "topic:prices"] {
        let refused = connection
            .publish(MessageId::random(), channel(text), "", "1".into())
            .await;
        let refused = refused.unwrap_err();
        assert_eq!(
            refused.refused().unwrap().code,
            ErrorCode::Forbidden,
            "{text}"
        );
    }
    let published = connection
        .publish(MessageId::random(), channel("room:2"), "", "1".into())
        .await;
    assert!(published.is_ok());
}

/// Catching up over HTTP gives the same as a connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn catching_up_over_http() {
    let stack = Stack::start(4).await;
    let room = channel("room:1");
    let http = stack.http();
    let start = http.get("/v1/channels/room:1/messages").await.cursor();
    let expected = texts("message", 250);
    http.publish_all(&room, &expected).await;
    let (mut cursor, mut seen) = (start, Vec::new());
    loop {
        // Each page may come from another edge.
        let path = format!("/v1/channels/room:1/messages?from={cursor}&limit=100");
        let page = http.get(&path).await;
        assert_eq!(page.status, 200, "{page:?}");
        assert_eq!(page.body["reset"], serde_json::Value::Null);
        let messages = page.body["messages"].as_array().unwrap();
        seen.extend(
            messages
                .iter()
                .map(|it| it["data"].as_str().unwrap().to_owned()),
        );
        cursor = page.cursor();
        if page.body["live"] == true && seen.len() >= expected.len() {
            break;
        }
        assert!(seen.len() <= expected.len());
    }
    assert_eq!(seen, expected);
}
