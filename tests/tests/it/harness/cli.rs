//! The stock `nats` command, as an operator uses it.

use std::path::PathBuf;

use devstack::{NatsServer, Tools, silent};
use serde_json::Value;
use tokio::process::Command;

/// `nats --server …`.
pub(crate) struct NatsCli {
    path: PathBuf,
    url: String,
}

/// What a command said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) out: String,
    /// Where `nats req` shows headers.
    pub(crate) err: String,
}

impl NatsCli {
    /// The command, or `None` with the reason on stderr where it cannot be had.
    pub(crate) async fn get(server: &NatsServer) -> Option<Self> {
        let found = tokio::task::spawn_blocking(|| Tools::nats_cli(&silent())).await;
        match found.expect("no panic") {
            Ok(path) => Some(Self {
                path,
                url: server.url(),
            }),
            Err(error) => {
                eprintln!("SKIPPED: the nats command cannot be had: {error}");
                None
            }
        }
    }

    /// Runs it to its end.
    pub(crate) async fn run(&self, arguments: &[&str]) -> Said {
        let output = Command::new(&self.path)
            .args(["--server", &self.url, "--no-context"])
            .args(arguments)
            .kill_on_drop(true)
            .output()
            .await
            .expect("the nats command runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let said = Said {
            out: text(&output.stdout),
            err: text(&output.stderr),
        };
        assert!(output.status.success(), "nats {arguments:?}: {said:?}");
        said
    }

    /// `nats req` with one answer in JSON.
    pub(crate) async fn request(&self, subject: &str, body: &str) -> Value {
        let said = self.run(&["req", "--raw", subject, body]).await;
        serde_json::from_str(&said.out).unwrap_or_else(|error| panic!("{error}: {said:?}"))
    }
}
