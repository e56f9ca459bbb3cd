//! The Rust client comes back by itself, loses nothing, and publishes until it is acknowledged.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use client::{Client, ClientConfig, Event, PublishError, State, TokenSource};
use futures_util::future::join_all;
use protocol::frame::Messages;
use protocol::{Channel, CloseCode, Encoding, ErrorCode, From};
use tokio::time::timeout;

use crate::harness::{SOON, Stack, StackOptions, TokenSpec, sign, texts};

fn room() -> Channel {
    Channel::parse("room:1").unwrap()
}

/// Edges whose clients notice silence soon.
fn attentive() -> StackOptions {
    StackOptions {
        limits: "ping_ms = 1000".to_owned(),
        ..StackOptions::default()
    }
}

fn config(stack: &Stack, user: &str) -> ClientConfig {
    let token = sign(&TokenSpec::new(user, &["room:1"]));
    ClientConfig::new(stack.url(), TokenSource::fixed(token))
}

/// What an application sees of a client.
struct Application {
    client: Client,
    texts: Vec<String>,
    states: Vec<State>,
    others: Vec<Event>,
}

impl Application {
    fn start(config: ClientConfig) -> Self {
        Self {
            client: Client::start(config),
            texts: Vec::new(),
            states: Vec::new(),
            others: Vec::new(),
        }
    }

    async fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        let reading = async {
            while !holds(self) {
                match self.client.next_event().await {
                    Some(Event::Messages(batch)) => self.texts.extend(batch_texts(&batch)),
                    Some(Event::State(state)) => self.states.push(state),
                    Some(other) => self.others.push(other),
                    None => panic!("the client ended before {what}: {:?}", self.states),
                }
            }
        };
        if timeout(SOON * 2, reading).await.is_err() {
            panic!(
                "not in time: {what}; {} texts, states {:?}, {:?}",
                self.texts.len(),
                self.states,
                self.others
            );
        }
    }

    async fn until_live(&mut self) {
        self.until("live", |it| it.states.last() == Some(&State::Live))
            .await;
    }

    fn offline(&self) -> usize {
        let offline = |state: &&State| matches!(state, State::Offline { .. });
        self.states.iter().filter(offline).count()
    }
}

fn batch_texts(batch: &Messages) -> Vec<String> {
    let text = |data: &[u8]| String::from_utf8_lossy(data).trim_matches('"').to_owned();
    batch.messages.iter().map(|it| text(&it.data)).collect()
}

/// Cut, frozen, killed, restarted: one client publishes, one reads, and neither notices more than a delay.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_comes_back_through_every_fault() {
    let mut stack = Stack::start_with(attentive()).await;
    let mut reader = Application::start(config(&stack, "reader").subscribe(room(), From::Tail));
    reader.until_live().await;
    let writer = Client::start(ClientConfig {
        encoding: Encoding::Json,
        ..config(&stack, "writer")
    });
    let handle = writer.handle();
    let publishing = tokio::spawn(async move {
        // Events have to be read, or the client stops.
        let mut writer = writer;
        while writer.next_event().await.is_some() {}
    });
    let mut expected = Vec::new();
    for fault in ["cut", "frozen", "killed", "drained", "nats"] {
        let wanted = texts(fault, 40);
        let publish = |text: &String| {
            let data = format!("\"{text}\"");
            let handle = handle.clone();
            async move { handle.publish(room(), "", data).await }
        };
        let publishes = join_all(wanted.iter().map(publish));
        let faults = async {
            match fault {
                "cut" => stack.proxy.cut(),
                "frozen" => stack.proxy.freeze(),
                "killed" => {
                    stack.edges[0].kill();
                    stack.edges[0].restart();
                    stack.edges[0].ready().await;
                }
                "drained" => {
                    stack.edges[1].terminate();
                    stack.edges[1].ended(SOON).await;
                    stack.edges[1].restart();
                    stack.edges[1].ready().await;
                }
                _ => {
                    stack.nats.kill();
                    stack.nats.restart().await.unwrap();
                }
            }
        };
        let (results, ()) = tokio::join!(timeout(SOON * 2, publishes), faults);
        let results = results.unwrap_or_else(|_| panic!("not acknowledged in time: {fault}"));
        let mut cursors = Vec::new();
        for result in results {
            cursors.push(result.unwrap().cursor.seq);
        }
        assert!(cursors.is_sorted(), "{fault}: {cursors:?}");
        expected.extend(wanted);
        let count = expected.len();
        reader.until(fault, |it| it.texts.len() >= count).await;
        assert_eq!(reader.texts, expected, "{fault}");
    }
    reader.until_live().await;
    assert!(reader.offline() >= 2, "{:?}", reader.states);
    let gaps = |event: &&Event| matches!(event, Event::Gap { .. } | Event::Reset(_));
    assert_eq!(reader.others.iter().find(gaps), None);
    publishing.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_is_noticed() {
    let stack = Stack::start_with(attentive()).await;
    let mut reader = Application::start(config(&stack, "42").subscribe(room(), From::Tail));
    reader.until_live().await;
    stack.proxy.freeze();
    let begin = Instant::now();
    let missed = texts("missed", 5);
    stack.edges[0].http().publish_all(&room(), &missed).await;
    reader
        .until("what was missed", |it| it.texts.len() >= 5)
        .await;
    let took = begin.elapsed();
    assert_eq!(reader.texts, missed);
    assert_eq!(reader.offline(), 1);
    // Two pings of a second, and a first retry within 200 ms.
    assert!(
        took > Duration::from_millis(900) && took < Duration::from_secs(8),
        "{took:?}"
    );
}

