//! Turns the text of a field into a valid type, or into an error that names
//! the field.

use std::fmt::Display;

use bytes::Bytes;

use crate::codes::ErrorCode;
use crate::limits::MESSAGE_BYTES_MAX;
use crate::names::{self, NameError};
use crate::start::From;
use crate::{Channel, Cursor, Device, Epoch, MessageId, UserId};

/// A field that is wrong.
pub(super) struct FieldError {
    pub(super) code: ErrorCode,
    pub(super) message: String,
}

impl FieldError {
    pub(super) fn new(code: ErrorCode, field: &str, why: impl Display) -> Self {
        Self {
            code,
            message: format!("{field}: {why}"),
        }
    }

    /// A field of a list's item: `list[index].field`.
    pub(super) fn within(self, parent: &str) -> Self {
        Self {
            code: self.code,
            message: format!("{parent}.{}", self.message),
        }
    }

    pub(super) fn missing(field: &str) -> Self {
        Self::new(ErrorCode::BadRequest, field, "missing")
    }
}

type Field<T> = Result<T, FieldError>;

pub(super) fn channel(field: &str, text: &str) -> Field<Channel> {
    Channel::parse(text).map_err(|error| FieldError::new(ErrorCode::BadChannel, field, error))
}

/// A channel where it may be left out.
pub(super) fn optional_channel(field: &str, text: &str) -> Field<Option<Channel>> {
    optional(text, |text| channel(field, text))
}

pub(super) fn cursor(field: &str, text: &str) -> Field<Cursor> {
    Cursor::parse(text).map_err(|error| FieldError::new(ErrorCode::BadCursor, field, error))
}

pub(super) fn optional_cursor(field: &str, text: &str) -> Field<Option<Cursor>> {
    optional(text, |text| cursor(field, text))
}

pub(super) fn epoch(field: &str, text: &str) -> Field<Epoch> {
    Epoch::parse(text).map_err(|_| {
        FieldError::new(
            ErrorCode::BadCursor,
            field,
            "an epoch is 16 lower-case hexadecimal digits",
        )
    })
}

/// A `from`, the tail where it is left out.
pub(super) fn from(field: &str, text: &str) -> Field<From> {
    if text.is_empty() {
        return Ok(From::default());
    }
    From::parse(text).map_err(|error| FieldError::new(ErrorCode::BadCursor, field, error))
}

pub(super) fn message_id(field: &str, text: &str) -> Field<MessageId> {
    MessageId::parse(text).map_err(|error| name_error(field, error))
}

pub(super) fn user(field: &str, text: &str) -> Field<UserId> {
    UserId::parse(text).map_err(|error| name_error(field, error))
}

pub(super) fn optional_user(field: &str, text: &str) -> Field<Option<UserId>> {
    optional(text, |text| user(field, text))
}

pub(super) fn optional_device(field: &str, text: &str) -> Field<Option<Device>> {
    optional(text, |text| {
        Device::parse(text).map_err(|error| name_error(field, error))
    })
}

pub(super) fn kind(field: &str, text: String) -> Field<Box<str>> {
    names::check_type(&text).map_err(|error| name_error(field, error))?;
    Ok(text.into())
}

pub(super) fn traceparent(field: &str, text: &str) -> Field<Option<Box<str>>> {
    optional(text, |text| {
        names::check_traceparent(text).map_err(|error| name_error(field, error))?;
        Ok(text.into())
    })
}

pub(super) fn data(field: &str, data: Bytes) -> Field<Bytes> {
    if data.len() > MESSAGE_BYTES_MAX {
        let why = format!(
            "{} bytes, at most {MESSAGE_BYTES_MAX} are allowed",
            data.len()
        );
        return Err(FieldError::new(ErrorCode::TooLarge, field, why));
    }
    Ok(data)
}

pub(super) fn shard(field: &str, number: u32) -> Field<u16> {
    u16::try_from(number).map_err(|_| {
        FieldError::new(
            ErrorCode::BadRequest,
            field,
            "a shard is a number below 65536",
        )
    })
}

/// Empty means left out, for every field of every frame.
fn optional<T>(text: &str, parse: impl FnOnce(&str) -> Field<T>) -> Field<Option<T>> {
    if text.is_empty() {
        Ok(None)
    } else {
        parse(text).map(Some)
    }
}

fn name_error(field: &str, error: NameError) -> FieldError {
    FieldError::new(ErrorCode::BadRequest, field, error)
}
