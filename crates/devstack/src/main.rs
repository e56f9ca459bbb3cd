//! `devstack`: the same from a shell, for `make` and for trying things by hand.
//!
//! - `devstack tools`: finds or installs the servers and prints where they are.
//! - `devstack run`: starts a nats-server and a Postgres, prints their URLs, runs until Ctrl-C.

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use devstack::{NatsOptions, NatsServer, Postgres, PostgresOptions, Progress, Tools};

#[tokio::main]
async fn main() -> ExitCode {
    let command = std::env::args().nth(1).unwrap_or_default();
    let result = match command.as_str() {
        "tools" => tools().await,
        "run" => run().await,
        _ => Err("usage: devstack tools|run".into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("devstack: {error}");
            ExitCode::FAILURE
        }
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

async fn tools() -> Result<(), Failure> {
    let progress: Progress = Arc::new(|line| eprintln!("devstack: {line}"));
    let tools = tokio::task::spawn_blocking(move || Tools::locate_or_install(&progress)).await??;
    let mut out = std::io::stdout();
    writeln!(out, "nats-server  {}", tools.nats_server.display())?;
    writeln!(out, "Postgres     {}", tools.postgres_bin.display())?;
    if let Some(client) = tools.nats_cli {
        writeln!(out, "nats         {}", client.display())?;
    }
    Ok(())
}

async fn run() -> Result<(), Failure> {
    tools().await?;
    let (nats, postgres) = tokio::try_join!(
        NatsServer::start(NatsOptions::default()),
        Postgres::start(PostgresOptions::default())
    )?;
    let mut out = std::io::stdout();
    writeln!(
        out,
        "NATS_URL={}\nDATABASE_URL={}",
        nats.url(),
        postgres.url()
    )?;
    writeln!(
        out,
        "running: nats-server {}, Postgres {}; Ctrl-C ends both",
        nats.pid().unwrap_or_default(),
        postgres.pid().unwrap_or_default()
    )?;
    out.flush()?;
    tokio::signal::ctrl_c().await?;
    Ok(())
}
