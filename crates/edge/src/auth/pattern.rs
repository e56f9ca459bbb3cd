//! Channel patterns: an exact channel or a whole namespace.
//!
//! There are no partial wildcards and no wildcard namespaces, so what a
//! pattern reaches can be read off it. Matching compares parsed channels,
//! never text that still has a meaning somewhere else.

use std::fmt;
use std::str::FromStr;

use protocol::{Channel, NameError};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What follows the colon of a pattern that covers a whole namespace.
const ANY_ID: &str = "*";

/// A set of channels: one, or all of a namespace (`topic:*`).
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Pattern {
    /// Only this channel.
    Exact(Channel),
    /// Every channel of this namespace.
    Namespace(Box<str>),
}

/// Why a pattern was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// A wildcard other than a whole id.
    #[error(
        "{0:?}: a wildcard may only stand for a whole id, as in \"topic:*\"; \
         there are no partial and no namespace wildcards"
    )]
    Wildcard(Box<str>),
    /// Neither a channel nor `namespace:*`.
    #[error("{text:?}: {error}")]
    Name {
        /// What was given, shortened.
        text: Box<str>,
        /// What is wrong with it.
        error: NameError,
    },
}

impl Pattern {
    /// Parses `namespace:id` or `namespace:*`.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let name_error = |error| PatternError::Name {
            text: shortened(text),
            error,
        };
        if let Some((namespace, ANY_ID)) = text.split_once(':') {
            // A placeholder id: only the namespace is in question.
            return match Channel::from_parts(namespace, "any") {
                Ok(channel) => Ok(Self::Namespace(channel.namespace().into())),
                Err(_) if namespace.contains(['*', '>']) => {
                    Err(PatternError::Wildcard(shortened(text)))
                }
                Err(error) => Err(name_error(error)),
            };
        }
        match Channel::parse(text) {
            Ok(channel) => Ok(Self::Exact(channel)),
            Err(_) if text.contains(['*', '>']) => Err(PatternError::Wildcard(shortened(text))),
            Err(error) => Err(name_error(error)),
        }
    }

    /// Whether the channel belongs to this set.
    pub fn matches(&self, channel: &Channel) -> bool {
        match self {
            Self::Exact(exact) => exact == channel,
            Self::Namespace(namespace) => namespace.as_ref() == channel.namespace(),
        }
    }
}

/// Enough of a refused text to recognise it in an error message.
fn shortened(text: &str) -> Box<str> {
    const SHOWN_MAX_CHARS: usize = 80;
    text.chars().take(SHOWN_MAX_CHARS).collect()
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(channel) => fmt::Display::fmt(channel, f),
            Self::Namespace(namespace) => write!(f, "{namespace}:{ANY_ID}"),
        }
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Pattern {
    type Err = PatternError;
    fn from_str(text: &str) -> Result<Self, PatternError> {
        Self::parse(text)
    }
}

impl Serialize for Pattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn channel(text: &str) -> Channel {
        Channel::parse(text).unwrap()
    }

    #[test]
    fn an_exact_pattern_is_one_channel() {
        let pattern = Pattern::parse("room:1").unwrap();
        assert!(pattern.matches(&channel("room:1")));
        assert!(!pattern.matches(&channel("room:11")));
        assert!(!pattern.matches(&channel("rooms:1")));
    }

    #[test]
    fn a_namespace_pattern_is_that_namespace_only() {
        let pattern = Pattern::parse("topic:*").unwrap();
        assert!(pattern.matches(&channel("topic:prices")));
        assert!(!pattern.matches(&channel("topics:prices")));
        assert!(!pattern.matches(&channel("top:ic")));
    }

    #[test]
    fn wildcards_of_every_other_form_are_refused() {
        for text in [
            "*", ">", "*:*", "*:1", ">:1", "user:>", "room:a*", "room:*a", "ro*:1", "room:**",
        ] {
            assert!(
                matches!(Pattern::parse(text), Err(PatternError::Wildcard(_))),
                "{text:?} gave {:?}",
                Pattern::parse(text)
            );
        }
        for text in ["", ":", "room", "room:", ":*", ":1", "room.x:*", "room:1:*"] {
            assert!(Pattern::parse(text).is_err(), "{text:?} was accepted");
        }
    }

    /// A small alphabet, so that generated patterns and channels often meet
    /// or nearly meet.
    const PART: &str = "[ab_-]{1,3}";

    proptest! {
        #[test]
        fn text_round_trips(namespace in PART, id in prop_oneof![Just("*".to_owned()), PART.boxed()]) {
            let text = format!("{namespace}:{id}");
            prop_assert_eq!(Pattern::parse(&text).unwrap().to_string(), text);
        }

        #[test]
        fn matching_agrees_with_comparing_parts(
            pattern in (PART, prop_oneof![Just("*".to_owned()), PART.boxed()]),
            name in (PART, PART),
        ) {
            let parsed = Pattern::parse(&format!("{}:{}", pattern.0, pattern.1)).unwrap();
            let expected = pattern.0 == name.0 && (pattern.1 == "*" || pattern.1 == name.1);
            prop_assert_eq!(parsed.matches(&channel(&format!("{}:{}", name.0, name.1))), expected);
        }

        #[test]
        fn parsing_never_panics(text in ".{0,140}") {
            let _ = Pattern::parse(&text);
        }
    }
}
