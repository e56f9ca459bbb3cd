//! One readable frame of every kind, and of every variant that looks different.

use std::collections::BTreeMap;

use bytes::Bytes;
use protocol::frame::{
    Ack, Connect, Connected, ErrorBody, Goaway, GoawayReason, Limits, Message, Messages, Presence,
    Publish, Published, Receipt, Reset, ResetReason, Retry, SendSignal, Signal, Subscribe,
    Subscribed, Token, UnsubscribeReason, Unsubscribed,
};
use protocol::{
    Channel, ClientBody, ClientFrame, Cursor, Device, Epoch, ErrorCode, From, MessageId,
    ServerBody, ServerFrame, UserId,
};

const ID: &str = "0199d1a5-7c1e-7c40-a3f5-2b6f0c9d8e71";
const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn channel() -> Channel {
    Channel::parse("room:1").unwrap()
}

fn epoch() -> Epoch {
    Epoch(0x9c2f_5e1b_7a40_d386)
}

fn at(seq: u64) -> Cursor {
    Cursor::new(epoch(), seq)
}

fn user(id: &str) -> UserId {
    UserId::parse(id).unwrap()
}

fn id() -> MessageId {
    MessageId::parse(ID).unwrap()
}

fn device() -> Device {
    Device::parse("phone").unwrap()
}

fn subscribe(channel: &str, from: From, max_catchup: u32) -> Subscribe {
    Subscribe {
        channel: Channel::parse(channel).unwrap(),
        from,
        max_catchup,
    }
}

/// Every client frame, by a name.
pub(crate) fn client() -> Vec<(&'static str, ClientFrame)> {
    let publish = |data: &'static [u8]| Publish {
        id: id(),
        channel: channel(),
        kind: "chat".into(),
        data: Bytes::from_static(data),
        traceparent: None,
    };
    let request = ClientFrame::request;
    vec![
        (
            "connect",
            request(
                1,
                ClientBody::Connect(Connect {
                    token: Some(Token::parse("eyJhbGciOi.eyJzdWIiOi.c2lnbmF0dXJl").unwrap()),
                    device: Some(device()),
                    subscriptions: vec![
                        subscribe("user:42", From::Acked, 0),
                        subscribe("room:1", From::Cursor(at(7)), 1000),
                    ],
                    inbox: true,
                    rooms: true,
                }),
            ),
        ),
        (
            "connect with nothing",
            ClientFrame::new(ClientBody::Connect(Connect::default())),
        ),
        (
            "subscribe from a cursor",
            request(
                2,
                ClientBody::Subscribe(subscribe("room:1", From::Cursor(at(7)), 500)),
            ),
        ),
        (
            "subscribe at the tail",
            request(2, ClientBody::Subscribe(subscribe("room:1", From::Tail, 0))),
        ),
        (
            "subscribe to the last messages",
            request(
                2,
                ClientBody::Subscribe(subscribe("room:1", From::Last(20), 0)),
            ),
        ),
        (
            "unsubscribe",
            request(3, ClientBody::Unsubscribe { channel: channel() }),
        ),
        (
            "publish",
            request(
                4,
                ClientBody::Publish(Publish {
                    traceparent: Some(TRACEPARENT.into()),
                    ..publish(br#"{"text": "hi"}"#)
                }),
            ),
        ),
        (
            "publish bytes",
            request(4, ClientBody::Publish(publish(b"\x00\xff"))),
        ),
        (
            "signal",
            ClientFrame::new(ClientBody::Signal(SendSignal {
                channel: channel(),
                kind: "typing".into(),
                data: Bytes::from_static(b"true"),
            })),
        ),
        (
            "ack",
            ClientFrame::new(ClientBody::Ack(Ack {
                channel: channel(),
                delivered: Some(at(9)),
                read: Some(at(7)),
            })),
        ),
        (
            "presence",
            request(5, ClientBody::Presence { channel: channel() }),
        ),
        (
            "refresh",
            request(
                6,
                ClientBody::Refresh {
                    token: Token::parse("eyJhbGciOi.eyJzdWIiOi.c2lnbmF0dXJl").unwrap(),
                },
            ),
        ),
        ("pong", ClientFrame::new(ClientBody::Pong)),
    ]
}

/// Every edge frame, by a name.
pub(crate) fn server() -> Vec<(&'static str, ServerFrame)> {
    let mut all = connection();
    all.extend(subscription());
    all.extend(replies());
    all
}

