//! What a subscription's catch-up was like, for the metrics.

use crate::hub::Hub;
use crate::stats::Source;

/// One catch-up: from a subscription's start, or its last reset, to `live`.
pub(super) struct Replay {
    /// When it began, in milliseconds of the hub's age: 49 days wrap.
    began_ms: u32,
    messages: u32,
    source: Source,
    /// Whether the reader, which was live, is behind the window.
    pub(super) lapped: bool,
}

impl Replay {
    pub(super) fn begun(age_ms: u32) -> Self {
        Self {
            began_ms: age_ms,
            messages: 0,
            source: Source::Window,
            lapped: false,
        }
    }

    pub(super) fn add(&mut self, messages: usize) {
        let messages = u32::try_from(messages).unwrap_or(u32::MAX);
        self.messages = self.messages.saturating_add(messages);
    }

    pub(super) fn came_from(&mut self, source: Source) {
        self.source = self.source.max(source);
    }

    /// It has ended.
    pub(super) fn count(&self, hub: &Hub) {
        let took_ms = hub.age_ms().wrapping_sub(self.began_ms);
        let catch_ups = &hub.counters().catch_ups[self.source as usize];
        catch_ups.messages.observe(self.messages.into());
        catch_ups.duration_us.observe(u64::from(took_ms) * 1_000);
    }
}
