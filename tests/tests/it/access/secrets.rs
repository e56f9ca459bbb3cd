//! No credential in any log or trace, however much is logged and traced.

use std::time::Duration;

use client::{ConnectOptions, Connection};
use protocol::frame::Publish;
use protocol::{Channel, ClientBody, ClientFrame, Encoding, From, MessageId};
use tokio::time::timeout;

use super::with_postgres;
use crate::harness::raw::{Raw, TEXT};
use crate::harness::{API_KEY, Stack, StackOptions, TokenSpec, connect, sign, until};
use crate::operations::traces::Collector;

/// In the payload of every message and signal, which are nobody's business either.
const PAYLOAD: &str = "canary-payload-5d1f";
/// Asks for spans.
const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
/// An API key that nobody knows.
const UNKNOWN_KEY: &str = "rj_canary_of_an_unknown_key";

fn room() -> Channel {
    Channel::parse("room:1").unwrap()
}

/// Everything that a client can do with a token, and much that it should not.
async fn use_everywhere(stack: &Stack, token: &str, tickets: &mut Vec<String>) {
    for edge in &stack.edges {
        let http = edge.http();
        for token_in_header in [false, true] {
            for encoding in [Encoding::Json, Encoding::Proto] {
                let options = ConnectOptions {
                    token_in_header,
                    ..ConnectOptions::default()
                        .encoding(encoding)
                        .subscribe(room(), From::Earliest)
                };
                let Ok((mut connection, _)) =
                    Connection::connect(&edge.url(), token, &options).await
                else {
                    continue;
                };
                let refresh = ClientBody::Refresh {
                    token: protocol::frame::Token::parse(token).unwrap(),
                };
                connection.request(refresh).await.unwrap();
                let data = format!("\"{PAYLOAD}\"");
                let publishing = connection.publish(MessageId::random(), room(), "", data.into());
                publishing.await.unwrap();
                let traced = Publish {
                    id: MessageId::random(),
                    channel: room(),
                    kind: "".into(),
                    data: format!("\"{PAYLOAD}\"").into(),
                    traceparent: Some(TRACEPARENT.into()),
                };
                let published = connection.request(ClientBody::Publish(traced)).await;
                published.unwrap();
                // A frame that cannot be read, with the token in it.
                let req = connection.new_req();
                let bad = format!("{{\"req\":{req},\"refrsh\":{{\"token\":\"{token}\"}}}}");
                let _ = connection
                    .send_bytes(bad.into(), encoding == Encoding::Proto)
                    .await;
                connection
                    .send(&ClientFrame::request(req, ClientBody::Pong))
                    .await
                    .unwrap();
                connection.close().await;
            }
        }
        // As the first frame of a connection, spoiled.
        let mut raw = Raw::open(edge.address(), "rejoin.v1.json").await;
        let spoiled = format!("{{\"connect\":{{\"token\":\"{token}\",\"x\":1}}}}");
        raw.frame(true, TEXT, spoiled.as_bytes()).await.unwrap();
        raw.end(Duration::from_secs(20)).await;
        for path in [
            "/v1/channels/room:1/messages?from=earliest",
            "/v1/poll?channels=room:1&from=earliest",
            "/v1/users/42/inbox",
            "/v1/users/42/rooms",
            "/v1/rooms/1/members",
            "/v1/whoami",
            "/metrics",
            "/nowhere",
        ] {
            http.get_as(token, path).await;
        }
        for path in [
            "/v1/channels/room:1/messages",
            "/v1/channels/room:1/signals",
            "/v1/messages",
            "/v1/users/42/acks",
            "/v1/admin/revocations",
        ] {
            http.post_as(token, path, &format!("\"{PAYLOAD}\"")).await;
        }
        // A misplaced credential, refused; and where a ticket belongs.
        for parameter in ["token", "access_token", "ticket"] {
            let path = format!("/v1/events?channels=room:1&{parameter}={token}");
            http.open(None, &path).await;
        }
        let answer = http.post_as(token, "/v1/tickets", "").await;
        if let Some(ticket) = answer.body["ticket"].as_str() {
            for _ in 0..2 {
                let path = format!("/v1/events?channels=room:1&ticket={ticket}");
                let mut response = http.open(None, &path).await;
                let _ = timeout(Duration::from_millis(200), response.chunk()).await;
            }
            tickets.push(ticket.to_owned());
        }
        let mut response = http.open(Some(token), "/v1/events?channels=room:1").await;
        let _ = timeout(Duration::from_millis(200), response.chunk()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_credential_is_in_any_log_or_trace() {
    let collector = Collector::start().await;
    let (stack, postgres) = with_postgres(StackOptions {
        log_filter: "trace".to_owned(),
        config: format!(
            "[trace]\nendpoint = \"http://{}/v1/traces\"\n",
            collector.address
        ),
        ..StackOptions::default()
    })
    .await;
    let mut forged = TokenSpec::new("42", &["room:1"]);
    forged.secret = "a secret of more than 32 bytes that no edge knows".to_owned();
    let good = sign(&TokenSpec::new("42", &["room:1"]));
    let expired = sign(&TokenSpec {
        ttl_s: -3_600,
        ..TokenSpec::new("42", &["room:1"])
    });
    let tokens = [good.clone(), expired, sign(&forged)];
    let mut tickets = Vec::new();
    for token in &tokens {
        use_everywhere(&stack, token, &mut tickets).await;
    }
    use_everywhere(&stack, UNKNOWN_KEY, &mut tickets).await;
    use_everywhere(&stack, API_KEY, &mut tickets).await;
    assert_eq!(tickets.len(), stack.edges.len());
    connect(&stack.url(), &good, &ConnectOptions::default()).await;
    let mut canaries = vec![
        API_KEY.to_owned(),
        UNKNOWN_KEY.to_owned(),
        PAYLOAD.to_owned(),
    ];
    // Its claims or its signature would do.
    for secret in tokens.iter().chain(&tickets) {
        canaries.extend(secret.split('.').skip(1).map(str::to_owned));
    }
    stack.http().publish_traced(&room(), TRACEPARENT).await;
    until("the collector has spans of both kinds", async || {
        let sent = collector.raw();
        sent.contains("publish room") && sent.contains("receive room")
    })
    .await;
    let sent = collector.raw();
    for canary in &canaries {
        assert!(!sent.contains(canary.as_str()), "{canary} is in a trace");
    }
    for edge in &stack.edges {
        until("the log is written", async || {
            edge.whole_log().contains("DEBUG")
        })
        .await;
        let log = edge.whole_log();
        eprintln!("{}: {} bytes of log", edge.name, log.len());
        for canary in &canaries {
            let line = log.lines().find(|line| line.contains(canary.as_str()));
            assert!(line.is_none(), "{canary} is in: {line:?}");
        }
        let password = postgres.url();
        let password = password.split([':', '@']).nth(2).unwrap();
        assert!(
            !log.contains(password),
            "the password of Postgres is in the log"
        );
    }
}
