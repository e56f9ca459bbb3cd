//! Measures durable publishing and the tail against bare async-nats on a
//! private server: `cargo run --release -p backplane --example rates -- [always|default] [in flight] [seconds]`.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use backplane::{Backplane, BackplaneConfig, TailStart};
use bytes::Bytes;
use delivery::publish::{Publication, Publish, Publisher};
use delivery::{Tail, TailEvent};
use devstack::{NatsOptions, NatsServer, SyncInterval};
use protocol::{Channel, MessageId, UserId};

/// Bytes of a payload, as in the design's measurements.
const PAYLOAD_BYTES: usize = 200;

#[tokio::main]
async fn main() {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .init();
    let mut args = std::env::args().skip(1);
    let sync = match args.next().as_deref() {
        Some("always") => SyncInterval::Always,
        _ => SyncInterval::ServerDefault,
    };
    let mut number = |default: u64| args.next().and_then(|n| n.parse().ok()).unwrap_or(default);
    let (in_flight, seconds) = (number(512), number(3));
    let options = NatsOptions {
        sync,
        ..NatsOptions::default()
    };
    let nats = NatsServer::start(options).await.expect("a server");
    let backplane = Backplane::connect(BackplaneConfig {
        urls: vec![nats.url()],
        stream_max_bytes: 4 << 30,
        ..BackplaneConfig::default()
    })
    .await
    .expect("a backplane");
    backplane.provision().await.expect("a stream");

    for _ in 0..3 {
        let client = async_nats::connect(nats.url()).await.expect("a client");
        let context = async_nats::jetstream::new(client);
        let bare = measure(in_flight, seconds, move |n| {
            let context = context.clone();
            async move {
                let mut headers = HeaderMap::new();
                headers.insert("Nats-Msg-Id", MessageId::random().to_string());
                let subject = format!("rejoin.msg.0.room.{}", n % 100);
                let data = Bytes::from_static(&[b'x'; PAYLOAD_BYTES]);
                let ack = context.publish_with_headers(subject, headers, data).await;
                ack.expect("sent").await.is_ok()
            }
        })
        .await;
        let publisher = backplane.publisher();
        let ours = measure(in_flight, seconds, move |n| {
            let publisher = publisher.clone();
            async move {
                let publication = Publication {
                    channel: Channel::from_parts("room", &(n % 100).to_string())
                        .expect("a channel"),
                    id: MessageId::random(),
                    publisher: Publisher::User(UserId::parse("42").expect("a user")),
                    kind: "chat".into(),
                    sender: UserId::parse("42").ok(),
                    data: Bytes::from_static(&[b'x'; PAYLOAD_BYTES]),
                    traceparent: None,
                };
                publisher.publish(publication).await.is_ok()
            }
        })
        .await;
        say(format!("publishes/s: bare {bare:.0}, ours {ours:.0}"));
    }

    let mut tail = backplane.tail(
        0,
        TailStart::Fill {
            budget_bytes: u64::MAX,
            max_age: None,
        },
    );
    let (begin, mut count, mut target) = (Instant::now(), 0, u64::MAX);
    loop {
        match tail.next().await {
            TailEvent::Started { last, .. } => target = last,
            TailEvent::Messages {
                messages, through, ..
            } => {
                count += messages.len();
                if through >= target {
                    break;
                }
            }
        }
    }
    let rate = count as f64 / begin.elapsed().as_secs_f64();
    say(format!("tail: {count} messages at {rate:.0}/s"));
    say(format!("{:?}", backplane.stats()));
}

/// Publishes from `in_flight` tasks for some seconds; acknowledgements per
/// second.
async fn measure<F, P>(in_flight: u64, seconds: u64, publish: P) -> f64
where
    F: Future<Output = bool> + Send,
    P: Fn(u64) -> F + Clone + Send + 'static,
{
    let (done, stop) = (
        Arc::new(AtomicU64::new(0)),
        Arc::new(AtomicBool::new(false)),
    );
    let begin = Instant::now();
    let tasks: Vec<_> = (0..in_flight)
        .map(|n| {
            let (publish, done, stop) = (publish.clone(), done.clone(), stop.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    if publish(n).await {
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                }
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.expect("a publisher");
    }
    done.load(Ordering::Relaxed) as f64 / begin.elapsed().as_secs_f64()
}

fn say(line: String) {
    // Nobody to tell when standard output is gone.
    let _ = writeln!(std::io::stdout(), "{line}");
}
