//! `devstack`: the same from a shell, for `make` and for trying things by hand.
//!
//! - `devstack tools`: finds or installs the servers and prints where they are; with `--client` also the `nats`
//!   client.
//! - `devstack run`: starts a nats-server and a Postgres, prints their URLs, runs until Ctrl-C.

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use devstack::{NatsOptions, NatsServer, Postgres, PostgresOptions, Progress, Tools};

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match arguments[..] {
        ["tools"] => tools(false).await,
        ["tools", "--client"] => tools(true).await,
        ["run"] => run().await,
        _ => Err("usage: devstack tools [--client] | run".into()),
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

async fn tools(client: bool) -> Result<(), Failure> {
    let progress: Progress = Arc::new(|line| eprintln!("devstack: {line}"));
    let get = move || {
        let mut tools = Tools::locate_or_install(&progress)?;
        if client {
            // Nothing depends on it: what wants it says so itself.
            match Tools::nats_cli(&progress) {
                Ok(path) => tools.nats_cli = Some(path),
                Err(error) => progress(&error.to_string()),
            }
        }
        Ok::<_, devstack::GetToolError>(tools)
    };
    let tools = tokio::task::spawn_blocking(get).await??;
    let mut out = std::io::stdout();
    writeln!(out, "nats-server  {}", tools.nats_server.display())?;
    writeln!(out, "Postgres     {}", tools.postgres_bin.display())?;
    if let Some(client) = tools.nats_cli {
        writeln!(out, "nats         {}", client.display())?;
    }
    Ok(())
}

async fn run() -> Result<(), Failure> {
    tools(false).await?;
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
