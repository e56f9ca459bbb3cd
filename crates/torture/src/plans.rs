//! What deployments the faults are at home in.

use devstack::SyncInterval;

use crate::faults::Home;
use crate::world::{DiskKind, Kind, Plan};

/// Small, so that it fits the disks.
const STREAM: &str = "stream_max_bytes = 67108864";

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
        Home::Cluster => (
            Kind::Cluster {
                sync: SyncInterval::Always,
            },
            "stream_max_bytes = 67108864\nreplicas = 3",
            None,
        ),
        Home::PowerAlways => power(SyncInterval::Always),
        Home::PowerDefault => power(SyncInterval::ServerDefault),
    };
    Plan {
        edges: 3,
        archivers: 2,
        backbone,
        backplane: backplane.to_owned(),
        archive: String::new(),
        postgres_disk_mb,
    }
}

fn power(sync: SyncInterval) -> (Kind, &'static str, Option<u32>) {
    let disk = Some(DiskKind::Image(256));
    (Kind::Single { sync, disk }, STREAM, None)
}
