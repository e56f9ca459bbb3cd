//! What a cursor gets, as docs/PROTOCOL.md tables it, over real edges, stream and archive. Epochs that end by a deleted
//! stream, and weeks away, are in `archive`.

use std::path::Path;

use client::{ConnectOptions, Connection};
use devstack::{Postgres, PostgresOptions};
use protocol::frame::{ResetReason, Subscribe};
use protocol::{Cursor, Epoch, From};

use crate::harness::{Nats, Stack, StackOptions, TokenSpec, Watch, connect, sign, texts, until};

use super::{archived, room, with_store};

const ARCHIVE_READS: &str = "rejoin_log_requests_total{log=\"archive\"}";
const STREAM_READS: &str = "rejoin_log_requests_total{log=\"stream\"}";

/// Subscribes on one edge and reads until it is live.
async fn replay(stack: &Stack, edge: usize, from: From, max_catchup: u32) -> (Connection, Watch) {
    let mut options = ConnectOptions::default();
    options.subscriptions.push(Subscribe {
        channel: room(),
        from,
        max_catchup,
    });
    let token = sign(&TokenSpec::new("42", &["room:1"]));
    let (mut connection, _) = connect(&stack.edges[edge].url(), &token, &options).await;
    let mut watch = Watch::new(&room());
    watch.until_live(&mut connection).await;
    (connection, watch)
}

/// On every edge the cursor gets exactly these texts, and how often each edge asked a log for it.
async fn assert_replayed(stack: &Stack, from: Cursor, expected: &[String], log: &str) -> f64 {
    let mut asked = 0.0;
    for edge in 0..stack.edges.len() {
        let http = stack.edges[edge].http();
        let before = http.metrics().await.sum(log);
        let (_connection, watch) = replay(stack, edge, From::Cursor(from), 0).await;
        watch.assert_exactly(expected);
        asked += http.metrics().await.sum(log) - before;
    }
    asked
}

/// On every edge the cursor gets one reset and then goes on at its head.
async fn assert_reset(stack: &Stack, from: Cursor, max_catchup: u32, reason: ResetReason) {
    for edge in 0..stack.edges.len() {
        let (_connection, watch) = replay(stack, edge, From::Cursor(from), max_catchup).await;
        let [reset] = watch.resets.as_slice() else {
            panic!("{reason:?}: {watch:?}");
        };
        assert_eq!(reset.reason, reason);
        assert_eq!(watch.texts(), [""; 0]);
        assert!(has_reached(&watch, reset.head), "{watch:?}");
        assert_eq!(reset.earliest.is_some(), reason == ResetReason::Expired);
    }
}

fn has_reached(watch: &Watch, cursor: Cursor) -> bool {
    let position = watch.position;
    position.is_some_and(|position| position.epoch == cursor.epoch && position.seq >= cursor.seq)
}

/// Large enough that most of them are below the smallest window.
fn large(name: &str, count: usize) -> Vec<String> {
    let padding = "x".repeat(2_000);
    let text = |number| format!("{name}-{number}-{padding}");
    (0..count).map(text).collect()
}

/// Publishes under ids that are made now: they need no look into the archive.
async fn publish_new(stack: &Stack, texts: &[String]) -> Vec<Cursor> {
    let mut cursors = Vec::new();
    for some in texts.chunks(100) {
        let item = |text: &String| serde_json::json!({ "channel": room(), "data": text });
        let body: Vec<_> = some.iter().map(item).collect();
        let body = serde_json::Value::from(body).to_string();
        let answer = stack.http().post("/v1/messages", body).await;
        let results = answer.body["results"].as_array().expect("results");
        let cursor = |result: &serde_json::Value| result["cursor"].as_str()?.parse::<Cursor>().ok();
        cursors.extend(results.iter().map(|result| cursor(result).expect("stored")));
    }
    cursors
}