fn connection() -> Vec<(&'static str, ServerFrame)> {
    vec![
        (
            "connected",
            ServerFrame::reply(
                1,
                ServerBody::Connected(Connected {
                    session: "0199d1a5-7c1e-7c40-a3f5-000000000001".into(),
                    user: user("42"),
                    edge: "edge-1".into(),
                    ping_ms: 25_000,
                    limits: Limits {
                        message_bytes: 65_536,
                        subscriptions: 128,
                    },
                    retry: Retry {
                        min_ms: 1_000,
                        max_ms: 30_000,
                    },
                    expires_ms: 1_760_000_000_000,
                }),
            ),
        ),
        (
            "refreshed",
            ServerFrame::reply(
                6,
                ServerBody::Refreshed {
                    expires_ms: 1_760_000_000_000,
                },
            ),
        ),
        (
            "token_expiring",
            ServerFrame::new(ServerBody::TokenExpiring {
                expires_in_ms: 60_000,
            }),
        ),
        (
            "goaway",
            ServerFrame::new(ServerBody::Goaway(Goaway {
                reason: GoawayReason::Drain,
                retry_after_ms: 1_200,
            })),
        ),
        (
            "ping",
            ServerFrame::new(ServerBody::Ping {
                positions: BTreeMap::from([(0, at(12)), (3, Cursor::new(Epoch(1), 0))]),
            }),
        ),
        (
            "ping without subscriptions",
            ServerFrame::new(ServerBody::Ping {
                positions: BTreeMap::new(),
            }),
        ),
    ]
}

fn subscription() -> Vec<(&'static str, ServerFrame)> {
    let full = Message {
        seq: 8,
        prev: 5,
        id: Some(id()),
        kind: "chat".into(),
        sender: Some(user("42")),
        time_ms: 1_759_000_000_000,
        data: Bytes::from_static(br#"{"text": "hi"}"#),
        traceparent: Some(TRACEPARENT.into()),
    };
    let bare = Message {
        seq: 9,
        prev: 0,
        id: None,
        kind: "".into(),
        sender: None,
        time_ms: 1_759_000_000_001,
        data: Bytes::from_static(b"\x00\xff"),
        traceparent: None,
    };
    let reset = |reason, earliest| {
        ServerFrame::new(ServerBody::Reset(Reset {
            channel: channel(),
            reason,
            head: at(12),
            earliest,
        }))
    };
    let unsubscribed = |reason, message: &str| {
        ServerBody::Unsubscribed(Unsubscribed {
            channel: channel(),
            reason,
            message: message.into(),
        })
    };
    vec![
        (
            "subscribed",
            ServerFrame::reply(
                2,
                ServerBody::Subscribed(Subscribed {
                    channel: channel(),
                    shard: 0,
                    cursor: at(7),
                    head: at(12),
                    replay: true,
                    unread: 2,
                }),
            ),
        ),
        (
            "messages",
            ServerFrame::new(ServerBody::Messages(Messages {
                channel: channel(),
                epoch: epoch(),
                messages: vec![full, bare],
            })),
        ),
        (
            "live",
            ServerFrame::new(ServerBody::Live {
                channel: channel(),
                cursor: at(12),
            }),
        ),
        ("reset", reset(ResetReason::Expired, Some(at(4)))),
        ("reset, epoch", reset(ResetReason::Epoch, None)),
        ("reset, ahead", reset(ResetReason::Ahead, None)),
        (
            "reset, too far behind",
            reset(ResetReason::TooFarBehind, None),
        ),
        (
            "unsubscribed",
            ServerFrame::reply(3, unsubscribed(UnsubscribeReason::Asked, "")),
        ),
        (
            "unsubscribed, removed",
            ServerFrame::new(unsubscribed(
                UnsubscribeReason::Removed,
                "no longer a member of room:1",
            )),
        ),
    ]
}

fn replies() -> Vec<(&'static str, ServerFrame)> {
    vec![
        (
            "published",
            ServerFrame::reply(
                4,
                ServerBody::Published(Published {
                    id: id(),
                    channel: channel(),
                    cursor: at(13),
                    duplicate: false,
                }),
            ),
        ),
        (
            "error",
            ServerFrame::reply(
                4,
                ServerBody::Error(ErrorBody {
                    code: ErrorCode::Unavailable,
                    message: "not stored, or not known to be".into(),
                    retry_after_ms: 1_000,
                    channel: Some(channel()),
                }),
            ),
        ),
        (
            "error without a request",
            ServerFrame::new(ServerBody::Error(ErrorBody {
                code: ErrorCode::BadFrame,
                message: "\"suscribe\" is not a frame".into(),
                retry_after_ms: 0,
                channel: None,
            })),
        ),
        (
            "signal",
            ServerFrame::new(ServerBody::Signal(Signal {
                channel: channel(),
                kind: "typing".into(),
                sender: Some(user("42")),
                data: Bytes::from_static(b"true"),
            })),
        ),
        (
            "presence",
            ServerFrame::reply(
                5,
                ServerBody::Presence(Presence {
                    channel: channel(),
                    users: vec![user("42"), user("43")],
                    partial: false,
                }),
            ),
        ),
        (
            "receipt",
            ServerFrame::new(ServerBody::Receipt(Receipt {
                channel: channel(),
                device: Some(device()),
                delivered: Some(at(9)),
                read: Some(at(7)),
                unread: 3,
            })),
        ),
    ]
}
