//! Revocations and used tickets, and who hears of them.

use std::time::Duration;

use delivery::access::{AccessRecords, Revocation, RevocationEvent, RevocationWatch, Revoked};
use delivery::members::StoreFailure;
use store::{AccessStore, Store};
use tokio::time::timeout;

use sqlx::postgres::PgPool;

use crate::world::{config, database, user};

/// The year 2100: nothing of these tests expires.
const LATE_MS: i64 = 4_102_444_800_000;

fn of_user(name: &str, before_ms: i64) -> Revocation {
    Revocation {
        revoked: Revoked::User(user(name)),
        before_ms,
        expires_ms: LATE_MS,
    }
}

fn of_token(id: &str) -> Revocation {
    Revocation {
        revoked: Revoked::Token(id.into()),
        before_ms: 1,
        expires_ms: LATE_MS,
    }
}

/// A database of its own, also for an application's hands.
struct World {
    store: Store,
    pool: PgPool,
}

impl World {
    async fn new() -> Self {
        let url = database().await;
        Self {
            pool: PgPool::connect(&url).await.unwrap(),
            store: Store::connect(config(url)).await.unwrap(),
        }
    }

    async fn sql(&self, statements: &'static str) -> Result<(), sqlx::Error> {
        sqlx::raw_sql(statements).execute(&self.pool).await?;
        Ok(())
    }
}

async fn next(watch: &mut Box<dyn RevocationWatch>) -> RevocationEvent {
    timeout(Duration::from_secs(20), watch.next())
        .await
        .unwrap()
}

