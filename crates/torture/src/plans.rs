//! What deployments the faults are at home in.

use devstack::SyncInterval;

use crate::faults::Home;
use crate::world::{DiskKind, Kind, Plan};

/// The deployment of a home; with small disks where they can be mounted.
pub(crate) fn of(home: Home, mounts: bool) -> Plan {
    let (backbone, backplane, postgres_disk_mb) = match home {
        Home::Single => (
            Kind::Single {
                sync: SyncInterval::ServerDefault,
                disk: mounts.then_some(DiskKind::Memory(256)),
            },
            "stream_max_bytes = 67108864",
            mounts.then_some(512),
        ),
        Home::Cluster => (
            Kind::Cluster {
                sync: SyncInterval::Always,
            },
            "stream_max_bytes = 67108864\nreplicas = 3",
            None,
        ),
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
