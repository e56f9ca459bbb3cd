//! The positions that a feed announces never go beyond what it handed out.

use std::sync::Arc;

use bytes::Bytes;
use delivery::{
    DeliveryLimits, Feed, Hub, Log, Message, Output, Page, PageError, PageRequest, Start, Stream,
    Tail, TailEvent, window,
};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use protocol::{Channel, Cursor, Epoch};
use tokio::sync::{Semaphore, mpsc};

const EPOCH: Epoch = Epoch(7);
const STORED: u64 = 40;

fn channel(seq: u64) -> Channel {
    Channel::parse(["room:0", "room:1"][(seq % 2) as usize]).unwrap()
}

fn message(seq: u64) -> Message {
    Message {
        channel: channel(seq),
        position: Cursor::new(EPOCH, seq),
        prev: 0,
        id: None,
        kind: "".into(),
        sender: None,
        time_ms: 0,
        data: Bytes::from_static(b"0123456789"),
        traceparent: None,
    }
}

/// Answers when the test lets it, all questions at once.
struct Gated(Arc<Semaphore>);

impl Log for Gated {
    fn page(&self, request: PageRequest) -> BoxFuture<'_, Result<Page, PageError>> {
        async move {
            let _open = self.0.acquire().await.unwrap();
            let after = (request.after.seq + 1..=STORED).map(message);
            Ok(Page {
                messages: after.filter(|it| it.channel == request.channel).collect(),
                through: STORED,
                next_epoch: None,
            })
        }
        .boxed()
    }

    fn earliest(&self, _: Channel) -> BoxFuture<'_, Result<Cursor, PageError>> {
        async { Ok(Cursor::new(EPOCH, 0)) }.boxed()
    }

    fn before_last(
        &self,
        _: Channel,
        through: Cursor,
        _: usize,
    ) -> BoxFuture<'_, Result<Cursor, PageError>> {
        async move { Ok(through) }.boxed()
    }
}

impl Stream for Gated {
    fn head(&self, _: u16) -> BoxFuture<'_, Result<Cursor, PageError>> {
        async { Ok(Cursor::new(EPOCH, STORED)) }.boxed()
    }
}

struct Script(mpsc::UnboundedReceiver<TailEvent>);

impl Tail for Script {
    async fn next(&mut self) -> TailEvent {
        match self.0.recv().await {
            Some(event) => event,
            None => std::future::pending().await,
        }
    }
}

async fn both_live(feed: &mut Feed) {
    let mut live = 0;
    while live < 2 {
        if let Output::Live { .. } = feed.next().await {
            live += 1;
        }
    }
}

#[tokio::test]
async fn a_shard_with_something_not_handed_out_is_not_announced() {
    let gate = Arc::new(Semaphore::new(0));
    let limits = DeliveryLimits {
        // Room for the newest message alone.
        window_bytes: 1,
        ..DeliveryLimits::default()
    };
    let hub = Hub::new(1, None, Arc::new(Gated(Arc::clone(&gate))), limits);
    let (tail, script) = mpsc::unbounded_channel();
    let window = Arc::clone(&hub.windows()[0]);
    tokio::spawn({
        let window = Arc::clone(&window);
        async move { window::fill(Script(script), &window).await }
    });
    let after = Cursor::new(EPOCH, 0);
    tail.send(TailEvent::Started {
        after,
        last: STORED,
    })
    .unwrap();
    let mut feed = hub.feed(None);
    while window.head().epoch != EPOCH {
        tokio::task::yield_now().await;
    }
    for seq in [0, 1] {
        feed.subscribe(channel(seq), Start::Tail, None, 0).unwrap();
    }
    both_live(&mut feed).await;
    assert_eq!(feed.positions(), [(0, after)]);

    // Both fall below the window, ask the log, and are answered at once.
    let messages = TailEvent::Messages {
        messages: (1..=STORED).map(message).collect(),
        epoch: EPOCH,
        through: STORED,
    };
    tail.send(messages).unwrap();
    window.wait_filled().await;
    assert!(feed.next().now_or_never().is_none());
    gate.add_permits(2);

    let first = feed.next().await;
    let Output::Messages { entries, .. } = &first else {
        panic!("{first:?}");
    };
    assert_eq!(entries.len() as u64, STORED / 2);
    // The other channel's are still to come.
    assert_eq!(feed.positions(), []);
    let reached = [0, 1].map(|seq| feed.reached(&channel(seq)).is_some());
    assert_eq!(reached.into_iter().filter(|it| *it).count(), 1);
    let second = feed.next().await;
    assert!(matches!(second, Output::Messages { .. }), "{second:?}");
    assert_eq!(feed.positions(), [(0, Cursor::new(EPOCH, STORED))]);
}
