//! Ports that stay ours between a server's death and its restart.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use rand::Rng;

/// Ports are taken from below the range that Linux (32768) and macOS (49152) give to outgoing connections. Inside that
/// range a client that reconnects to a stopped server can be given the server's own port as its source and take it.
const RANGE: std::ops::Range<u16> = 10_000..32_000;

/// Random picks before giving up; with 22,000 ports, failing this often means that something else is wrong.
const ATTEMPTS: u32 = 500;

/// A free TCP port on 127.0.0.1 that no other process using this crate takes while the lease lives, also
/// while nothing listens on it.
#[derive(Debug)]
pub struct PortLease {
    port: u16,
    // The lock is on the open file: it goes with the process, however that ends.
    _lock: File,
}

impl PortLease {
    /// Leases a random free port.
    ///
    /// # Errors
    /// When the lock folder cannot be written, or no port is free.
    pub fn take() -> io::Result<Self> {
        let uid = rustix::process::geteuid().as_raw();
        let folder = std::env::temp_dir().join(format!("rejoin-ports-{uid}"));
        fs::create_dir_all(&folder)?;
        let mut random = rand::rng();
        for _ in 0..ATTEMPTS {
            let port = random.random_range(RANGE);
            let lock = OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .open(folder.join(port.to_string()))?;
            // Two tests of the bind: a program that is not ours may listen on every address.
            let free = lock.try_lock().is_ok()
                && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
                && TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok();
            if free {
                return Ok(Self { port, _lock: lock });
            }
        }
        Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "no free port found on 127.0.0.1",
        ))
    }

    /// The port's number.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The port on 127.0.0.1.
    #[must_use]
    pub const fn addr(&self) -> SocketAddr {
        SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), self.port)
    }
}
