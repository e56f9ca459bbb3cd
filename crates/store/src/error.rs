//! Why the store could not do something.

use std::time::Duration;

use delivery::PageError;
use delivery::archive::SinkError;
use delivery::members::StoreFailure;

/// When it is worth asking an unavailable store again.
pub(crate) const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Why the store could not do something.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Postgres is away, overloaded or not prepared; for a change: not known
    /// whether it was made. The same again later is safe.
    #[error("the store is unavailable: {reason}")]
    Unavailable {
        /// For the operator's log.
        reason: String,
    },
    /// The request cannot be fulfilled, now or later.
    #[error("refused: {reason}")]
    Refused {
        /// For the caller.
        reason: String,
    },
    /// The configuration cannot work.
    #[error("bad store configuration: {reason}")]
    Config {
        /// For the operator.
        reason: String,
    },
}

impl StoreError {
    pub(crate) fn unavailable(reason: impl Into<String>) -> Self {
        Self::Unavailable {
            reason: reason.into(),
        }
    }

    pub(crate) fn refused(reason: impl Into<String>) -> Self {
        Self::Refused {
            reason: reason.into(),
        }
    }
}

impl From<sqlx::Error> for StoreError {
    /// What Postgres refuses is a fault of ours or of the operator's (a right
    /// or a migration is missing): later may be better, so it is unavailable.
    fn from(error: sqlx::Error) -> Self {
        Self::unavailable(error.to_string())
    }
}

impl From<StoreError> for PageError {
    fn from(error: StoreError) -> Self {
        Self::Unavailable {
            retry_after: RETRY_AFTER,
            reason: error.to_string(),
        }
    }
}

impl From<StoreError> for SinkError {
    fn from(error: StoreError) -> Self {
        Self::Unavailable {
            reason: error.to_string(),
        }
    }
}

impl From<StoreError> for StoreFailure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable { reason } | StoreError::Config { reason } => {
                Self::Unavailable {
                    retry_after: RETRY_AFTER,
                    reason,
                }
            }
            StoreError::Refused { reason } => Self::Refused { reason },
        }
    }
}
