//! Whether an edge should get new connections, and why not.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

/// A cheap handle through which the parts of a process report whether they
/// can do their work.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    /// By part; a part without an entry is ready.
    reasons: Arc<Mutex<BTreeMap<&'static str, String>>>,
}

impl Readiness {
    /// Everything is ready until a part says otherwise.
    pub fn new() -> Self {
        Self::default()
    }

    /// The part can do its work.
    pub fn ready(&self, part: &'static str) {
        self.reasons.lock().remove(part);
    }

    /// The part cannot, and why; replaces what it said before.
    pub fn not_ready(&self, part: &'static str, reason: impl Into<String>) {
        self.reasons.lock().insert(part, reason.into());
    }

    /// What is not ready, by part; empty when everything is.
    pub fn reasons(&self) -> BTreeMap<&'static str, String> {
        self.reasons.lock().clone()
    }
}
