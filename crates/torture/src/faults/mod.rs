//! The faults, by what they hurt. Each function begins a fault, ends it, and returns when every part runs again; whether
//! anybody suffered is for the checker to say.

mod cluster;
mod data;
mod network;
mod processes;

use std::time::Duration;

use futures_util::future::BoxFuture;
use rand::rngs::StdRng;

use crate::load::{Load, Size};
use crate::world::World;

/// What a fault may use.
pub(crate) struct Stage<'a> {
    pub(crate) world: &'a mut World,
    pub(crate) load: &'a Load,
    pub(crate) random: StdRng,
}

type Inflict = for<'a> fn(Stage<'a>) -> BoxFuture<'a, anyhow::Result<()>>;

/// In which deployment a fault is at home.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Home {
    /// One nats-server.
    Single,
    /// One, and edges whose clocks can be set.
    Clocks,
    /// Three, that sync before they acknowledge.
    Cluster,
    /// The same, with the server's default.
    ClusterPowerDefault,
    /// One, on a disk whose power can be cut, that syncs before it acknowledges.
    PowerAlways,
    /// The same, with the server's default: it syncs every two minutes.
    PowerDefault,
}

impl Home {
    /// What a run takes there on two busy cores, with its part of the start: for sharing out the time.
    pub(crate) const fn usual(self) -> Duration {
        Duration::from_secs(match self {
            Self::Single => 7,
            Self::Clocks | Self::PowerAlways | Self::PowerDefault => 15,
            Self::Cluster => 17,
            Self::ClusterPowerDefault => 25,
        })
    }
}

/// One way to hurt a deployment.
#[derive(Clone)]
pub(crate) struct Fault {
    pub(crate) name: &'static str,
    pub(crate) home: Home,
    pub(crate) size: Size,
    pub(crate) inflict: Inflict,
    /// Part of the short form.
    pub(crate) short: bool,
    /// Edges live through it: part of the soak.
    pub(crate) soak: bool,
    /// Acknowledged messages are known to be lost under it, see `docs/RELIABILITY.md`.
    pub(crate) known: bool,
    /// Needs file systems of its own.
    pub(crate) mounts: bool,
}

/// Makes a fault of an async function.
macro_rules! fault {
    ($home:ident, $name:literal, $path:path) => {
        Fault {
            name: $name,
            home: Home::$home,
            size: Size::default(),
            inflict: |stage| Box::pin($path(stage)),
            short: false,
            soak: false,
            known: false,
            mounts: false,
        }
    };
}

impl Fault {
    fn short(mut self) -> Self {
        self.short = true;
        self
    }

    fn soak(mut self) -> Self {
        self.soak = true;
        self
    }

    fn known(mut self) -> Self {
        self.known = true;
        self
    }

    fn mounts(mut self) -> Self {
        self.mounts = true;
        self
    }

    fn size(mut self, change: impl FnOnce(&mut Size)) -> Self {
        change(&mut self.size);
        self
    }
}

/// All of them.
pub(crate) fn all() -> Vec<Fault> {
    let mut all = vec![
        fault!(Single, "none: crashing clients only", processes::none).soak(),
        fault!(Single, "edge: SIGKILL", processes::edge_killed).short(),
        fault!(Single, "edge: SIGSTOP", processes::edge_paused).soak(),
        fault!(Single, "edge: SIGTERM", processes::edge_terminated),
        fault!(Single, "edges: rolling restart", processes::rolling_restart).short(),
        fault!(
            Single,
            "archiver: SIGKILL in batches",
            processes::archiver_killed
        )
        .soak(),
        fault!(
            Single,
            "archiver: SIGSTOP past its lease",
            processes::archiver_paused
        )
        .soak(),
        fault!(
            Single,
            "archivers: SIGTERM in turn",
            processes::archivers_terminated
        ),
        fault!(Single, "NATS: SIGKILL", processes::nats_killed)
            .soak()
            .short(),
        fault!(Single, "NATS: SIGSTOP", processes::nats_paused).soak(),
        fault!(Single, "NATS: SIGTERM", processes::nats_terminated),
        fault!(Single, "Postgres: SIGKILL", processes::postgres_killed)
            .soak()
            .short(),
        fault!(Single, "Postgres: SIGSTOP", processes::postgres_paused).soak(),
        fault!(Single, "Postgres: SIGTERM", processes::postgres_terminated),
        fault!(Single, "everything: SIGKILL", processes::everything_killed),
        fault!(Clocks, "edges: clocks jump", processes::clocks_jump),
        fault!(Single, "tokens: clock 2 s before expiry", processes::none)
            .size(|size| size.token_s = 2),
    ];
    all.extend(network());
    all.extend(data());
    all.extend(cluster());
    all.extend(power());
    all
}

