//! Clients that are the Rust client: it comes back by itself.

use std::time::Duration;

use client::{Client, ClientConfig, Event, State, TokenSource};
use protocol::{Encoding, From as StartFrom};
use rand::Rng;
use rand::rngs::StdRng;
use tokio::time::{Instant, sleep_until};

use super::seen::Seen;
use super::{Phase, Scene};
use crate::world::token;

/// Listens until the run is over.
pub(super) async fn listen(mut scene: Scene, mut seen: Seen, mut random: StdRng) {
    let url = format!("ws://{}/v1/connect", scene.address);
    while *scene.phase.borrow() != Phase::End {
        let token_s = scene.token_s;
        let tokens = TokenSource::new(move || async move { Ok(token("reader", token_s)) });
        let from = seen.position().map_or(StartFrom::Tail, StartFrom::Cursor);
        let mut config = ClientConfig::new(&url, tokens).subscribe(seen.channel.clone(), from);
        config.encoding = [Encoding::Json, Encoding::Proto][usize::from(random.random::<bool>())];
        let client = Client::start(config);
        let lives = Duration::from_millis(random.random_range(1_000..12_000));
        life(client, Instant::now() + lives, &mut scene, &mut seen).await;
        seen.crash();
    }
    seen.end();
}

/// One life of an application.
async fn life(mut client: Client, dies: Instant, scene: &mut Scene, seen: &mut Seen) {
    loop {
        let storm = *scene.phase.borrow_and_update() <= Phase::Hush;
        tokio::select! {
            event = client.next_event() => match event {
                Some(event) => take(event, &client, scene, seen),
                None => return,
            },
            () = sleep_until(dies), if storm => return,
            changed = scene.phase.changed() => {
                if changed.is_err() || *scene.phase.borrow() == Phase::End {
                    return;
                }
            }
        }
    }
}

fn take(event: Event, client: &Client, scene: &Scene, seen: &mut Seen) {
    match event {
        Event::State(State::Connecting) => {
            // Pings move the client's own position without an event.
            let cursor = client.cursors().get(&seen.channel);
            if let Some(cursor) = cursor {
                seen.moved(*cursor);
            }
            seen.begin();
        }
        Event::State(State::Offline { .. }) => seen.end(),
        Event::State(State::Closed(closed)) => {
            let who = seen.client;
            scene
                .progress
                .defect(format!("client {who} gave up: {closed}"));
        }
        Event::Subscribed { cursor, .. } => seen.subscribed(cursor),
        Event::Messages(batch) => seen.messages(&batch),
        Event::Live { cursor, .. } => seen.live(cursor),
        Event::Reset(reset) => seen.reset(&reset),
        Event::Gap { position, prev, .. } => {
            let who = seen.client;
            scene
                .progress
                .defect(format!("client {who} found a gap at {position}: {prev}"));
        }
        Event::SubscribeFailed { error, .. } => {
            let who = seen.client;
            scene.progress.defect(format!("client {who}: {error:?}"));
        }
        Event::State(State::CatchingUp | State::Live)
        | Event::Unsubscribed { .. }
        | Event::Signal(_)
        | Event::Receipt(_) => {}
    }
}
