//! Clients on a WebSocket, frame by frame, two channels each.

use std::time::Duration;

use client::{ConnectOptions, Connection};
use protocol::Encoding;
use protocol::frame::Subscribe;
use rand::Rng;
use rand::rngs::StdRng;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::seen::{Next, Seen};
use super::{Phase, Scene};
use crate::world::token;

/// How a session ended.
enum End {
    /// The connection is of no more use.
    Broken,
    /// The application is to crash.
    Crash,
    /// The run is over.
    Over,
}

/// Listens until the run is over.
pub(super) async fn listen(
    mut scene: Scene,
    mut seen: Vec<Seen>,
    encoding: Encoding,
    mut random: StdRng,
) {
    let url = format!("ws://{}/v1/connect", scene.address);
    while *scene.phase.borrow() != Phase::End {
        let subscriptions = seen.iter_mut().map(|it| Subscribe {
            from: it.begin(),
            channel: it.channel.clone(),
            max_catchup: 0,
        });
        let options = ConnectOptions {
            encoding,
            subscriptions: subscriptions.collect(),
            timeout: Duration::from_secs(5),
            ..ConnectOptions::default()
        };
        let token = token("reader", scene.token_s);
        let end = match Connection::connect(&url, &token, &options).await {
            Ok((connection, connected)) => {
                let patience = Duration::from_millis(u64::from(connected.ping_ms) * 2);
                session(connection, patience, &mut scene, &mut seen, &mut random).await
            }
            Err(_) => End::Broken,
        };
        for it in &mut seen {
            match end {
                End::Crash => it.crash(),
                End::Broken | End::Over => it.end(),
            }
        }
        let pause = random.random_range(20..300);
        sleep(Duration::from_millis(pause)).await;
    }
}

async fn session(
    mut connection: Connection,
    patience: Duration,
    scene: &mut Scene,
    seen: &mut [Seen],
    random: &mut StdRng,
) -> End {
    let lives = Duration::from_millis(random.random_range(300..8_000));
    let dies = Instant::now() + lives;
    loop {
        let storm = *scene.phase.borrow_and_update() <= Phase::Hush;
        tokio::select! {
            read = timeout(patience, connection.next()) => {
                let Ok(Ok(frame)) = read else { return End::Broken };
                for it in seen.iter_mut() {
                    if it.frame(&frame) == Next::ComeBack {
                        return End::Broken;
                    }
                }
            }
            () = sleep_until(dies), if storm => return End::Crash,
            changed = scene.phase.changed() => {
                if changed.is_err() || *scene.phase.borrow() == Phase::End {
                    return End::Over;
                }
            }
        }
    }
}
