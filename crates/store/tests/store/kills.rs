//! An archiver process killed with SIGKILL at a hundred random points.
//!
//! The process is this test binary itself, told by an environment variable
//! to be the archiver. Its stream is computed: message `n` is a function of
//! `n`, so that it needs nothing from its parent.

use std::process::{Command, Stdio};
use std::time::Duration;

use delivery::archive::{ArchiveSink, SourceMessage};
use protocol::{Cursor, MessageId};
use store::{Sink, Store};

use crate::stream::MemoryStream;
use crate::world::{EPOCH, START_MS, archiver, archiver_config, config, database, differences};

const URL_VARIABLE: &str = "REJOIN_TEST_KILLED_ARCHIVER";
const MESSAGES: u64 = 10_000;
const KILLS: u64 = 100;

fn computed() -> (MemoryStream, Vec<SourceMessage>) {
    let stream = MemoryStream::new(EPOCH);
    let messages = (1..=MESSAGES)
        .map(|n| {
            let id = MessageId::parse(&format!("message-{n}")).unwrap();
            let time_ms = START_MS + n as i64;
            stream.publish_as(&format!("room:{}", n % 50), time_ms, id)
        })
        .collect();
    (stream, messages)
}

/// Not a test of its own: the process that the test below kills.
#[tokio::test(flavor = "multi_thread")]
async fn archiver_process() {
    let Ok(url) = std::env::var(URL_VARIABLE) else {
        return;
    };
    let store = Store::connect(config(url)).await.unwrap();
    let (stream, _) = computed();
    let mut config = archiver_config("archiver");
    config.max_batch_messages = 20;
    let archiver = archiver(&stream, Sink::new(&store), config);
    let stats = archiver.stats();
    // Ends with its work, so that nothing is left over if the parent dies.
    let done = async {
        while stats.watermark() < MESSAGES {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    archiver.run(done).await;
}

fn spawn(url: &str) -> std::process::Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "kills::archiver_process", "--nocapture"])
        .env(URL_VARIABLE, url)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_killed_a_hundred_times_loses_and_doubles_no_row() {
    let url = database().await;
    let store = Store::connect(config(url.clone())).await.unwrap();
    let sink = Sink::new(&store);
    let watermark = || async {
        let newest = sink.newest_epoch(0).await.unwrap();
        newest.map_or(0, |newest| newest.watermark)
    };
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..KILLS {
        let before = watermark().await;
        let mut child = spawn(&url);
        // Killed some random time after it has begun to write, so that the
        // blow falls within a batch.
        while before < MESSAGES && watermark().await == before {
            assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        tokio::time::sleep(Duration::from_micros(random % 20_000)).await;
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let status = tokio::task::spawn_blocking(move || spawn(&url).wait())
        .await
        .unwrap()
        .unwrap();
    assert!(status.success());
    let (_, expected) = computed();
    let (missing, extra) = differences(&store, EPOCH, &expected).await;
    assert_eq!(
        (missing.len(), extra.len()),
        (0, 0),
        "missing and extra rows"
    );
    let rows = store::archive::check::rows(&store, Cursor::new(EPOCH, 0), u64::MAX);
    assert_eq!(rows.await.unwrap().len() as u64, MESSAGES);
}
