//! Live delivery to one more reader takes nothing from the allocator.

use std::collections::VecDeque;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use delivery::{
    DeliveryLimits, Feed, Hub, Log, Message, Output, Page, PageError, PageRequest, Start, Stream,
    Tail, TailEvent, encode_batch, window,
};
use futures_util::future::BoxFuture;
use protocol::{Channel, Cursor, Encoding, Epoch, MessageId};

const EPOCH: Epoch = Epoch(1);
const READERS: usize = 100;

/// Whatever the test puts in.
#[derive(Clone, Default)]
struct Scripted(Arc<Mutex<VecDeque<TailEvent>>>);

impl Tail for Scripted {
    async fn next(&mut self) -> TailEvent {
        std::future::poll_fn(|_| match self.0.lock().unwrap().pop_front() {
            Some(event) => Poll::Ready(event),
            None => Poll::Pending,
        })
        .await
    }
}

/// Live readers ask no log.
struct Nothing;

impl Log for Nothing {
    fn page(&self, _: PageRequest) -> BoxFuture<'_, Result<Page, PageError>> {
        unreachable!()
    }

    fn earliest(&self, _: Channel) -> BoxFuture<'_, Result<Cursor, PageError>> {
        unreachable!()
    }

    fn before_last(
        &self,
        _: Channel,
        _: Cursor,
        _: usize,
    ) -> BoxFuture<'_, Result<Cursor, PageError>> {
        unreachable!()
    }
}

impl Stream for Nothing {
    fn head(&self, _: u16) -> BoxFuture<'_, Result<Cursor, PageError>> {
        unreachable!()
    }
}

fn message(channel: &Channel, seq: u64) -> Message {
    Message {
        channel: channel.clone(),
        position: Cursor::new(EPOCH, seq),
        prev: 0,
        id: Some(MessageId::parse("0199d1a5-7c1e-7c40-a3f5-2b6f0c9d8e71").unwrap()),
        kind: "chat".into(),
        sender: None,
        time_ms: 1,
        data: Bytes::from_static(br#"{"text":"hello"}"#),
        traceparent: None,
    }
}

/// Takes one round of outputs off every feed and encodes them, as connections do.
fn deliver(feeds: &mut [Feed], cx: &mut Context<'_>) -> usize {
    let mut frames = 0;
    for feed in feeds {
        while let Poll::Ready(output) = feed.poll_next(cx) {
            if let Output::Messages { entries, .. } = output {
                frames += usize::from(!encode_batch(Encoding::Json, &entries).is_empty());
            }
        }
    }
    frames
}

#[test]
fn live_delivery_allocates_per_message_and_not_per_reader() {
    let hub = Hub::new(1, None, Arc::new(Nothing), DeliveryLimits::default());
    let script = Scripted::default();
    let window = Arc::clone(&hub.windows()[0]);
    let mut fill = pin!(window::fill(script.clone(), &window));
    let mut cx = Context::from_waker(Waker::noop());
    let mut append = |events: Vec<TailEvent>, fill: &mut Pin<&mut _>| {
        script.0.lock().unwrap().extend(events);
        assert!(Future::poll(Pin::as_mut(fill), &mut cx).is_pending());
    };
    let after = Cursor::new(EPOCH, 0);
    append(vec![TailEvent::Started { after, last: 0 }], &mut fill);

    let room = Channel::parse("room:1").unwrap();
    let mut cx = Context::from_waker(Waker::noop());
    let mut feeds: Vec<Feed> = (0..READERS).map(|_| hub.feed(None)).collect();
    for feed in &mut feeds {
        feed.subscribe(room.clone(), Start::Tail, None, 1).unwrap();
    }
    assert_eq!(deliver(&mut feeds, &mut cx), 0);

    let mut seq = 0;
    for batch in [1, 1, 8] {
        let messages = (0..batch).map(|_| {
            seq += 1;
            message(&room, seq)
        });
        let event = TailEvent::Messages {
            messages: messages.collect(),
            epoch: EPOCH,
            through: seq,
        };
        append(vec![event], &mut fill);
        // The first reader encodes for all.
        let (first, others) = feeds.split_at_mut(1);
        assert_eq!(deliver(first, &mut cx), 1);
        let mut frames = 0;
        let counted = allocation_counter::measure(|| frames = deliver(others, &mut cx));
        assert_eq!(frames, READERS - 1);
        // Several messages at once are gathered on the way; that is all.
        let allowed = if batch == 1 { 0 } else { READERS as u64 - 1 };
        assert!(counted.count_total <= allowed, "{batch}: {counted:?}");
    }
}
