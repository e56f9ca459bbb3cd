//! How a connection is sent away, and when it is gone.

use std::task::{Context, Poll};
use std::time::Duration;

use protocol::frame::{Goaway, GoawayReason, ServerBody};
use protocol::{CloseCode, ServerFrame};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::Connection;
use crate::drain::Phase;

/// How long a connection that is sent away waits for the answers to its
/// publishes.
const LEAVE_GRACE: Duration = Duration::from_secs(2);

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Whether its turn to leave has come, or its last moment.
    pub(super) fn is_to_leave(&mut self, cx: &mut Context<'_>) -> bool {
        if let Some(departure) = &mut self.departure {
            return departure.as_mut().poll(cx).is_ready();
        }
        if let Some(session) = &self.session {
            // Before the look at the drain, so that no change is missed.
            session.register(cx.waker());
        }
        let drain = self.edge.drain();
        if drain.is_calm() {
            self.times.turn = None;
            return false;
        }
        if drain.phase() >= Phase::Stopped {
            return true;
        }
        match (drain.leaving_over(), self.times.turn) {
            (Some(spread), None) => {
                let delay = spread.mul_f64(rand::random::<f64>());
                self.times.turn = Some(Instant::now() + delay);
            }
            (None, Some(_)) => self.times.turn = None,
            (Some(_), Some(_)) | (None, None) => {}
        }
        self.times.turn.is_some_and(|turn| turn <= Instant::now())
    }

    /// The connection's turn to leave has come, or its last moment.
    pub(super) fn depart(&mut self, reason: GoawayReason) -> Poll<Option<CloseCode>> {
        let drain = self.edge.drain().clone();
        if self.times.leave_by.is_some() || drain.phase() >= Phase::Stopped {
            self.close(CloseCode::Draining);
            return Poll::Ready(Some(CloseCode::Draining));
        }
        self.departure = Some(Box::pin(async move { drain.reached(Phase::Stopped).await }));
        self.times.turn = None;
        self.times.leave_by = Some(Instant::now() + LEAVE_GRACE);
        self.times.lifetime = None;
        self.sent_away = Some(reason);
        // Clients come back over the first reconnect interval.
        let within_ms = u64::from(self.edge.config().limits.retry_min_ms);
        let retry_after_ms = (rand::random::<f64>() * within_ms as f64) as u64;
        let goaway = Goaway {
            reason,
            retry_after_ms,
        };
        self.send_frames(vec![ServerFrame::new(ServerBody::Goaway(goaway))]);
        Poll::Pending
    }

    /// Whether a connection that was sent away has nothing to wait for.
    pub(super) fn has_left(&self) -> bool {
        let Some(leave_by) = self.times.leave_by else {
            return false;
        };
        let answered = self
            .session
            .as_ref()
            .is_none_or(|session| session.publishes.len() == 0);
        self.closing.is_none() && (answered || Instant::now() >= leave_by)
    }
}