/// A client that is started again with its stored cursors goes on where it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_goes_on_from_stored_cursors() {
    let stack = Stack::start_with(attentive()).await;
    let http = stack.http();
    let mut first = Application::start(config(&stack, "42").subscribe(room(), From::Tail));
    first.until_live().await;
    http.publish_all(&room(), &texts("seen", 10)).await;
    first
        .until("what was published", |it| it.texts.len() >= 10)
        .await;
    let stored = first.client.cursors()[&room()];
    first.client.close().await;
    let missed = texts("missed", 300);
    http.publish_all(&room(), &missed).await;
    let mut second =
        Application::start(config(&stack, "42").subscribe(room(), From::Cursor(stored)));
    second.until_live().await;
    assert_eq!(second.texts, missed);
    // A quiet channel's cursor moves on with the stream.
    let before = second.client.cursors()[&room()];
    http.publish_all(&Channel::parse("room:other").unwrap(), &texts("other", 10))
        .await;
    let moved = async {
        while second.client.cursors()[&room()].seq < before.seq + 10 {
            // There are no events to wait for, only the moves of pings.
            let _none = timeout(Duration::from_millis(100), second.client.next_event()).await;
        }
    };
    timeout(SOON, moved).await.expect("pings move the cursor");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_are_renewed_before_they_expire() {
    let stack = Stack::start_with(attentive()).await;
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let tokens = TokenSource::new(move || {
        let mut spec = TokenSpec::new("42", &["room:1"]);
        // The first ones are short; expiry is announced halfway.
        spec.ttl_s = match counter.fetch_add(1, Ordering::SeqCst) {
            0 | 1 => 3,
            _ => 3_600,
        };
        std::future::ready(Ok(sign(&spec)))
    });
    let config = ClientConfig::new(stack.url(), tokens).subscribe(room(), From::Tail);
    let mut reader = Application::start(config);
    reader.until_live().await;
    let renewed = async {
        while asked.load(Ordering::SeqCst) < 3 {
            let _none = timeout(Duration::from_millis(100), reader.client.next_event()).await;
        }
    };
    timeout(SOON, renewed).await.expect("tokens are asked for");
    // Longer than the short tokens lived.
    tokio::time::sleep(Duration::from_secs(4)).await;
    stack.http().publish_all(&room(), &texts("late", 1)).await;
    reader.until("the message", |it| it.texts.len() == 1).await;
    assert_eq!(reader.offline(), 0, "{:?}", reader.states);
    assert_eq!(asked.load(Ordering::SeqCst), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_gives_up_when_it_is_told_to() {
    let stack = Stack::start(1).await;
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let tokens = TokenSource::new(move || {
        counter.fetch_add(1, Ordering::SeqCst);
        let mut spec = TokenSpec::new("42", &[]);
        spec.ttl_s = -3_600;
        std::future::ready(Ok(sign(&spec)))
    });
    let mut client = Client::start(ClientConfig::new(stack.url(), tokens));
    let handle = client.handle();
    let mut last = None;
    let reading = async {
        while let Some(event) = client.next_event().await {
            last = Some(event);
        }
    };
    timeout(SOON, reading).await.expect("the client ends");
    let Some(Event::State(State::Closed(closed))) = last else {
        panic!("{last:?}");
    };
    assert_eq!(closed.close_code(), Some(CloseCode::Unauthorized));
    assert_eq!(
        asked.load(Ordering::SeqCst),
        1,
        "a new token is not tried twice"
    );
    let published = handle.publish(room(), "", "1").await;
    assert!(
        matches!(published, Err(PublishError::Closed(_))),
        "{published:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_forbidden_fails_alone() {
    let stack = Stack::start(1).await;
    let forbidden = Channel::parse("room:2").unwrap();
    let config = config(&stack, "42")
        .subscribe(room(), From::Tail)
        .subscribe(forbidden.clone(), From::Tail);
    let mut reader = Application::start(config);
    reader.until_live().await;
    let failed = reader.others.iter().find_map(|event| match event {
        Event::SubscribeFailed { channel, error } => Some((channel, error.code)),
        _ => None,
    });
    assert_eq!(failed, Some((&forbidden, ErrorCode::Forbidden)));
    let handle = reader.client.handle();
    let refused = handle.publish(forbidden, "", "1").await;
    match refused {
        Err(PublishError::Refused(error)) => assert_eq!(error.code, ErrorCode::Forbidden),
        other => panic!("{other:?}"),
    }
    handle.publish(room(), "", "\"allowed\"").await.unwrap();
    reader
        .until("the message", |it| it.texts == ["allowed"])
        .await;
    handle.unsubscribe(room()).await.unwrap();
    let unsubscribed = |it: &Application| {
        let event = it.others.last();
        matches!(event, Some(Event::Unsubscribed { channel, .. }) if *channel == room())
    };
    reader.until("unsubscribed", unsubscribed).await;
    handle.publish(room(), "", "\"not for me\"").await.unwrap();
    handle.subscribe(room(), From::Last(1)).await.unwrap();
    // The other edge may hear of the last message a moment later than its publisher: then the one before is the last.
    reader
        .until("the last message", |it| {
            it.texts.last().is_some_and(|text| text == "not for me")
        })
        .await;
}
