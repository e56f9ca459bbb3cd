//! What each operation is asked with.

use protocol::{Channel, ErrorCode, MessageId, UserId};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::http::error::ApiError;

/// Nothing, or one edge.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Anyone {
    #[serde(default)]
    pub(super) edge: Option<EdgeName>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OfUser {
    pub(super) user: UserId,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OfChannel {
    pub(super) channel: Channel,
}

/// Exactly one of the two.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Disconnect {
    #[serde(default)]
    pub(super) user: Option<UserId>,
    #[serde(default)]
    pub(super) session: Option<Session>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Drain {
    pub(super) edge: EdgeName,
    #[serde(default)]
    pub(super) spread_ms: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Undrain {
    pub(super) edge: EdgeName,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Log {
    #[serde(default)]
    pub(super) filter: Option<String>,
    #[serde(default)]
    pub(super) edge: Option<EdgeName>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Publish {
    pub(super) channel: Channel,
    pub(super) data: Box<RawValue>,
    #[serde(default)]
    pub(super) id: Option<MessageId>,
    #[serde(default, rename = "type")]
    pub(super) kind: String,
}

/// The name of an edge. It becomes part of a subject, so it is checked here.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct EdgeName(pub(super) Box<str>);

/// A connection as `connected` and [`super::Operation::Connections`] name it:
/// `<edge>-<number>`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Session {
    pub(super) edge: EdgeName,
    pub(super) connection: u64,
}

impl TryFrom<String> for EdgeName {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
        match (1..=64).contains(&text.len()) && text.bytes().all(allowed) {
            true => Ok(Self(text.into())),
            false => Err("an edge's name is 1 to 64 of A-Z a-z 0-9 _ -"),
        }
    }
}

impl TryFrom<String> for Session {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let expected = "a session is written <edge>-<number>";
        let (edge, number) = text.rsplit_once('-').ok_or(expected)?;
        Ok(Self {
            edge: edge.to_owned().try_into()?,
            connection: number.parse().map_err(|_| expected)?,
        })
    }
}

/// Reads a request; nothing at all stands for `{}`.
pub(super) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    let body = if body.trim_ascii().is_empty() {
        b"{}"
    } else {
        body
    };
    serde_json::from_slice(body)
        .map_err(|error| ApiError::new(ErrorCode::BadRequest, error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_names_its_edge() {
        let session = Session::try_from("edge-1-7".to_owned()).unwrap();
        assert_eq!(&*session.edge.0, "edge-1");
        assert_eq!(session.connection, 7);
        for bad in ["", "7", "-7", "edge-", "a.b-7", "edge-*-x", "*-1"] {
            assert!(Session::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_edge_that_would_be_another_subject_is_refused() {
        for bad in [
            r#"{"edge":"*"}"#,
            r#"{"edge":"a.b"}"#,
            r#"{"edge":""}"#,
            r#"{"edge":">"}"#,
        ] {
            assert!(parse::<Undrain>(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(parse::<Anyone>(b" \n").unwrap().edge.is_none());
        assert!(parse::<Anyone>(br#"{"egde":"a"}"#).is_err());
    }
}
