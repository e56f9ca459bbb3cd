//! The client that comes back: it connects again by itself, goes on from its cursors, and publishes until it is
//! acknowledged.

mod backoff;
mod config;
mod driver;
mod event;
mod outbox;
mod subscriptions;

#[cfg(test)]
mod simulation_tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use protocol::frame::{Ack, ErrorBody, Publish, Published, SendSignal, Subscribe};
use protocol::{Channel, Cursor, From as StartFrom, MessageId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;

pub use config::{ClientConfig, TokenSource};
pub use event::{Event, State};

use driver::{Command, Delivery, Driver, Submission};

/// Events that wait for the application. When they are that many, the client stops reading: the edge then holds its
/// place, which is a cursor.
const EVENTS_MAX: usize = 256;

/// Commands that wait for the client's task, which takes them at once.
const COMMANDS_MAX: usize = 64;

/// Messages that wait for their acknowledgement; more wait in `publish`.
const OUTBOX_MAX: usize = 1_024;

/// A client of Rejoin. Dropping it ends it at once.
#[derive(Debug)]
pub struct Client {
    events: mpsc::Receiver<Delivery>,
    cursors: BTreeMap<Channel, Cursor>,
    handle: Handle,
    /// Crash policy: its end, by a panic too, ends the events.
    task: JoinHandle<()>,
}

/// Speaks for a client, from any task.
#[derive(Debug, Clone)]
pub struct Handle {
    commands: mpsc::Sender<Command>,
    /// Bounded by `room`: each message holds one of its permits until it is acknowledged.
    submissions: mpsc::UnboundedSender<Submission>,
    room: Arc<Semaphore>,
}

/// The client was dropped or gave up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the client is closed")]
pub struct ClientClosed;

/// Why a message is not stored.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PublishError {
    /// An edge refused it, for good.
    #[error("{}: {}", .0.code, .0.message)]
    Refused(ErrorBody),
    /// The client ended before it was acknowledged: it may be stored or not. Publish it again under its id.
    #[error(transparent)]
    Closed(#[from] ClientClosed),
}

impl Client {
    /// Starts a client; it connects in the background. Needs a tokio runtime.
    #[must_use]
    pub fn start(config: ClientConfig) -> Self {
        let (commands, commands_in) = mpsc::channel(COMMANDS_MAX);
        let (submissions, submissions_in) = mpsc::unbounded_channel();
        let (events_out, events) = mpsc::channel(EVENTS_MAX);
        let driver = Driver::new(config, commands_in, submissions_in, events_out);
        Self {
            events,
            cursors: BTreeMap::new(),
            handle: Handle {
                commands,
                submissions,
                room: Arc::new(Semaphore::new(OUTBOX_MAX)),
            },
            task: tokio::spawn(driver.run()),
        }
    }

    /// For publishing and subscribing from other tasks.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// The next event; nothing after [`State::Closed`]. Dropping the future loses nothing.
    pub async fn next_event(&mut self) -> Option<Event> {
        loop {
            let delivery = self.events.recv().await?;
            for (channel, cursor) in delivery.moves {
                self.cursors.insert(channel, cursor);
            }
            if let Some(Event::Unsubscribed { channel, .. }) = &delivery.event {
                self.cursors.remove(channel);
            }
            if delivery.event.is_some() {
                return delivery.event;
            }
        }
    }

    /// The position of each channel, up to the last event that [`Self::next_event`] returned. To go on after a restart,
    /// store them with that event's effect and give them as `from`.
    #[must_use]
    pub fn cursors(&self) -> &BTreeMap<Channel, Cursor> {
        &self.cursors
    }

    /// Says goodbye and ends. What is not acknowledged yet fails with [`PublishError::Closed`].
    pub async fn close(mut self) {
        // If the task is gone there is nobody to tell.
        let _ = self.handle.commands.send(Command::Close).await;
        self.events.close();
        // Waiting fails only if the task panicked, and then it is gone as well.
        let _ = (&mut self.task).await;
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Handle {
    /// Listens to a channel. Whether that works is told by events.
    ///
    /// # Errors
    /// When the client is closed.
    pub async fn subscribe(&self, channel: Channel, from: StartFrom) -> Result<(), ClientClosed> {
        let subscribe = Subscribe {
            channel,
            from,
            max_catchup: 0,
        };
        self.tell(Command::Subscribe(subscribe)).await
    }

    /// Stops listening to a channel.
    ///
    /// # Errors
    /// When the client is closed.
    pub async fn unsubscribe(&self, channel: Channel) -> Result<(), ClientClosed> {
        self.tell(Command::Unsubscribe(channel)).await
    }

    /// Publishes a message under a new id, and waits until it is stored: over reconnects, for as long as that takes.
    /// Messages of one channel keep the order of these calls, whenever their futures are awaited, as long as fewer
    /// than 1024 messages wait; beyond, a message takes its place when its future is first polled. Dropping the
    /// future does not take the message back.
    ///
    /// # Errors
    /// When an edge refuses it for good, or the client is closed.
    pub fn publish(
        &self,
        channel: Channel,
        kind: &str,
        data: impl Into<Bytes>,
    ) -> BoxFuture<'static, Result<Published, PublishError>> {
        self.publish_as(Publish {
            id: MessageId::random(),
            channel,
            kind: kind.into(),
            data: data.into(),
            traceparent: None,
        })
    }

    /// As [`Self::publish`], under the id of a stored outbox: however often and late it is repeated, it is one message.
    ///
    /// # Errors
    /// As [`Self::publish`].
    pub fn publish_as(
        &self,
        publish: Publish,
    ) -> BoxFuture<'static, Result<Published, PublishError>> {
        // What has its place in the queue now keeps it, in whatever order futures are polled.
        let queued = match Arc::clone(&self.room).try_acquire_owned() {
            Ok(room) => Ok(self.submit(publish, room)),
            Err(_) => Err((self.clone(), publish)),
        };
        Box::pin(async move {
            let submitted = match queued {
                Ok(submitted) => submitted,
                Err((handle, publish)) => {
                    let room = Arc::clone(&handle.room).acquire_owned().await;
                    handle.submit(publish, room.map_err(|_| ClientClosed)?)
                }
            };
            let answer = submitted?.await.map_err(|_| ClientClosed)?;
            answer.map_err(PublishError::Refused)
        })
    }

    fn submit(
        &self,
        publish: Publish,
        room: OwnedSemaphorePermit,
    ) -> Result<oneshot::Receiver<Result<Published, ErrorBody>>, ClientClosed> {
        let (answer, answered) = oneshot::channel();
        let submission = Submission {
            publish,
            answer,
            room,
        };
        let submitted = self.submissions.send(submission);
        submitted.map(|()| answered).map_err(|_| ClientClosed)
    }

    /// Tells those who listen now, at most once; nothing happens while the client is offline.
    ///
    /// # Errors
    /// When the client is closed.
    pub async fn signal(
        &self,
        channel: Channel,
        kind: &str,
        data: impl Into<Bytes>,
    ) -> Result<(), ClientClosed> {
        let signal = SendSignal {
            channel,
            kind: kind.into(),
            data: data.into(),
        };
        self.tell(Command::Signal(signal)).await
    }

    /// Says how far this device has come. It is cumulative, so while the client is offline only the next one counts.
    ///
    /// # Errors
    /// When the client is closed.
    pub async fn ack(&self, ack: Ack) -> Result<(), ClientClosed> {
        self.tell(Command::Ack(ack)).await
    }

    async fn tell(&self, command: Command) -> Result<(), ClientClosed> {
        self.commands.send(command).await.map_err(|_| ClientClosed)
    }
}
