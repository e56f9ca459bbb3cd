//! Error and close codes: what went wrong, and whether trying again helps.

use std::fmt;

/// Why a request failed. The connection stays open.
///
/// `docs/PROTOCOL.md` lists the same codes for people who write clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// Not a frame: not JSON or protobuf, an unknown body, none or several.
    BadFrame,
    /// A channel that is not `namespace:id`.
    BadChannel,
    /// A cursor, or a `from`, that is malformed.
    BadCursor,
    /// A field is missing, unknown, of the wrong type or out of bounds.
    BadRequest,
    /// The token is missing, forged or expired.
    Unauthorized,
    /// The token does not allow this.
    Forbidden,
    /// There is no such thing.
    NotFound,
    /// A payload or field is longer than its limit.
    TooLarge,
    /// The connection has as many subscriptions as it may have.
    TooManySubscriptions,
    /// The connection already listens to this channel.
    AlreadySubscribed,
    /// The connection does not listen to this channel.
    NotSubscribed,
    /// Too many requests in a short time.
    RateLimited,
    /// Something behind the edge is away. A publish may or may not have been
    /// stored: retry it under the same id.
    Unavailable,
    /// The stream is at its byte limit; nothing was stored.
    StreamFull,
    /// This edge does not offer that.
    Unsupported,
    /// A defect of the edge.
    Internal,
}

impl ErrorCode {
    /// Every code, for tables and tests.
    pub const ALL: [Self; 16] = [
        Self::BadFrame,
        Self::BadChannel,
        Self::BadCursor,
        Self::BadRequest,
        Self::Unauthorized,
        Self::Forbidden,
        Self::NotFound,
        Self::TooLarge,
        Self::TooManySubscriptions,
        Self::AlreadySubscribed,
        Self::NotSubscribed,
        Self::RateLimited,
        Self::Unavailable,
        Self::StreamFull,
        Self::Unsupported,
        Self::Internal,
    ];

    /// The code on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BadFrame => "bad_frame",
            Self::BadChannel => "bad_channel",
            Self::BadCursor => "bad_cursor",
            Self::BadRequest => "bad_request",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::TooLarge => "too_large",
            Self::TooManySubscriptions => "too_many_subscriptions",
            Self::AlreadySubscribed => "already_subscribed",
            Self::NotSubscribed => "not_subscribed",
            Self::RateLimited => "rate_limited",
            Self::Unavailable => "unavailable",
            Self::StreamFull => "stream_full",
            Self::Unsupported => "unsupported",
            Self::Internal => "internal",
        }
    }

    /// Whether the same request may succeed later, unchanged.
    pub fn is_retryable(self) -> bool {
        match self {
            Self::RateLimited | Self::Unavailable | Self::StreamFull | Self::Internal => true,
            Self::BadFrame
            | Self::BadChannel
            | Self::BadCursor
            | Self::BadRequest
            | Self::Unauthorized
            | Self::Forbidden
            | Self::NotFound
            | Self::TooLarge
            | Self::TooManySubscriptions
            | Self::AlreadySubscribed
            | Self::NotSubscribed
            | Self::Unsupported => false,
        }
    }

    /// The code with this text on the wire.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.as_str() == text)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why the edge closed a connection: 4000–4499 say come back (with jitter, and
/// with your cursors), 4500–4999 say do not, until something has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseCode {
    /// The edge is going down; another one takes the connection.
    Draining,
    /// The client read too slowly for too long. Its cursors hold the place.
    SlowConsumer,
    /// No frame came for two ping intervals.
    HeartbeatTimeout,
    /// The client sent too much in too short a time.
    RateLimited,
    /// Something the connection needs is away.
    Unavailable,
    /// The connection reached its longest lifetime, so that load spreads.
    Lifetime,
    /// An operator or service asked for it.
    Disconnected,
    /// The token expired. Come back with a new one.
    TokenExpired,
    /// A frame that cannot be read at all.
    BadFrame,
    /// The token is missing, forged or expired.
    Unauthorized,
    /// The token or session was revoked.
    Revoked,
    /// No `connect` frame came in time.
    ConnectTimeout,
    /// A frame longer than the limit.
    FrameTooLarge,
    /// Text where binary was negotiated, or binary where text was.
    WrongEncoding,
    /// The user is banned.
    Banned,
}

