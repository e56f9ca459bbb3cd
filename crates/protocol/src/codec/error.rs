//! Why bytes are not a frame.

use crate::codes::ErrorCode;
use crate::frame::{ErrorBody, ServerBody, ServerFrame};
use crate::limits::ERROR_MESSAGE_BYTES_MAX;

/// Why bytes are not a frame, in a form that can be answered.
///
/// The code is [`BadFrame`](ErrorCode::BadFrame) where the frame could not be
/// recognised at all, and otherwise that of the first field that is wrong,
/// which the message names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct DecodeError {
    /// What to answer.
    pub code: ErrorCode,
    /// The frame's `req` where it could be read, else 0.
    pub req: u32,
    /// Names the field and what was expected of it; for a developer's eyes.
    /// It never repeats a token or a payload.
    pub message: Box<str>,
}

impl DecodeError {
    pub(crate) fn new(code: ErrorCode, req: u32, message: impl Into<String>) -> Self {
        let mut message = message.into();
        message.truncate(message.floor_char_boundary(ERROR_MESSAGE_BYTES_MAX));
        Self {
            code,
            req,
            message: message.into(),
        }
    }

    /// Whether the sender does not speak this protocol: its frame was not even
    /// recognised, rather than having a field that is wrong.
    pub fn is_bad_frame(&self) -> bool {
        self.code == ErrorCode::BadFrame
    }

    /// The `error` frame that answers it.
    pub fn to_frame(&self) -> ServerFrame {
        let body = ErrorBody {
            code: self.code,
            message: self.message.clone(),
            retry_after_ms: 0,
            channel: None,
        };
        ServerFrame::reply(self.req, ServerBody::Error(body))
    }

    /// Bytes that prost did not take, with the `req` if that can be read.
    pub(crate) fn from_proto(bytes: &[u8], error: &prost::DecodeError) -> Self {
        /// The start of either frame; everything else is skipped.
        #[derive(Clone, PartialEq, prost::Message)]
        struct Head {
            #[prost(uint32, tag = "1")]
            req: u32,
        }
        let mut head = Head::default();
        // Where the bytes break off later, what was merged before stays.
        let _ = prost::Message::merge(&mut head, bytes);
        Self::new(
            ErrorCode::BadFrame,
            head.req,
            format!("not a protobuf frame: {error}"),
        )
    }
}
