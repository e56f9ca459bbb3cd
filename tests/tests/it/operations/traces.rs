//! Trace context from the publisher to the subscriber, and the spans that a collector gets.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use client::ConnectOptions;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message as _;
use protocol::frame::Publish;
use protocol::{Channel, ClientBody, From, MessageId, ServerBody};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::harness::{Nats, SOON, Stack, StackOptions, until};

/// A span: its trace, its parent, its name, and the edge that made it.
type Span = (String, String, String, String);

/// Takes OTLP over HTTP, as a collector does, for as long as it lives.
pub(crate) struct Collector {
    pub(crate) address: SocketAddr,
    spans: Arc<Mutex<BTreeSet<Span>>>,
    /// All that was sent.
    raw: Arc<Mutex<Vec<u8>>>,
    _tasks: JoinSet<()>,
}

impl Collector {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let spans = Arc::new(Mutex::new(BTreeSet::new()));
        let raw = Arc::new(Mutex::new(Vec::new()));
        let (taken, bytes) = (Arc::clone(&spans), Arc::clone(&raw));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, Arc::clone(&taken), Arc::clone(&bytes)));
            }
        });
        Self {
            address,
            spans,
            raw,
            _tasks: tasks,
        }
    }

    /// All that was sent, headers included, as text.
    pub(crate) fn raw(&self) -> String {
        String::from_utf8_lossy(&self.raw.lock().expect("not poisoned")).into_owned()
    }

    /// The spans of a trace.
    fn of(&self, trace: &str) -> Vec<Span> {
        let spans = self.spans.lock().expect("not poisoned");
        spans
            .iter()
            .filter(|span| span.0 == trace)
            .cloned()
            .collect()
    }
}

async fn serve(stream: TcpStream, spans: Arc<Mutex<BTreeSet<Span>>>, raw: Arc<Mutex<Vec<u8>>>) {
    let mut stream = BufReader::new(stream);
    loop {
        let mut length = 0;
        let mut head = String::new();
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
                return;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().expect("a length");
            }
            if line == "\r\n" {
                break;
            }
            head.push_str(&line);
        }
        assert!(head.starts_with("POST /v1/traces "), "{head}");
        let mut body = vec![0; length];
        if stream.read_exact(&mut body).await.is_err() {
            return;
        }
        {
            let mut raw = raw.lock().expect("not poisoned");
            raw.extend_from_slice(head.as_bytes());
            raw.extend_from_slice(&body);
        }
        let export = ExportTraceServiceRequest::decode(body.as_slice()).expect("OTLP");
        spans.lock().expect("not poisoned").extend(read(export));
        let answer =
            b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n";
        if stream.write_all(answer).await.is_err() {
            return;
        }
    }
}

fn read(export: ExportTraceServiceRequest) -> Vec<Span> {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut spans = Vec::new();
    for of_resource in export.resource_spans {
        let resource = format!("{:?}", of_resource.resource);
        let edge = ["edge-1", "edge-2"]
            .into_iter()
            .find(|name| resource.contains(name));
        assert!(resource.contains("rejoin"), "{resource}");
        for span in of_resource
            .scope_spans
            .into_iter()
            .flat_map(|scope| scope.spans)
        {
            assert!(
                span.start_time_unix_nano <= span.end_time_unix_nano,
                "{span:?}"
            );
            spans.push((
                hex(&span.trace_id),
                hex(&span.parent_span_id),
                span.name,
                edge.expect("an edge's name").to_owned(),
            ));
        }
    }
    spans
}

fn traceparent(number: u8, sampled: bool) -> (String, String, String) {
    let trace = format!("4bf92f3577b34da6a3ce929d0e0e47{number:02x}");
    let parent = format!("00f067aa0ba902{number:02x}");
    let text = format!("00-{trace}-{parent}-0{}", u8::from(sampled));
    (trace, parent, text)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trace_goes_from_the_publisher_to_the_subscriber() {
    let collector = Collector::start().await;
    let stack = Stack::start_with(StackOptions {
        config: format!(
            "[trace]\nendpoint = \"http://{}/v1/traces\"\n",
            collector.address
        ),
        ..StackOptions::default()
    })
    .await;
    let room = Channel::parse("room:1").unwrap();
    let (mut connection, _) = stack
        .connect("alice", &["room:1"], &ConnectOptions::default())
        .await;
    connection
        .subscribe(room.clone(), From::Tail)
        .await
        .unwrap();

    let over_http = traceparent(1, true);
    let over_websocket = traceparent(2, true);
    let over_nats = traceparent(3, true);
    let unsampled = traceparent(4, false);
    for (_, _, header) in [&over_http, &unsampled] {
        let answer = stack.http().publish_traced(&room, header).await;
        answer.cursor();
    }
    let publish = Publish {
        id: MessageId::random(),
        channel: room.clone(),
        kind: "".into(),
        data: "1".into(),
        traceparent: Some(over_websocket.2.as_str().into()),
    };
    let published = connection
        .request(ClientBody::Publish(publish))
        .await
        .unwrap();
    assert!(
        matches!(published, ServerBody::Published(_)),
        "{published:?}"
    );
    let mut nats = Nats::connect(&stack.nats).await;
    nats.publish_with(
        "rejoin.pub.room.1",
        &format!("traceparent: {}", over_nats.2),
        b"1",
    )
    .await;

    // Each message says where it comes from, sampled or not.
    let mut seen = BTreeSet::new();
    while seen.len() < 4 {
        let frame = timeout(SOON, connection.next())
            .await
            .expect("in time")
            .unwrap();
        if let ServerBody::Messages(batch) = frame.body {
            seen.extend(
                batch
                    .messages
                    .into_iter()
                    .filter_map(|message| message.traceparent),
            );
        }
    }
    let sent = [&over_http, &over_websocket, &over_nats, &unsampled].map(|it| it.2.as_str().into());
    assert_eq!(seen, BTreeSet::from(sent));

    // One span for the way in, where an edge took it, and one on each edge for the way out.
    for ((trace, parent, _), publishes) in [(&over_http, 1), (&over_websocket, 1), (&over_nats, 0)]
    {
        until("the collector has the trace", async || {
            collector.of(trace).len() == publishes + 2
        })
        .await;
        let spans = collector.of(trace);
        assert!(spans.iter().all(|span| span.1 == *parent), "{spans:?}");
        let named = |name: &str| spans.iter().filter(|span| span.2 == name).count();
        assert_eq!(named("publish room"), publishes, "{spans:?}");
        assert_eq!(named("receive room"), 2, "{spans:?}");
        let edges: BTreeSet<_> = spans.iter().map(|span| &span.3).collect();
        assert_eq!(edges.len(), 2, "{spans:?}");
    }
    assert_eq!(collector.of(&unsampled.0), []);
}
