//! A pull consumer read continuously.
