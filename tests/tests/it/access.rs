//! Who is let in, and for how long: revocation, tickets, secrets that stay secret.

mod revocation;
mod secrets;
mod tickets;

use devstack::{Postgres, PostgresOptions};

use crate::harness::{Stack, StackOptions, TokenSpec, sign};

/// Two edges over a Postgres of their own, which the test may stop.
async fn with_postgres(options: StackOptions) -> (Stack, Postgres) {
    let postgres = Postgres::start(PostgresOptions::default()).await.unwrap();
    let stack = Stack::start_with(StackOptions {
        store: Some(format!("url = \"{}\"", postgres.url())),
        ..options
    })
    .await;
    (stack, postgres)
}

/// A token that can be revoked in both ways.
fn token(user: &str, id: &str) -> String {
    sign(&TokenSpec {
        id: Some(id.to_owned()),
        // Issued in the second of a revocation, it would count as issued before.
        issued_s: Some(-2),
        ..TokenSpec::new(user, &["room:1"])
    })
}
