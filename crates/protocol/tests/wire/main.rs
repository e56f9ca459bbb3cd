//! Tests of the wire protocol as its users see it: by bytes and public types.

mod arbitrary;
mod documented;
mod generated;
mod generator;
mod hostile;
mod round_trip;
mod samples;
mod snapshots;