#[tokio::test]
async fn every_watch_hears_of_revocations_however_they_are_made() {
    let world = World::new().await;
    let access = AccessStore::new(&world.store);
    let before = of_token("before");
    access.revoke(before.clone()).await.unwrap();
    let mut watches = [access.watch(), AccessStore::new(&world.store).watch()];
    for watch in &mut watches {
        assert_eq!(
            next(watch).await,
            RevocationEvent::All(vec![before.clone()])
        );
    }
    access.revoke(of_user("42", 1_000)).await.unwrap();
    // It only grows.
    let stands = access.revoke(of_user("42", 500)).await.unwrap();
    assert_eq!(stands, of_user("42", 1_000));
    assert!(access.lift(before.revoked.clone()).await.unwrap());
    assert!(!access.lift(before.revoked.clone()).await.unwrap());
    world
        .sql(
            "SELECT rejoin.revoke_user('43', to_timestamp(7)), rejoin.revoke_token('\"é'); \
         INSERT INTO rejoin.revocations (kind, subject) VALUES ('user', '44')",
        )
        .await
        .unwrap();
    for watch in &mut watches {
        let event = next(watch).await;
        assert_eq!(event, RevocationEvent::Revoked(of_user("42", 1_000)));
        // Told again, as its row was written again.
        assert_eq!(next(watch).await, event);
        assert_eq!(
            next(watch).await,
            RevocationEvent::Lifted(before.revoked.clone())
        );
        let mut from_sql = Vec::new();
        for _ in 0..3 {
            match next(watch).await {
                RevocationEvent::Revoked(it) => from_sql.push(it),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(from_sql[0].revoked, Revoked::User(user("43")));
        assert_eq!(from_sql[0].before_ms, 7_000);
        assert_eq!(from_sql[1].revoked, Revoked::Token("\"é".into()));
        assert_eq!(from_sql[2].revoked, Revoked::User(user("44")));
        // The longest life that an edge may accept, from now.
        let day_ms = 86_400_000;
        let kept_ms = from_sql[2].expires_ms - from_sql[2].before_ms;
        assert!(
            (399 * day_ms..=401 * day_ms).contains(&kept_ms),
            "{kept_ms}"
        );
    }
}

#[tokio::test]
async fn all_are_read_in_pieces_and_without_the_expired() {
    let world = World::new().await;
    world
        .sql(
            "INSERT INTO rejoin.revocations (kind, subject)
         SELECT 'token', 't' || n FROM generate_series(1, 25000) n;
         INSERT INTO rejoin.revocations (kind, subject, expires_at) VALUES ('user', 'old', now())",
        )
        .await
        .unwrap();
    match next(&mut AccessStore::new(&world.store).watch()).await {
        RevocationEvent::All(all) => assert_eq!(all.len(), 25_000),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_no_edge_could_keep_or_understand_is_refused() {
    let world = World::new().await;
    let access = AccessStore::new(&world.store);
    for id in ["", "\0", &"x".repeat(257)] {
        let refused = access.revoke(of_token(id)).await;
        assert!(
            matches!(refused, Err(StoreFailure::Refused { .. })),
            "{refused:?}"
        );
    }
    for statement in [
        "INSERT INTO rejoin.revocations (kind, subject) VALUES ('user', 'a.b')",
        "INSERT INTO rejoin.revocations (kind, subject) VALUES ('session', 's')",
        "INSERT INTO rejoin.revocations (kind, subject, expires_at)
         SELECT 'token', repeat('x', n), now() FROM generate_series(256, 257) n",
    ] {
        let result = world.sql(statement).await;
        assert!(result.is_err(), "{statement}");
    }
    let lower = "CREATE OR REPLACE FUNCTION rejoin.revocations_max() RETURNS bigint
                 LANGUAGE sql IMMUTABLE AS 'SELECT 2'";
    world.sql(lower).await.unwrap();
    for id in ["1", "2"] {
        access.revoke(of_token(id)).await.unwrap();
    }
    let refused = access.revoke(of_token("3")).await;
    assert!(
        matches!(refused, Err(StoreFailure::Refused { .. })),
        "{refused:?}"
    );
    // One that is there already takes no place.
    access.revoke(of_token("2")).await.unwrap();
}

#[tokio::test]
async fn publishing_from_sql_does_not_include_revoking() {
    let world = World::new().await;
    let outcome = world
        .sql(
            "CREATE ROLE app_of_revocation_test;
         GRANT USAGE ON SCHEMA rejoin TO app_of_revocation_test;
         SET ROLE app_of_revocation_test;
         SELECT rejoin.publish('user:42', '', '1');
         SELECT rejoin.revoke_user('42')",
        )
        .await;
    // All of it is undone with the failed statement, the role too.
    let message = outcome.unwrap_err().to_string();
    assert!(message.contains("revoke_user"), "{message}");
}

/// A watch whose connection is cut reads everything again.
#[tokio::test]
async fn a_watch_that_was_cut_off_misses_nothing() {
    let postgres = devstack::Postgres::start(devstack::PostgresOptions::default())
        .await
        .unwrap();
    let store = Store::connect(config(postgres.url())).await.unwrap();
    let access = AccessStore::new(&store);
    let mut watch = access.watch();
    assert_eq!(next(&mut watch).await, RevocationEvent::All(Vec::new()));
    access.revoke(of_token("1")).await.unwrap();
    assert_eq!(
        next(&mut watch).await,
        RevocationEvent::Revoked(of_token("1"))
    );
    postgres.restart().await.unwrap();
    // Made before the watch is back, or after: it hears of it either way.
    let remade = Store::connect(config(postgres.url())).await.unwrap();
    AccessStore::new(&remade)
        .revoke(of_token("2"))
        .await
        .unwrap();
    match next(&mut watch).await {
        RevocationEvent::All(all) if all.len() == 2 => {}
        RevocationEvent::All(all) => {
            assert_eq!(all, [of_token("1")]);
            assert_eq!(
                next(&mut watch).await,
                RevocationEvent::Revoked(of_token("2"))
            );
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_ticket_is_taken_once_whoever_asks() {
    let world = World::new().await;
    let edges: Vec<_> = (0..3).map(|_| AccessStore::new(&world.store)).collect();
    let mut taking = Vec::new();
    for number in 0..20 {
        for edge in &edges {
            // Twice on each: within one query, and in two.
            for _ in 0..2 {
                let id = format!("{number:032x}");
                let taken = edge.take_ticket(id.as_str().into(), LATE_MS);
                taking.push(async move { (number, taken.await.unwrap()) });
            }
        }
    }
    let mut winners = vec![0; 20];
    for (number, taken) in futures_util::future::join_all(taking).await {
        winners[number] += usize::from(taken);
    }
    assert_eq!(winners, [1; 20]);
    // What expired long ago is cleared away by the next.
    world
        .sql("UPDATE rejoin.used_tickets SET expires_at = now() - interval '11 minutes'")
        .await
        .unwrap();
    assert!(edges[0].take_ticket("new".into(), LATE_MS).await.unwrap());
    let left = sqlx::query_scalar("SELECT count(*) FROM rejoin.used_tickets");
    let left: i64 = left.fetch_one(&world.pool).await.unwrap();
    assert_eq!(left, 1);
}
