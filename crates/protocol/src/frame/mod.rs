//! The frames of both directions, made of valid types only.
//!
//! `proto/rejoin/v1/frames.proto` defines their wire form, and
//! [`codec`](crate::codec) turns one into the other.

mod client;
mod server;

pub use client::{
    Ack, ClientBody, ClientFrame, Connect, Publish, SendSignal, Subscribe, Token, TokenError,
};
pub use server::{
    Connected, ErrorBody, Goaway, GoawayReason, Limits, Message, Messages, Presence, Published,
    Receipt, Reset, ResetReason, Retry, ServerBody, ServerFrame, Signal, Subscribed,
    UnsubscribeReason, Unsubscribed,
};
