//! Publishing that yields one message: retries of any age, and from SQL.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use client::{ConnectOptions, Connection, RequestError};
use devstack::{Postgres, PostgresOptions};
use protocol::{Channel, ClientBody, ClientFrame, Cursor, From, MessageId};
use tokio::time::sleep;

use crate::harness::{SOON, Stack, StackOptions, TokenSpec, Watch, connect, setting, sign, texts};

use super::{archived, room, with_store};

/// Half of the acknowledgements are cut; everything is tried again at once, beyond the stream's memory, and "a week later".
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retries_of_any_age_are_one_message() {
    let count = setting("REJOIN_TEST_RETRIES", 400);
    let mut options = with_store(1, "").await;
    // A quarter of the window is for what a publish may take.
    options.config = "duplicate_window_ms = 8000\npublish_timeout_ms = 1500".to_owned();
    let stack = Stack::start_with(options).await;
    let week_ms = 7 * 24 * 3_600 * 1_000;
    // Made now, and made a week ago by a device that was offline.
    let ids: Vec<MessageId> = (0..count)
        .map(|number| match number % 4 {
            0 => uuid_v7(now_ms() - week_ms),
            _ => MessageId::random(),
        })
        .collect();
    let mut positions: Vec<Option<Cursor>> = vec![None; count];
    let token = sign(&TokenSpec::new("writer", &["room:1"]));
    let (mut writer, _) = connect(&stack.url(), &token, &ConnectOptions::default()).await;
    for (index, id) in ids.iter().enumerate() {
        let data = format!("\"{index}\"");
        if index % 2 == 0 {
            let published = publish(&mut writer, id, &data).await;
            positions[index] = Some(published);
        } else {
            // Sent, and gone before the answer.
            let body = ClientBody::Publish(protocol::frame::Publish {
                id: id.clone(),
                channel: room(),
                kind: "".into(),
                data: data.into(),
                traceparent: None,
            });
            let req = writer.new_req();
            writer.send(&ClientFrame::request(req, body)).await.unwrap();
            if index % 16 == 1 {
                stack.proxy.cut();
                (writer, _) = connect(&stack.url(), &token, &ConnectOptions::default()).await;
            }
        }
    }
    for round in ["at once", "beyond the window"] {
        let (mut writer, _) = connect(&stack.url(), &token, &ConnectOptions::default()).await;
        for (index, id) in ids.iter().enumerate() {
            let data = format!("\"{index}\"");
            let published = publish(&mut writer, id, &data).await;
            let first = *positions[index].get_or_insert(published);
            assert_eq!(published, first, "{round}: {id}");
        }
        archived(&stack).await;
        sleep(Duration::from_secs(9)).await;
    }
    let options = ConnectOptions::default().subscribe(room(), From::Earliest);
    let (mut reader, _) = stack.connect("42", &["room:1"], &options).await;
    let mut watch = Watch::new(&room());
    watch.until_live(&mut reader).await;
    assert_eq!(watch.defects, [""; 0]);
    let mut seen: Vec<String> = watch
        .seen
        .iter()
        .filter_map(|seen| seen.id.clone())
        .collect();
    let mut expected: Vec<String> = ids.iter().map(ToString::to_string).collect();
    seen.sort_unstable();
    expected.sort_unstable();
    assert_eq!(seen, expected);
}

/// Publishes until it is acknowledged.
async fn publish(writer: &mut Connection, id: &MessageId, data: &str) -> Cursor {
    let begin = Instant::now();
    loop {
        match writer
            .publish(id.clone(), room(), "", data.to_owned().into())
            .await
        {
            Ok(published) => {
                assert_eq!(published.id, *id);
                return published.cursor;
            }
            Err(RequestError::Refused(error)) if error.code.is_retryable() => {
                assert!(begin.elapsed() < SOON, "{error:?}");
                sleep(Duration::from_millis(50)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(since.expect("after 1970").as_millis()).expect("milliseconds")
}

/// A UUID of version 7 of a millisecond (RFC 9562, section 5.7).
fn uuid_v7(ms: u64) -> MessageId {
    let random: u128 = rand::random();
    let bits = u128::from(ms) << 80 | random & ((1 << 80) - 1);
    let bits = bits & !(0xf << 76) | 7 << 76;
    let bits = bits & !(0x3 << 62) | 2 << 62;
    let hex = format!("{bits:032x}");
    let parts = [
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    ];
    MessageId::parse(&parts.join("-")).expect("a message id")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn published_from_sql_if_and_only_if_it_commits() {
    let postgres = Postgres::start(PostgresOptions::default()).await.unwrap();
    let stack = Stack::start_with(StackOptions {
        store: Some(format!("url = \"{}\"", postgres.url())),
        ..StackOptions::default()
    })
    .await;
    let inbox = Channel::parse("user:42").unwrap();
    let options = ConnectOptions::default().subscribe(inbox.clone(), From::Tail);
    let (mut reader, _) = stack.connect("42", &[], &options).await;
    let mut watch = Watch::new(&inbox);
    watch.until_live(&mut reader).await;
    let publish =
        |text: &str| format!("SELECT rejoin.publish('user:42', 'invoice_approved', '\"{text}\"')");
    postgres.execute(&publish("committed")).await.unwrap();
    watch.until_seen(&mut reader, 1).await;
    let rolled_back = format!("BEGIN; {}; ROLLBACK", publish("rolled back"));
    postgres.execute(&rolled_back).await.unwrap();
    let many = texts("sql", 100);
    let all: Vec<String> = many.iter().map(|text| publish(text)).collect();
    postgres
        .execute(&format!("BEGIN; {}; COMMIT", all.join("; ")))
        .await
        .unwrap();
    let expected = [vec!["committed".to_owned()], many].concat();
    watch.until_seen(&mut reader, expected.len()).await;
    watch.quiet(&mut reader, Duration::from_millis(300)).await;
    watch.assert_exactly(&expected);
    // It waits for an edge, if there is none.
    drop(reader);
    let mut stack = stack;
    for edge in &mut stack.edges {
        edge.kill();
    }
    postgres
        .execute(&publish("nobody was there"))
        .await
        .unwrap();
    for edge in &mut stack.edges {
        edge.restart();
    }
    for edge in &mut stack.edges {
        edge.ready().await;
    }
    let from = watch.position.map_or(From::Tail, From::Cursor);
    let options = ConnectOptions::default().subscribe(inbox, from);
    let (mut reader, _) = stack.connect("42", &[], &options).await;
    watch.away();
    watch.until_seen(&mut reader, 1).await;
    assert_eq!(watch.texts(), ["nobody was there"]);
}
