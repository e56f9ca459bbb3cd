//! The questions of one connection that are under way.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, Stream};
use protocol::Cursor;

use super::Start;
use crate::log::{Page, PageError};
use crate::stats::Source;

/// Questions of one connection under way at once. Enough that a client with
/// many rooms does not wait for one log read after the other, few enough
/// that it does not crowd out the other clients.
const IN_FLIGHT_MAX: usize = 4;

/// What came back.
pub(super) enum Answer {
    /// The subscription may start.
    Begin(Box<Start>),
    /// Where the subscription starts.
    Start(Result<Cursor, PageError>),
    /// The subscription starts at `start`; from `floor` on as many messages
    /// follow as the client wants replayed at the most.
    TooFarBehind {
        start: Cursor,
        floor: Result<Cursor, PageError>,
    },
    /// A page of a log, and whose.
    Page(Result<(Source, Page), PageError>),
    /// The stream's head, confirmed.
    Head(Result<Cursor, PageError>),
    /// A pause is over.
    Again,
}

type Answered = (usize, u32, Answer);

/// Bounded: a subscription has at most one question, and at most
/// [`IN_FLIGHT_MAX`] are under way; the others wait in order. What is aside
/// asks no log and is not counted.
#[derive(Default)]
pub(super) struct Fetches {
    /// None while nothing is asked, which is nearly always: an idle
    /// connection pays one word.
    under_way: Option<Box<UnderWay>>,
    unpolled: bool,
}

#[derive(Default)]
struct UnderWay {
    running: FuturesUnordered<BoxFuture<'static, Answered>>,
    waiting: VecDeque<BoxFuture<'static, Answered>>,
    aside: FuturesUnordered<BoxFuture<'static, Answered>>,
}

impl Fetches {
    pub(super) fn push(
        &mut self,
        slot: usize,
        generation: u32,
        question: BoxFuture<'static, Answer>,
    ) {
        let question = answered(slot, generation, question);
        let under_way = self.under_way.get_or_insert_default();
        if under_way.running.len() < IN_FLIGHT_MAX {
            under_way.running.push(question);
        } else {
            under_way.waiting.push_back(question);
        }
        self.unpolled = true;
    }

    pub(super) fn push_aside(
        &mut self,
        slot: usize,
        generation: u32,
        question: BoxFuture<'static, Answer>,
    ) {
        let question = answered(slot, generation, question);
        self.under_way.get_or_insert_default().aside.push(question);
        self.unpolled = true;
    }

    /// Whether a question was added since the last poll.
    pub(super) fn has_unpolled(&self) -> bool {
        self.unpolled
    }
}

fn answered(
    slot: usize,
    generation: u32,
    question: BoxFuture<'static, Answer>,
) -> BoxFuture<'static, Answered> {
    Box::pin(async move { (slot, generation, question.await) })
}

impl Stream for Fetches {
    type Item = Answered;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Answered>> {
        self.unpolled = false;
        let Some(under_way) = self.under_way.as_mut() else {
            return Poll::Ready(None);
        };
        let aside = Pin::new(&mut under_way.aside).poll_next(cx);
        if let Poll::Ready(Some(answered)) = aside {
            return Poll::Ready(Some(answered));
        }
        match Pin::new(&mut under_way.running).poll_next(cx) {
            Poll::Ready(Some(answered)) => {
                if let Some(next) = under_way.waiting.pop_front() {
                    under_way.running.push(next);
                }
                Poll::Ready(Some(answered))
            }
            Poll::Ready(None) if aside.is_ready() => {
                self.under_way = None;
                Poll::Ready(None)
            }
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}
