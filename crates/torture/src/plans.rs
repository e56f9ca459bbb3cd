//! What deployments the faults are at home in.

use devstack::SyncInterval;

use crate::faults::Home;
use crate::world::{DiskKind, Kind, Plan, faketime};

/// Small, so that it fits the disks.
const STREAM: &str = "stream_max_bytes = 67108864";
const REPLICATED: &str = "stream_max_bytes = 67108864\nreplicas = 3";

/// The deployment of a home; with small disks where they can be mounted.
pub(crate) fn of(home: Home, mounts: bool) -> Plan {
    let (backbone, backplane, postgres_disk_mb) = match home {
        Home::Single => (
            Kind::Single {
                sync: SyncInterval::ServerDefault,
                disk: mounts.then_some(DiskKind::Memory(256)),
            },
            STREAM,
            mounts.then_some(512),
        ),
        Home::Clocks => (
            Kind::Single {
                sync: SyncInterval::ServerDefault,
                disk: None,
            },
            STREAM,
            None,
        ),
        Home::Cluster => cluster(SyncInterval::Always, mounts),
        Home::ClusterPowerDefault => cluster(SyncInterval::ServerDefault, mounts),
        Home::PowerAlways => power(SyncInterval::Always),
        Home::PowerDefault => power(SyncInterval::ServerDefault),
    };
    Plan {
        edges: 3,
        archivers: 2,
        backbone,
        backplane: backplane.to_owned(),
        archive: String::new(),
        clock: faketime().filter(|_| home == Home::Clocks),
        postgres_disk_mb,
    }
}

fn cluster(sync: SyncInterval, mounts: bool) -> (Kind, &'static str, Option<u32>) {
    let disks_mb = mounts.then_some(256);
    (Kind::Cluster { sync, disks_mb }, REPLICATED, None)
}

fn power(sync: SyncInterval) -> (Kind, &'static str, Option<u32>) {
    let disk = Some(DiskKind::Image(256));
    (Kind::Single { sync, disk }, STREAM, None)
}
