//! What a person can try, printed once everything runs.

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;

use super::edges::Edges;
use super::secrets::{ROOM, Secrets};

/// What there is to open: name, path, and what it is.
const PAGES: [(&str, &str, &str); 2] = [
    (
        "clinic",
        "/",
        "a patient, a doctor, a pharmacist, and switches to break everything",
    ),
    (
        "inspector",
        "/inspector",
        "every frame of a channel, publish, replay",
    ),
];

/// What the demonstration consists of.
pub(super) struct Banner<'a> {
    pub(super) proxy: SocketAddr,
    pub(super) edges: &'a Edges,
    pub(super) nats: String,
    pub(super) postgres: Option<String>,
    pub(super) secrets: &'a Secrets,
    pub(super) folder: &'a Path,
}

impl Banner<'_> {
    /// Prints it to stdout, with lines that can be copied as they are.
    pub(super) fn print(&self) -> anyhow::Result<()> {
        let mut out = std::io::stdout().lock();
        let Self { proxy, nats, .. } = self;
        let url = format!("http://{proxy}");
        writeln!(out, "\nRejoin runs. Open  {url}/\n")?;
        writeln!(out, "Pages")?;
        for (name, path, what) in PAGES {
            writeln!(out, "  {name:<9} {url}{path}  ({what})")?;
        }
        writeln!(out, "Parts")?;
        writeln!(out, "  proxy     {url}  (round robin, without affinity)")?;
        for edge in self.edges.iter() {
            let (name, address, pid) = (&edge.name, edge.address(), edge.pid());
            writeln!(out, "  {name}    http://{address}  pid {pid}")?;
        }
        writeln!(out, "  NATS      {nats}")?;
        if let Some(postgres) = &self.postgres {
            writeln!(out, "  Postgres  {postgres}")?;
        }
        writeln!(out, "  logs      {}", self.folder.display())?;

        let key = &self.secrets.api_key;
        writeln!(
            out,
            "\nPublish to alice's inbox, with curl or with any NATS client"
        )?;
        writeln!(
            out,
            "  curl -H 'Authorization: Bearer {key}' -H 'Rejoin-Type: note' \\\n    \
             --data '{{\"text\":\"hello from curl\"}}' {url}/v1/channels/user:alice/messages"
        )?;
        writeln!(
            out,
            "  nats --server {nats} pub rejoin.pub.user.alice '{{\"text\":\"hello from nats\"}}'"
        )?;
        writeln!(out, "Read what is there")?;
        writeln!(
            out,
            "  curl -H 'Authorization: Bearer {key}' \\\n    \
             '{url}/v1/channels/user:alice/messages?from=earliest'"
        )?;

        writeln!(
            out,
            "\nConnect with any WebSocket client to ws://{proxy}/v1/connect, subprotocol \
             rejoin.v1.json, and send"
        )?;
        let alice = self.secrets.token("alice")?;
        let bob = self.secrets.token("bob")?;
        writeln!(
            out,
            "  {{\"req\":1,\"connect\":{{\"token\":\"<token>\",\"subscriptions\":[{{\"channel\":\
             \"user:alice\",\"from\":\"tail\"}},{{\"channel\":\"{ROOM}\"}}]}}}}"
        )?;
        writeln!(out, "Tokens, valid for a day (rejoin token makes others)")?;
        writeln!(out, "  alice  {}", alice.expose())?;
        writeln!(out, "  bob    {}", bob.expose())?;

        if let Some(edge) = self.edges.iter().next() {
            writeln!(
                out,
                "\nSee that nothing is lost: break something on the clinic's page, or"
            )?;
            let (name, pid) = (&edge.name, edge.pid());
            writeln!(
                out,
                "  kill -9 {pid}   # {name}; it is started again after 2 s"
            )?;
        }
        writeln!(out, "\nCtrl-C stops everything.\n")?;
        out.flush()?;
        Ok(())
    }
}
