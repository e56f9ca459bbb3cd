//! The operators' recipes: `tests/recipes.sh` runs the commands of `docs/RECIPES.md` with the real `nats` client.

use devstack::{PortLease, Postgres, Progress, Tools};
use tokio::process::Command;

use super::file;
use crate::harness::run;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_recipe_does_what_it_says() {
    let progress: Progress = std::sync::Arc::new(|line| eprintln!("{line}"));
    let look = tokio::task::spawn_blocking(move || {
        let server = Tools::nats_server(&progress).expect("nats-server");
        (server, Tools::nats_cli(&progress))
    });
    let (server, client) = match look.await.expect("no panic") {
        (server, Ok(client)) => (server, client),
        (_, Err(error)) => {
            eprintln!("NOT TESTED: {error}");
            return;
        }
    };
    let postgres = Postgres::shared().await.expect("Postgres");
    let database = postgres.scratch_database().await.expect("a database");
    let ports: Vec<PortLease> = (0..13)
        .map(|_| PortLease::take().expect("a free port"))
        .collect();
    let numbers: Vec<String> = ports
        .iter()
        .map(|port| port.addr().port().to_string())
        .collect();
    let mut command = Command::new("bash");
    command
        .arg(file("tests/recipes.sh"))
        .env("REJOIN", env!("CARGO_BIN_EXE_rejoin-under-test"))
        .env("NATS_SERVER", server)
        .env("NATS_CLI", client)
        .env("DATABASE_URL", database)
        .env("PORTS", numbers.join(" "));
    let done = run(&mut command).await;
    eprintln!("{}", done.unwrap_or_else(|error| panic!("{error}")).trim());
}