/// Waits until new ids are known to be younger than the stream: for some
/// seconds after its beginning they are looked up as well. Stores one message.
async fn ids_need_no_lookup(stack: &Stack) {
    until("publishing does not wait for Postgres", async || {
        let path = "/v1/channels/room:2/messages";
        stack.http().post(path, "0".to_owned()).await.status == 200
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_row_of_the_table() {
    let postgres = Postgres::start(PostgresOptions::default()).await.unwrap();
    let url = postgres.url();
    let stack = Stack::start_with(StackOptions {
        limits: "window_bytes = 1048576".to_owned(),
        store: Some(format!(
            "url = \"{url}\"\n\n[store.archive]\nlease_ms = 1000"
        )),
        ..StackOptions::default()
    })
    .await;
    let old = large("old", 600);
    let cursors = stack.http().publish_all(&room(), &old).await;
    archived(&stack).await;
    let (early, recent) = (cursors[9], cursors[589]);

    let asked = assert_replayed(&stack, recent, &old[590..], ARCHIVE_READS).await
        + assert_replayed(&stack, recent, &old[590..], STREAM_READS).await;
    assert_eq!(asked, 0.0, "inside the window it is memory only");
    let asked = assert_replayed(&stack, early, &old[10..], ARCHIVE_READS).await;
    assert!(asked >= 2.0, "each edge asked the archive");

    let unknown = Cursor::new(Epoch(early.epoch.0 ^ 1), early.seq);
    assert_reset(&stack, unknown, 0, ResetReason::Epoch).await;
    let ahead = Cursor::new(early.epoch, cursors[599].seq + 1_000);
    assert_reset(&stack, ahead, 0, ResetReason::Ahead).await;
    assert_reset(&stack, early, 100, ResetReason::TooFarBehind).await;
    assert_reset(&stack, recent, 5, ResetReason::TooFarBehind).await;
    for edge in &stack.edges {
        let path = "/v1/channels/room:1/messages?from=yesterday";
        let answer = edge.http().get(path).await;
        assert_eq!((answer.status, answer.error_code()), (400, "bad_cursor"));
    }

    // The archive is down, and behind: what it lacks comes from the stream.
    postgres.kill();
    ids_need_no_lookup(&stack).await;
    let more = large("more", 300);
    let more_cursors = publish_new(&stack, &more).await;
    let all = [old.clone(), more.clone()].concat();
    let asked = assert_replayed(&stack, early, &all[10..], STREAM_READS).await;
    assert!(asked >= 2.0, "each edge asked the stream");

    // What left the stream without having been archived is lost, and that is told to whoever needs it.
    let mut nats = Nats::connect(&stack.nats).await;
    let purged = nats.ask("$JS.API.STREAM.PURGE.REJOIN_0", "").await;
    // With the one that the wait has stored.
    assert_eq!(purged["purged"].as_u64(), Some(901), "{purged}");
    postgres.restart().await.unwrap();
    let last = texts("last", 3);
    publish_new(&stack, &last).await;
    archived(&stack).await;
    assert_reset(&stack, early, 0, ResetReason::Expired).await;
    for edge in 0..stack.edges.len() {
        let (_connection, watch) = replay(&stack, edge, From::Cursor(early), 0).await;
        let earliest = watch.resets[0].earliest.expect("where one can go on");
        assert!(earliest.seq >= more_cursors[299].seq, "{earliest}");
        let (_connection, watch) = replay(&stack, edge, From::Cursor(earliest), 0).await;
        watch.assert_exactly(&last);
    }
    // What the windows still have is not lost.
    assert_replayed(
        &stack,
        more_cursors[297],
        &[&more[298..], &last].concat(),
        ARCHIVE_READS,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_of_what_is_archived_loses_nothing() {
    let stack = Stack::start_with(with_store(1, "").await).await;
    let old = large("old", 600);
    let cursors = stack.http().publish_all(&room(), &old).await;
    archived(&stack).await;
    let mut nats = Nats::connect(&stack.nats).await;
    let purged = nats.ask("$JS.API.STREAM.PURGE.REJOIN_0", "").await;
    assert_eq!(purged["purged"].as_u64(), Some(600), "{purged}");
    let new = texts("new", 10);
    let after = stack.http().publish_all(&room(), &new).await;
    assert_eq!(after[0].epoch, cursors[0].epoch);
    let expected = [&old[10..], &new].concat();
    assert_replayed(&stack, cursors[9], &expected, ARCHIVE_READS).await;
}

/// nats-server is stopped, its data put back to an older copy, and other messages get the sequences of those that the
/// copy lacks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restored_from_an_older_copy() {
    let stack = Stack::start_with(with_store(1, "").await).await;
    let (mut stays, mut staying) = replay(&stack, 0, From::Tail, 0).await;
    let old = texts("old", 200);
    let mut cursors = stack.http().publish_all(&room(), &old).await;
    archived(&stack).await;
    let data = stack.nats.data_dir().join("jetstream");
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("copy");
    stack.nats.stop().await;
    copy_folder(&data, &copy);
    stack.nats.restart().await.unwrap();
    let lost = texts("lost", 100);
    cursors.extend(stack.http().publish_all(&room(), &lost).await);
    archived(&stack).await;
    staying.until_seen(&mut stays, 300).await;

    stack.nats.stop().await;
    std::fs::remove_dir_all(&data).unwrap();
    copy_folder(&copy, &data);
    stack.nats.restart().await.unwrap();
    let old_epoch = cursors[0].epoch;
    until("a new epoch begins", async || {
        let answer = stack.http().get("/v1/channels/room:1/messages").await;
        let epoch = answer.body["epoch"].as_str().map(str::to_owned);
        epoch.is_some_and(|epoch| epoch != old_epoch.to_string())
    })
    .await;
    // More than were lost, so that the new sequences pass the old ones.
    let new = texts("new", 150);
    let new_cursors = stack.http().publish_all(&room(), &new).await;
    assert!(new_cursors[0].epoch != old_epoch);
    assert!(new_cursors[0].seq <= cursors[200].seq, "{new_cursors:?}");

    // Who was there, and who comes back from before, from inside or from after the part that is in no copy, gets what
    // is archived of the old epoch and then the new one.
    let all = [old, lost, new].concat();
    staying.until_seen(&mut stays, all.len()).await;
    staying.assert_exactly(&all);
    archived(&stack).await;
    for seen in [100, 250, 300] {
        assert_replayed(&stack, cursors[seen - 1], &all[seen..], ARCHIVE_READS).await;
    }
    assert_replayed(&stack, new_cursors[9], &all[310..], ARCHIVE_READS).await;
}

/// The same while publishing goes on: messages may get an acknowledgement before anybody knows that the stream is an
/// older copy. Nobody is left waiting, and whoever got no reset has everything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restored_while_publishing_goes_on() {
    let stack = Stack::start_with(with_store(1, "").await).await;
    let old = texts("old", 100);
    let cursors = stack.http().publish_all(&room(), &old).await;
    archived(&stack).await;
    let data = stack.nats.data_dir().join("jetstream");
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("copy");
    stack.nats.stop().await;
    copy_folder(&data, &copy);
    stack.nats.restart().await.unwrap();
    let lost = texts("lost", 20);
    stack.http().publish_all(&room(), &lost).await;
    archived(&stack).await;
    let mut readers = Vec::new();
    for edge in 0..2 {
        readers.push(replay(&stack, edge, From::Cursor(cursors[49]), 0).await);
    }
    stack.nats.stop().await;
    std::fs::remove_dir_all(&data).unwrap();
    copy_folder(&copy, &data);
    stack.nats.restart().await.unwrap();
    let new = texts("new", 200);
    stack.http().publish_all(&room(), &new).await;
    archived(&stack).await;
    for edge in 0..2 {
        readers.push(replay(&stack, edge, From::Cursor(cursors[49]), 0).await);
    }
    let expected = [&old[50..], &lost, &new].concat();
    let end = stack
        .http()
        .publish(&room(), "end", "\"end\"")
        .await
        .cursor();
    for (mut connection, mut watch) in readers {
        let done = |watch: &Watch| has_reached(watch, end);
        watch.until(&mut connection, "the end", done).await;
        assert_eq!(watch.defects, [""; 0]);
        if watch.resets.is_empty() {
            let mut texts = watch.texts();
            texts.retain(|text| text != "end");
            assert_eq!(texts, expected);
        }
        eprintln!(
            "{} resets, {} messages",
            watch.resets.len(),
            watch.seen.len()
        );
    }
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
