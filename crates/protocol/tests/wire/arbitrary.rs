//! Any valid frame, for property tests.

use bytes::Bytes;
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::strategy::Union;
use protocol::frame::{
    Ack, Connect, Connected, ErrorBody, Goaway, GoawayReason, Limits, Message, Messages, Presence,
    Publish, Published, Receipt, Reset, ResetReason, Retry, SendSignal, Signal, Subscribe,
    Subscribed, Token, UnsubscribeReason, Unsubscribed,
};
use protocol::{
    Channel, ClientBody, ClientFrame, Cursor, Device, Epoch, ErrorCode, From, MessageId,
    ServerBody, ServerFrame, UserId,
};

fn channel() -> impl Strategy<Value = Channel> {
    "[A-Za-z0-9_-]{1,64}:[A-Za-z0-9_-]{1,64}".prop_map(|text| Channel::parse(&text).unwrap())
}

fn cursor() -> impl Strategy<Value = Cursor> {
    any::<(u64, u64)>().prop_map(|(epoch, seq)| Cursor::new(Epoch(epoch), seq))
}

fn user() -> impl Strategy<Value = UserId> {
    "[A-Za-z0-9_-]{1,64}".prop_map(|text| UserId::parse(&text).unwrap())
}

fn device() -> impl Strategy<Value = Device> {
    "[A-Za-z0-9_-]{1,64}".prop_map(|text| Device::parse(&text).unwrap())
}

fn id() -> impl Strategy<Value = MessageId> {
    "[A-Za-z0-9_.:-]{1,128}".prop_map(|text| MessageId::parse(&text).unwrap())
}

fn token() -> impl Strategy<Value = Token> {
    "\\PC{1,80}".prop_map(|text| Token::parse(&text).unwrap())
}

fn kind() -> impl Strategy<Value = Box<str>> {
    "[A-Za-z0-9_.:-]{0,64}".prop_map(Into::into)
}

/// Text for people: anything at all.
fn text() -> impl Strategy<Value = Box<str>> {
    ".{0,40}".prop_map(Into::into)
}

fn traceparent() -> impl Strategy<Value = Box<str>> {
    "00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}".prop_map(Into::into)
}

fn json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<u64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        ".{0,20}".prop_map(serde_json::Value::from),
    ];
    leaf.prop_recursive(4, 24, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(serde_json::Value::from),
            btree_map(".{0,8}", inner, 0..6).prop_map(|map| map.into_iter().collect()),
        ]
    })
}

/// Payloads: compact JSON, JSON with all kinds of white space, and bytes.
pub(crate) fn data() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        json().prop_map(|value| value.to_string().into()),
        (json(), "[ \t\r\n]{0,3}", "[ \t\r\n]{0,3}").prop_map(|(value, before, after)| {
            let pretty = serde_json::to_string_pretty(&value).unwrap();
            format!("{before}{}{after}", pretty.replace('\n', "\r\n")).into()
        }),
        vec(any::<u8>(), 0..60).prop_map(Bytes::from),
    ]
}

fn from() -> impl Strategy<Value = From> {
    prop_oneof![
        Just(From::Tail),
        Just(From::Earliest),
        Just(From::Acked),
        (1..=u32::MAX).prop_map(From::Last),
        cursor().prop_map(From::Cursor),
    ]
}

fn subscribe() -> impl Strategy<Value = Subscribe> {
    (channel(), from(), any::<u32>()).prop_map(|(channel, from, max_catchup)| Subscribe {
        channel,
        from,
        max_catchup,
    })
}

fn connect() -> impl Strategy<Value = Connect> {
    (
        option::of(token()),
        option::of(device()),
        vec(subscribe(), 0..4),
        any::<(bool, bool)>(),
    )
        .prop_map(|(token, device, subscriptions, (inbox, rooms))| Connect {
            token,
            device,
            subscriptions,
            inbox,
            rooms,
        })
}

/// Any client frame.
pub(crate) fn client_frame() -> impl Strategy<Value = ClientFrame> {
    let publish = (id(), channel(), kind(), data(), option::of(traceparent())).prop_map(
        |(id, channel, kind, data, traceparent)| Publish {
            id,
            channel,
            kind,
            data,
            traceparent,
        },
    );
    let signal = (channel(), kind(), data()).prop_map(|(channel, kind, data)| SendSignal {
        channel,
        kind,
        data,
    });
    let ack = (channel(), option::of(cursor()), option::of(cursor()))
        .prop_filter("an ack has a position", |(_, delivered, read)| {
            delivered.is_some() || read.is_some()
        })
        .prop_map(|(channel, delivered, read)| Ack {
            channel,
            delivered,
            read,
        });
    let body = prop_oneof![
        connect().prop_map(ClientBody::Connect),
        subscribe().prop_map(ClientBody::Subscribe),
        channel().prop_map(|channel| ClientBody::Unsubscribe { channel }),
        publish.prop_map(ClientBody::Publish),
        signal.prop_map(ClientBody::Signal),
        ack.prop_map(ClientBody::Ack),
        channel().prop_map(|channel| ClientBody::Presence { channel }),
        token().prop_map(|token| ClientBody::Refresh { token }),
        Just(ClientBody::Pong),
    ];
    (any::<u32>(), body).prop_map(|(req, body)| ClientFrame { req, body })
}