impl CloseCode {
    /// Every code, for tables and tests.
    pub const ALL: [Self; 15] = [
        Self::Draining,
        Self::SlowConsumer,
        Self::HeartbeatTimeout,
        Self::RateLimited,
        Self::Unavailable,
        Self::Lifetime,
        Self::Disconnected,
        Self::TokenExpired,
        Self::BadFrame,
        Self::Unauthorized,
        Self::Revoked,
        Self::ConnectTimeout,
        Self::FrameTooLarge,
        Self::WrongEncoding,
        Self::Banned,
    ];

    /// The number in the WebSocket close frame.
    pub fn as_u16(self) -> u16 {
        match self {
            Self::Draining => 4000,
            Self::SlowConsumer => 4001,
            Self::HeartbeatTimeout => 4002,
            Self::RateLimited => 4003,
            Self::Unavailable => 4004,
            Self::Lifetime => 4005,
            Self::Disconnected => 4006,
            Self::TokenExpired => 4007,
            Self::BadFrame => 4500,
            Self::Unauthorized => 4501,
            Self::Revoked => 4502,
            Self::ConnectTimeout => 4503,
            Self::FrameTooLarge => 4504,
            Self::WrongEncoding => 4505,
            Self::Banned => 4506,
        }
    }

    /// The reason text in the WebSocket close frame.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Draining => "draining",
            Self::SlowConsumer => "slow_consumer",
            Self::HeartbeatTimeout => "heartbeat_timeout",
            Self::RateLimited => "rate_limited",
            Self::Unavailable => "unavailable",
            Self::Lifetime => "lifetime",
            Self::Disconnected => "disconnected",
            Self::TokenExpired => "token_expired",
            Self::BadFrame => "bad_frame",
            Self::Unauthorized => "unauthorized",
            Self::Revoked => "revoked",
            Self::ConnectTimeout => "connect_timeout",
            Self::FrameTooLarge => "frame_too_large",
            Self::WrongEncoding => "wrong_encoding",
            Self::Banned => "banned",
        }
    }

    /// Whether the client should reconnect (after a delay with jitter).
    pub fn comes_back(self) -> bool {
        match self {
            Self::Draining
            | Self::SlowConsumer
            | Self::HeartbeatTimeout
            | Self::RateLimited
            | Self::Unavailable
            | Self::Lifetime
            | Self::Disconnected
            | Self::TokenExpired => true,
            Self::BadFrame
            | Self::Unauthorized
            | Self::Revoked
            | Self::ConnectTimeout
            | Self::FrameTooLarge
            | Self::WrongEncoding
            | Self::Banned => false,
        }
    }

    /// The code with this number.
    pub fn from_u16(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.as_u16() == number)
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.as_u16(), self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_round_trip_and_are_distinct() {
        for code in ErrorCode::ALL {
            assert_eq!(ErrorCode::parse(code.as_str()), Some(code));
        }
        for code in CloseCode::ALL {
            assert_eq!(CloseCode::from_u16(code.as_u16()), Some(code));
        }
        assert_eq!(ErrorCode::parse("BadFrame"), None);
        assert_eq!(CloseCode::from_u16(1000), None);
    }

    #[test]
    fn the_range_of_a_close_code_tells_whether_to_come_back() {
        for code in CloseCode::ALL {
            let range = if code.comes_back() {
                4000..4500
            } else {
                4500..5000
            };
            assert!(range.contains(&code.as_u16()), "{code}");
        }
    }
}
