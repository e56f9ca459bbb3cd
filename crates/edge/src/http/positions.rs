//! Channels and positions as they stand in a URL, in an event's id and in a
//! poll's answer: lists with commas, the positions in the channels' order.

use axum::http::HeaderMap;
use protocol::{Channel, ErrorCode, From};

use super::error::ApiError;

/// What a browser sends when it comes back by itself: the id of the last
/// event (HTML, section 9.2).
const LAST_EVENT_ID_HEADER: &str = "last-event-id";

/// The channels of a request, each with where it is to be read from. `from`
/// is one for all or one for each, `tail` if left out; the id of the last
/// event goes before it.
pub(super) fn parse(
    channels: &str,
    from: Option<&str>,
    last_event_id: Option<&str>,
    most: usize,
) -> Result<Vec<(Channel, From)>, ApiError> {
    let names: Vec<&str> = channels.split(',').collect();
    if names.len() > most {
        let message = format!("channels: at most {most} at a time");
        return Err(ApiError::new(ErrorCode::TooManySubscriptions, message));
    }
    let (what, from) = match (last_event_id, from) {
        (Some(id), _) => (LAST_EVENT_ID_HEADER, id),
        (None, Some(from)) => ("from", from),
        (None, None) => ("from", "tail"),
    };
    let froms = from.split(',').map(|text| {
        From::parse(text)
            .map_err(|error| ApiError::new(ErrorCode::BadCursor, format!("{what}: {error}")))
    });
    let froms: Vec<From> = froms.collect::<Result<_, _>>()?;
    let for_all = froms.len() == 1 && last_event_id.is_none();
    if froms.len() != names.len() && !for_all {
        let message = format!(
            "{what} has {} positions for {} channels; one for each is needed, in their order",
            froms.len(),
            names.len()
        );
        return Err(ApiError::new(ErrorCode::BadCursor, message));
    }
    let mut wanted: Vec<(Channel, From)> = Vec::with_capacity(names.len());
    for (index, name) in names.into_iter().enumerate() {
        let channel = Channel::parse(name)
            .map_err(|error| ApiError::new(ErrorCode::BadChannel, format!("channels: {error}")))?;
        if wanted.iter().any(|(known, _)| *known == channel) {
            let message = format!("channels: {channel} is there twice");
            return Err(ApiError::new(ErrorCode::BadRequest, message));
        }
        let from = froms[if for_all { 0 } else { index }];
        wanted.push((channel, from));
    }
    Ok(wanted)
}

/// The id of the last event, where a client sends one.
pub(super) fn last_event_id(headers: &HeaderMap) -> Result<Option<&str>, ApiError> {
    let Some(value) = headers.get(LAST_EVENT_ID_HEADER) else {
        return Ok(None);
    };
    match value.to_str() {
        Ok("") => Ok(None),
        Ok(id) => Ok(Some(id)),
        Err(_) => {
            let message = "last-event-id: not an id of this edge's events";
            Err(ApiError::new(ErrorCode::BadCursor, message))
        }
    }
}

/// The inverse of [`parse`]'s reading of positions.
pub(super) fn join(positions: impl Iterator<Item = From>) -> String {
    let texts: Vec<String> = positions.map(|position| position.to_string()).collect();
    texts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    const CURSORS: &str = "00000000000000ff-7,00000000000000ff-9";

    fn read(channels: &str, from: Option<&str>, id: Option<&str>) -> Result<String, ErrorCode> {
        parse(channels, from, id, 3)
            .map(|wanted| join(wanted.into_iter().map(|(_, from)| from)))
            .map_err(|error| error.code())
    }

    #[test]
    fn positions_are_for_all_or_for_each_and_the_last_event_wins() {
        let two = "a:1,b:2";
        assert_eq!(read(two, None, None).unwrap(), "tail,tail");
        assert_eq!(read(two, Some("last:3"), None).unwrap(), "last:3,last:3");
        assert_eq!(read(two, Some(CURSORS), None).unwrap(), CURSORS);
        assert_eq!(read(two, Some("tail"), Some(CURSORS)).unwrap(), CURSORS);
        let mixed = "00000000000000ff-7,earliest";
        assert_eq!(read(two, None, Some(mixed)).unwrap(), mixed);
    }

    #[test]
    fn what_does_not_fit_is_told_apart() {
        use ErrorCode::{BadChannel, BadCursor, BadRequest, TooManySubscriptions};
        let cases = [
            ("", None, None, BadChannel),
            ("a:1,", None, None, BadChannel),
            ("a:1,a:*", None, None, BadChannel),
            ("a:1,a:1", None, None, BadRequest),
            ("a:1,b:2,c:3,d:4", None, None, TooManySubscriptions),
            ("a:1,b:2", Some("nonsense"), None, BadCursor),
            ("a:1,b:2,c:3", Some(CURSORS), None, BadCursor),
            ("a:1", Some(CURSORS), None, BadCursor),
            // An id of another URL: one position for two channels.
            ("a:1,b:2", None, Some("00000000000000ff-7"), BadCursor),
        ];
        for (channels, from, id, code) in cases {
            assert_eq!(read(channels, from, id), Err(code), "{channels} {from:?}");
        }
    }
}
