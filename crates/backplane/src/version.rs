//! Which nats-server is recent enough.

use std::fmt;

/// The oldest server we run on: older ones have a pre-authentication
/// denial of service in their WebSocket listener (CVE-2026-27571) and lack
/// atomic batches.
pub(crate) const OLDEST_SERVER: ServerVersion = ServerVersion {
    major: 2,
    minor: 12,
    patch: 6,
};

/// A server's version, ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ServerVersion {
    major: u32,
    minor: u32,
    patch: u32,
}

impl ServerVersion {
    /// Parses `2.12.6`, `v2.12.6` and `2.13.0-RC.1`; a pre-release counts as
    /// its release.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text = text.strip_prefix('v').unwrap_or(text);
        let text = text.split(['-', '+']).next()?;
        let mut parts = text.split('.').map(|part| part.parse::<u32>().ok());
        let version = Self {
            major: parts.next()??,
            minor: parts.next()??,
            patch: parts.next()??,
        };
        parts.next().is_none().then_some(version)
    }
}

impl fmt::Display for ServerVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        let recent = ["2.12.6", "v2.12.6", "2.12.10", "2.13.0-RC.1", "3.0.0"];
        for text in recent {
            let version = ServerVersion::parse(text).unwrap();
            assert!(version >= OLDEST_SERVER, "{text} was refused");
        }
        let old = ["2.9.10", "2.12.5", "2.12.5-RC.2", "1.4.1"];
        for text in old {
            let version = ServerVersion::parse(text).unwrap();
            assert!(version < OLDEST_SERVER, "{text} was accepted");
        }
        for text in ["", "2", "2.12", "2.12.x", "2.12.6.1"] {
            assert_eq!(ServerVersion::parse(text), None, "{text}");
        }
    }
}
