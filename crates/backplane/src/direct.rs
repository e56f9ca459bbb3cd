//! Reads of a stream by channel.
