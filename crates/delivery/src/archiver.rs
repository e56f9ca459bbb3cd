//! The loop that moves a shard's stream into the archive.
