//! The Rust client of Rejoin, in two layers:
//!
//! - [`Connection`]: one WebSocket that speaks frames, and nothing more. Tests
//!   and tools look at exact frames with it.
//! - [`Client`]: comes back by itself, keeps a cursor per channel, and
//!   publishes until it is acknowledged.
//!
//! `docs/PROTOCOL.md` has the rules that both follow.
//!
//! ```no_run
//! use client::{Client, ClientConfig, Event, TokenSource};
//! use client::protocol::{Channel, From};
//!
//! # async fn run(token: String) -> Result<(), Box<dyn std::error::Error>> {
//! let room: Channel = "room:1".parse()?;
//! let config = ClientConfig::new("ws://127.0.0.1:8080/v1/connect", TokenSource::fixed(token))
//!     .subscribe(room.clone(), From::Tail);
//! let mut client = Client::start(config);
//! client.handle().publish(room, "chat", r#"{"text":"hi"}"#).await?;
//! while let Some(event) = client.next_event().await {
//!     if let Event::Messages(batch) = event {
//!         for message in batch.messages {
//!             println!("{}: {:?}", message.seq, message.data);
//!         }
//!     }
//! }
//! # Ok(())
//! # }
//! ```

mod client;
mod connection;

pub use client::{
    Client, ClientClosed, ClientConfig, Event, Handle, PublishError, State, TokenSource,
};
pub use connection::{Closed, ConnectError, ConnectOptions, Connection, RequestError};
pub use protocol;
