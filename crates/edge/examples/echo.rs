//! Echoes WebSocket frames on a free loopback port, with the edge's listener,
//! handshake and framing. `tests/autobahn/run` drives it; it prints its
//! address and ends when its standard input does.

use std::io::{Read, Write};

use axum::Router;
use axum::routing::get;
use edge::Drain;
use edge::config::ListenConfig;
use edge::listen;
use edge::ws::echo::echo;
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{}", listener.local_addr()?)?;
    stdout.flush()?;
    let router = Router::new().route("/", get(echo));
    let config = ListenConfig::default();
    let drain = Drain::new(std::time::Duration::ZERO);
    let stdin_ended = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
    tokio::select! {
        () = listen::serve(&listener, router, &config, drain) => {}
        _ = stdin_ended => {}
    }
    Ok(())
}