/// Any message, also of a foreign publisher, whose type may be any text.
pub(crate) fn message() -> impl Strategy<Value = Message> {
    (
        any::<(u64, u64, i64)>(),
        option::of(id()),
        prop_oneof![kind(), text()],
        option::of(user()),
        data(),
        option::of(traceparent()),
    )
        .prop_map(
            |((seq, prev, time_ms), id, kind, sender, data, traceparent)| Message {
                seq,
                prev,
                id,
                kind,
                sender,
                time_ms,
                data,
                traceparent,
            },
        )
}

/// A batch of messages, possibly none.
pub(crate) fn messages() -> impl Strategy<Value = Messages> {
    (channel(), any::<u64>(), vec(message(), 0..4)).prop_map(|(channel, epoch, messages)| {
        Messages {
            channel,
            epoch: Epoch(epoch),
            messages,
        }
    })
}

fn connected() -> impl Strategy<Value = ServerBody> {
    (text(), user(), text(), any::<[u32; 5]>(), any::<u64>()).prop_map(
        |(session, user, edge, numbers, expires_ms)| {
            let [ping_ms, message_bytes, subscriptions, min_ms, max_ms] = numbers;
            ServerBody::Connected(Connected {
                session,
                user,
                edge,
                ping_ms,
                limits: Limits {
                    message_bytes,
                    subscriptions,
                },
                retry: Retry { min_ms, max_ms },
                expires_ms,
            })
        },
    )
}

fn subscribed() -> impl Strategy<Value = ServerBody> {
    (channel(), cursor(), cursor(), any::<(u16, bool, u64)>()).prop_map(
        |(channel, cursor, head, (shard, replay, unread))| {
            ServerBody::Subscribed(Subscribed {
                channel,
                shard,
                cursor,
                head,
                replay,
                unread,
            })
        },
    )
}

fn reset() -> impl Strategy<Value = ServerBody> {
    let reason = prop_oneof![
        Just(ResetReason::Expired),
        Just(ResetReason::Epoch),
        Just(ResetReason::Ahead),
        Just(ResetReason::TooFarBehind),
    ];
    (channel(), reason, cursor(), option::of(cursor())).prop_map(
        |(channel, reason, head, earliest)| {
            ServerBody::Reset(Reset {
                channel,
                reason,
                head,
                earliest,
            })
        },
    )
}

fn error() -> impl Strategy<Value = ServerBody> {
    let code = proptest::sample::select(ErrorCode::ALL.to_vec());
    (code, text(), any::<u64>(), option::of(channel())).prop_map(
        |(code, message, retry_after_ms, channel)| {
            ServerBody::Error(ErrorBody {
                code,
                message,
                retry_after_ms,
                channel,
            })
        },
    )
}

fn receipt() -> impl Strategy<Value = ServerBody> {
    let positions = (option::of(cursor()), option::of(cursor()));
    (channel(), option::of(device()), positions, any::<u64>()).prop_map(
        |(channel, device, (delivered, read), unread)| {
            ServerBody::Receipt(Receipt {
                channel,
                device,
                delivered,
                read,
                unread,
            })
        },
    )
}

fn others() -> impl Strategy<Value = ServerBody> {
    let unsubscribed = (channel(), any::<bool>(), text()).prop_map(|(channel, asked, message)| {
        let reason = if asked {
            UnsubscribeReason::Asked
        } else {
            UnsubscribeReason::Removed
        };
        ServerBody::Unsubscribed(Unsubscribed {
            channel,
            reason,
            message,
        })
    });
    let published =
        (id(), channel(), cursor(), any::<bool>()).prop_map(|(id, channel, cursor, duplicate)| {
            ServerBody::Published(Published {
                id,
                channel,
                cursor,
                duplicate,
            })
        });
    let signal = (channel(), kind(), option::of(user()), data()).prop_map(
        |(channel, kind, sender, data)| {
            ServerBody::Signal(Signal {
                channel,
                kind,
                sender,
                data,
            })
        },
    );
    let goaway = (any::<bool>(), any::<u64>()).prop_map(|(drain, retry_after_ms)| {
        let reason = if drain {
            GoawayReason::Drain
        } else {
            GoawayReason::Lifetime
        };
        ServerBody::Goaway(Goaway {
            reason,
            retry_after_ms,
        })
    });
    prop_oneof![
        unsubscribed,
        published,
        signal,
        goaway,
        (channel(), cursor()).prop_map(|(channel, cursor)| ServerBody::Live { channel, cursor }),
        (channel(), vec(user(), 0..4), any::<bool>()).prop_map(|(channel, users, partial)| {
            ServerBody::Presence(Presence {
                channel,
                users,
                partial,
            })
        }),
        any::<u64>().prop_map(|expires_ms| ServerBody::Refreshed { expires_ms }),
        any::<u64>().prop_map(|expires_in_ms| ServerBody::TokenExpiring { expires_in_ms }),
        btree_map(any::<u16>(), cursor(), 0..4)
            .prop_map(|positions| ServerBody::Ping { positions }),
    ]
}

/// Any edge frame.
pub(crate) fn server_frame() -> impl Strategy<Value = ServerFrame> {
    let body = Union::new([
        connected().boxed(),
        subscribed().boxed(),
        reset().boxed(),
        error().boxed(),
        receipt().boxed(),
        messages().prop_map(ServerBody::Messages).boxed(),
        others().boxed(),
    ]);
    (any::<u32>(), body).prop_map(|(req, body)| ServerFrame { req, body })
}
