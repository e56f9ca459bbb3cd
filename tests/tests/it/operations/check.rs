//! `rejoin check` about streams and archive, on real parts.

use crate::harness::{Nats, Stack, StackOptions, texts, until};
use protocol::Channel;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_archive_is_compared_with_its_stream() {
    let options = crate::store::with_store(1, "").await;
    let mut stack = Stack::start_with(StackOptions {
        edges: 1,
        ..options
    })
    .await;
    let room = Channel::parse("room:1").unwrap();
    stack.http().publish_all(&room, &texts("a", 10)).await;
    until("everything is archived", async || {
        stack
            .check()
            .await
            .1
            .contains("0 messages not archived yet")
    })
    .await;
    let (code, report) = stack.check().await;
    assert_eq!(code, Some(0), "{report}");
    for line in [
        "ok    archive of REJOIN_0: the stream is in its epoch",
        "ok    NATS permissions",
        "ok    clock of NATS",
        "ok    clock of Postgres",
        "ok    connection to Postgres: in plain text",
    ] {
        assert!(report.contains(line), "no {line} in {report}");
    }

    // Nobody archives, and what is not archived is taken away.
    stack.edges[0].kill();
    let mut nats = Nats::connect(&stack.nats).await;
    nats.publish_all("rejoin.msg.0.room.1", &texts("b", 5))
        .await;
    let purged = nats.ask("$JS.API.STREAM.PURGE.REJOIN_0", "").await;
    assert_eq!(purged["success"], true, "{purged}");
    let (code, report) = stack.check().await;
    assert_eq!(code, Some(1), "{report}");
    let line =
        "BAD   archive of REJOIN_0: messages 11 to 15 left the stream before they were archived";
    assert!(report.contains(line), "{report}");

    // Another stream under the same name.
    let deleted = nats.ask("$JS.API.STREAM.DELETE.REJOIN_0", "").await;
    assert_eq!(deleted["success"], true, "{deleted}");
    stack.edges[0].restart();
    stack.edges[0].ready().await;
    stack.edges[0].kill();
    let (_, report) = stack.check().await;
    let known = report.contains("the stream in ") || report.contains("the stream is in its epoch");
    assert!(known, "{report}");
}