fn network() -> Vec<Fault> {
    vec![
        fault!(Single, "clients: cut", network::clients_cut).soak(),
        fault!(Single, "clients: half-open", network::clients_half_open)
            .soak()
            .short(),
        fault!(Single, "clients: slow line", network::clients_slow).soak(),
        fault!(Single, "clients: latency", network::clients_late),
        fault!(Single, "clients: sliced bytes", network::clients_sliced),
        fault!(Single, "clients: answers dropped", network::answers_dropped).soak(),
        fault!(Single, "clients: many at once", network::clients_cut).size(many),
        fault!(Single, "edge-NATS: cut", network::nats_cut).soak(),
        fault!(Single, "edge-NATS: half-open", network::nats_half_open).soak(),
        fault!(
            Single,
            "edge-NATS: acks dropped",
            network::nats_acks_dropped
        )
        .short(),
        fault!(Single, "edge-Postgres: cut", network::store_cut).soak(),
        fault!(Single, "edge-Postgres: half-open", network::store_half_open).soak(),
    ]
}

/// 120 subscriptions, or as many as `TORTURE_CLIENTS` says; two of each connection. The harness and its balancer need three
/// descriptors for a connection: 5,000 of them fit into a limit of 20,000.
fn many(size: &mut Size) {
    size.sockets = 40;
    size.library = 40;
    let clients = std::env::var("TORTURE_CLIENTS").ok();
    if let Some(clients) = clients.and_then(|it| it.parse::<usize>().ok()) {
        size.sockets = clients.div_ceil(2);
        // Every message goes to a third of them.
        size.pace = size
            .pace
            .max(Duration::from_micros(500) * size.sockets as u32);
    }
}

fn data() -> Vec<Fault> {
    vec![
        fault!(
            Single,
            "stream deleted at rest",
            data::stream_deleted_at_rest
        ),
        fault!(Single, "stream deleted under load", data::stream_deleted),
        fault!(Single, "stream purged at rest", data::stream_purged_at_rest),
        fault!(Single, "stream purged under load", data::stream_purged),
        fault!(Single, "stream trimmed below cursors", data::stream_trimmed),
        fault!(Single, "retention passes cursors", data::retention),
        fault!(Single, "NATS: disk full", data::nats_disk_full).mounts(),
        fault!(Single, "Postgres: disk full", data::postgres_disk_full).mounts(),
    ]
}

fn cluster() -> Vec<Fault> {
    vec![
        fault!(Cluster, "R3: leader SIGKILL", cluster::leader_killed),
        fault!(Cluster, "R3: leader SIGSTOP", cluster::leader_paused),
        fault!(Cluster, "R3: leader cut off", cluster::leader_cut_off),
        fault!(Cluster, "R3: leader half-open", cluster::leader_half_open),
        fault!(Cluster, "R3: all SIGKILL", cluster::all_killed),
        fault!(
            Cluster,
            "R3: leader paused, killed",
            cluster::paused_and_killed
        ),
        fault!(Cluster, "R3: rolling restart", cluster::rolling_restart),
        fault!(Cluster, "R3: edge SIGKILL", processes::edge_killed),
        fault!(
            Cluster,
            "R3: leader's power, always",
            cluster::leader_loses_power
        )
        .mounts(),
        fault!(Cluster, "R3: power of all, always", data::power_cut).mounts(),
        fault!(
            ClusterPowerDefault,
            "R3: leader's power, default",
            cluster::leader_loses_power
        )
        .mounts(),
        fault!(
            ClusterPowerDefault,
            "R3: power of all, default",
            data::power_cut
        )
        .mounts()
        .known(),
    ]
}

fn power() -> Vec<Fault> {
    vec![
        fault!(PowerAlways, "power: sync_interval always", data::power_cut).mounts(),
        fault!(
            PowerDefault,
            "power: sync_interval default",
            data::power_cut
        )
        .mounts()
        .known(),
    ]
}
