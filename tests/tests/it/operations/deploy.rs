//! The files that deploy Rejoin, as far as they can be checked without a container engine or a cluster.

use std::time::Duration;

use devstack::{Tools, silent};
use tokio::process::Command;

use super::{debian_program, file, output, text};
use crate::harness::{python, run};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compose_and_kubernetes_take_the_manifests() {
    let look = "import kubernetes_validate, jsonschema, yaml, tomllib";
    let python = match python(look, "kubernetes-validate==1.37.0").await {
        Ok(python) => python,
        Err(reason) => {
            eprintln!("NOT TESTED: Python with kubernetes-validate cannot be had here: {reason}");
            return;
        }
    };
    let script = file("tests/deploy.py");
    let mut command = Command::new(python);
    command.arg(script).arg(file("."));
    command.arg(env!("CARGO_BIN_EXE_rejoin-under-test"));
    let checked = run(&mut command).await;
    eprintln!(
        "{}",
        checked.unwrap_or_else(|error| panic!("{error}")).trim()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_server_takes_the_shipped_configuration() {
    let look = tokio::task::spawn_blocking(|| Tools::nats_server(&silent()));
    let server = look.await.expect("no panic").expect("nats-server");
    let names = [
        "nats.conf",
        "nats-cluster.conf",
        "nats-secured.conf",
        "nats-cluster-secured.conf",
    ];
    for name in names {
        let mut command = Command::new(&server);
        command.arg("-t").arg("-c").arg(file("deploy").join(name));
        command.env("NATS_NAME", "a");
        for user in ["EDGE", "ARCHIVER", "SERVICE", "VIEWER", "OPERATOR"] {
            command.env(format!("NATS_{user}_PASSWORD"), "secret");
        }
        command.env("NATS_ROUTES", "[nats://127.0.0.1:1, nats://127.0.0.1:2]");
        let said = output(&mut command, "").await;
        assert!(said.contains("is valid"), "{name}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nginx_takes_the_shipped_configuration() {
    let Some(nginx) = debian_program("nginx", "nginx", "usr/sbin/nginx").await else {
        return;
    };
    // It looks names up, and these exist only in the deployment.
    let config = text("deploy/nginx.conf");
    let config = config.replace("edge-1:8080", "127.0.0.1:1");
    let config = config.replace("edge-2:8080", "127.0.0.1:2");
    assert!(!config.contains("edge-"), "{config}");
    let folder = tempfile::tempdir().unwrap();
    // It makes its folders, which are the system's.
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|what| format!("{what}_temp_path {}/{what};\n", folder.path().display()))
        .concat();
    let config = config.replace("http {", &format!("http {{\n{temporary}"));
    let path = folder.path().join("nginx.conf");
    let log = folder.path().join("error.log");
    std::fs::write(&path, config).unwrap();
    let mut command = Command::new(nginx);
    command.arg("-t").arg("-c").arg(&path).arg("-e").arg(&log);
    let globals = format!("pid {};", folder.path().join("pid").display());
    let said = output(command.arg("-g").arg(globals), "").await;
    assert!(said.contains("test is successful"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn systemd_takes_the_unit() {
    let there = Command::new("systemd-analyze").arg("--version").output();
    if !there.await.is_ok_and(|output| output.status.success()) {
        eprintln!("NOT TESTED: there is no systemd-analyze on this machine");
        return;
    }
    // It looks for the program too.
    let installed = "/usr/local/bin/rejoin";
    let unit = text("deploy/systemd/rejoin.service");
    assert!(unit.contains(installed));
    let unit = unit.replace(installed, env!("CARGO_BIN_EXE_rejoin-under-test"));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rejoin.service");
    std::fs::write(&path, &unit).unwrap();
    let mut command = Command::new("systemd-analyze");
    let said = output(command.arg("verify").arg(&path), "").await;
    // What it does not know it mentions, and goes on.
    assert!(!said.contains("rejoin.service"), "{said}");
    // It is killed later than it takes to leave.
    let line = unit
        .lines()
        .find_map(|line| line.strip_prefix("TimeoutStopSec="));
    let stop: u64 = line.expect("a time").parse().expect("seconds");
    let drain = edge_drain().await;
    assert!(Duration::from_secs(stop) > drain, "{stop} s, {drain:?}");
}

/// How long an edge takes to leave by default.
async fn edge_drain() -> Duration {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rejoin-under-test"));
    let printed = output(command.args(["serve", "--print-config"]), "").await;
    let milliseconds = |name: &str| -> u64 {
        let value = printed.lines().find_map(|line| line.strip_prefix(name));
        value.expect(name).trim().parse().expect("milliseconds")
    };
    Duration::from_millis(
        ["unready_ms =", "spread_ms =", "deadline_ms ="]
            .into_iter()
            .map(milliseconds)
            .sum(),
    )
}
