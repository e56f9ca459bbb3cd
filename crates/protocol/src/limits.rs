//! How large and how many: every bound of the wire protocol, with its reason.
//!
//! Names ending in `_DEFAULT` are what an edge uses unless it is configured
//! otherwise, and what the edge enforces. The others are fixed and enforced by
//! the decoders, so that a frame that decodes is within them.

/// Longest payload of a message, unless configured: 64 KiB carries any
/// notification or chat message, and keeps a full window page under 1 MiB.
pub const MESSAGE_BYTES_DEFAULT: usize = 65_536;

/// Longest payload that can be configured. As `data_base64` it grows by a
/// third; together with a full batch that is still under 1 MiB, the largest
/// frame that stock WebSocket clients take unasked, and with its headers it
/// is within nats-server's `max_payload` of 1 MiB.
pub const MESSAGE_BYTES_MAX: usize = 524_288;

/// Subscriptions of one connection, unless configured: an inbox, the rooms of
/// an active user and some topics; it bounds what one reconnect costs.
pub const SUBSCRIPTIONS_DEFAULT: usize = 128;

/// Most subscriptions of one connection that can be configured: keeps a
/// `connect` frame that names them all near 1 MiB.
pub const SUBSCRIPTIONS_MAX: usize = 4_096;

/// Longest token: what HTTP servers commonly take for a whole header block,
/// so that a token that fits here also fits the `Authorization` header.
pub const TOKEN_BYTES_MAX: usize = 8_192;

/// Longest device name: a UUID takes 36.
pub const DEVICE_BYTES_MAX: usize = crate::names::NAME_PART_MAX_BYTES;

/// Longest application type of a message or signal: it is a name, repeated in
/// every message, and becomes a header of the stored one.
pub const TYPE_BYTES_MAX: usize = 64;

/// A W3C `traceparent` of version 00 is always this long.
pub const TRACEPARENT_BYTES: usize = 55;

/// What a frame may have around its payload: names, ids, keys, white space.
pub const FRAME_OVERHEAD_BYTES: usize = 4_096;

/// What one subscription takes in a `connect` frame at most: a channel (129),
/// a cursor (37), a number (10), the keys and some white space.
pub const SUBSCRIPTION_BYTES: usize = 256;

/// A `messages` frame is closed with the first message that brings it past
/// this: large enough that the cost of a frame and a system call does not
/// matter, small enough that one channel does not hold a connection for long.
pub const BATCH_BYTES: usize = 262_144;

/// Longest frame that an edge must read from a client, given the two limits
/// that it announces: the longer of a `publish` whose payload travels as
/// base64, and a `connect` that names every subscription.
pub const fn frame_bytes(message_bytes: usize, subscriptions: usize) -> usize {
    let publish = message_bytes.div_ceil(3) * 4;
    let connect = TOKEN_BYTES_MAX + subscriptions * SUBSCRIPTION_BYTES;
    let longer = if publish > connect { publish } else { connect };
    FRAME_OVERHEAD_BYTES + longer
}

/// Longest frame from a client under any configuration.
pub const FRAME_BYTES_MAX: usize = frame_bytes(MESSAGE_BYTES_MAX, SUBSCRIPTIONS_MAX);

/// Longest frame from a client under the default configuration.
pub const FRAME_BYTES_DEFAULT: usize = frame_bytes(MESSAGE_BYTES_DEFAULT, SUBSCRIPTIONS_DEFAULT);

/// Longest time between two pings, in milliseconds, unless configured: under
/// the 60 s idle timeout of common load balancers, with one to spare.
pub const PING_MS_DEFAULT: u32 = 25_000;

/// First reconnect delay that clients are told, in milliseconds.
pub const RETRY_MIN_MS_DEFAULT: u32 = 1_000;

/// Longest reconnect delay that clients are told, in milliseconds.
pub const RETRY_MAX_MS_DEFAULT: u32 = 30_000;

/// Deepest nesting of a payload that is embedded in a JSON frame; a deeper one
/// travels as `data_base64`. Stock parsers give up at 128 levels or more, and
/// a `messages` frame adds 4 of its own.
pub const JSON_DEPTH_MAX: usize = 100;

/// Longest message of an `error` frame that tells why a frame was refused, in
/// bytes: names the field, without letting a client have its input back.
pub const ERROR_MESSAGE_BYTES_MAX: usize = 240;

/// Most users that a `presence` frame names: more than a page shows, and 66 KB
/// with the longest names.
pub const PRESENCE_USERS_MAX: usize = 1_000;
