//! `rejoin serve`: one edge, from start to exit code.

use std::io::Write;
use std::process::ExitCode;

use crate::cli::ServeArgs;
use crate::compose::compose;
use crate::config::print;
use crate::{commands, lifecycle, telemetry};

/// Runs an edge until it is told to stop.
pub async fn run(arguments: ServeArgs) -> anyhow::Result<ExitCode> {
    // 1. What to be.
    let config = commands::load(&arguments.config)?;
    if arguments.print_config {
        let mut stdout = std::io::stdout();
        stdout.write_all(print::as_toml(&config)?.as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    let log = telemetry::start(&config.log)?;

    // 2. A socket first: a port that is taken shows at once, and health is
    //    answered while NATS is still away.
    let mut stop = lifecycle::Stop::new()?;
    let listener = lifecycle::bind(&config).await?;
    let address = listener.local_addr()?;
    tracing::info!(edge = config.edge.name, %address, "listening");
    if config.edge.auth.keys.is_empty() && config.edge.auth.jwks.is_none() {
        tracing::warn!("edge.auth.keys and edge.auth.jwks are empty: no user can connect");
    }

    // 3. The backplane, for as long as it takes.
    let connecting = lifecycle::connect(&config);
    let backplane = tokio::select! {
        connected = lifecycle::meanwhile_waiting(&config, &listener, connecting) => connected?,
        signal = stop.asked() => {
            tracing::info!(signal, "stopping before NATS was reached");
            return Ok(ExitCode::SUCCESS);
        }
    };

    // 4. The parts, and their work until the end.
    let composed = compose(&config, &backplane, log)?;
    lifecycle::run(&config, listener, composed, stop).await
}
