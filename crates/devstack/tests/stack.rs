//! The stack on real servers: what the fault tests of the other crates rely on.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use devstack::{
    NatsCluster, NatsOptions, NatsServer, Postgres, PostgresOptions, Process, ProcessSpec, Signal,
    StartError,
};

/// Waits for a condition, with a deadline that fails the test.
async fn until(what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(15);
    while !condition() {
        assert!(Instant::now() < end, "not within 15 s: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn connects(port: u16) -> bool {
    TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).is_ok()
}

/// Whether a process is there; one that only waits to be reaped is not.
fn runs(pid: u32) -> bool {
    let output = Command::new("ps")
        .args(["-o", "stat=", "-p", &pid.to_string()])
        .output()
        .unwrap();
    let state = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    !state.is_empty() && !state.starts_with('Z')
}

/// The processes whose command line mentions a text, by id.
fn mentioning(text: &str) -> Vec<u32> {
    let output = Command::new("ps")
        .args(["-A", "-o", "pid=,stat=,args="])
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter(|line| line.contains(text) && !line.contains("ps -A"))
        .filter_map(|line| line.split_whitespace().next()?.parse().ok())
        .filter(|pid| runs(*pid))
        .collect()
}

#[tokio::test]
async fn nats_server_is_killed_and_comes_back_on_the_same_port_and_data() {
    let server = NatsServer::start(NatsOptions {
        monitoring: true,
        ..NatsOptions::default()
    })
    .await
    .unwrap();
    let (port, url, first) = (server.port(), server.url(), server.pid().unwrap());
    assert!(connects(port));
    std::fs::write(server.data_dir().join("kept"), "").unwrap();

    server.kill();
    assert_eq!(server.pid(), None);
    assert!(!runs(first));
    assert!(!connects(port));

    server.restart().await.unwrap();
    assert_eq!((server.port(), server.url()), (port, url));
    assert_ne!(server.pid(), Some(first));
    assert!(server.data_dir().join("kept").exists());

    server.stop().await;
    assert!(!connects(port));

    let folder = server.data_dir().to_path_buf();
    drop(server);
    assert!(!folder.exists());
}

#[tokio::test]
async fn a_paused_server_keeps_its_port_and_says_nothing_until_resumed() {
    let server = NatsServer::start(NatsOptions::default()).await.unwrap();
    server.pause();
    let stream = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    let mut reader = BufReader::new(stream);
    let mut greeting = String::new();
    reader.read_line(&mut greeting).unwrap_err();

    server.resume();
    reader
        .get_ref()
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    greeting.clear();
    reader.read_line(&mut greeting).unwrap();
    assert!(greeting.starts_with("INFO "), "{greeting}");
}

#[tokio::test]
async fn a_server_that_cannot_start_says_why() {
    let options = NatsOptions {
        extra_config: "no_such_setting: 1".to_owned(),
        ..NatsOptions::default()
    };
    let error = NatsServer::start(options).await.unwrap_err();
    assert!(
        matches!(&error, StartError::Exited { log, .. } if log.contains("no_such_setting")),
        "{error}"
    );

    let settings = vec![("no_such_setting".to_owned(), "1".to_owned())];
    let error = Postgres::start(PostgresOptions {
        settings,
        ..PostgresOptions::default()
    })
    .await
    .unwrap_err();
    assert!(
        matches!(&error, StartError::Exited { log, .. } if log.contains("no_such_setting")),
        "{error}"
    );
}

#[tokio::test]
async fn the_shipped_configuration_is_valid_and_maps_as_ours_does() {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/nats.conf");
    let program = devstack::Tools::nats_server(&devstack::silent()).unwrap();
    let check = |file: &Path, password: Option<&str>| {
        let mut check = Command::new(&program);
        check.arg("-t").arg("-c").arg(file);
        for user in ["EDGE", "ARCHIVER", "SERVICE", "VIEWER", "OPERATOR"] {
            let variable = format!("NATS_{user}_PASSWORD");
            check.env_remove(&variable);
            check.envs(password.map(|password| (variable, password)));
        }
        let checked = check.output().unwrap();
        let said = String::from_utf8_lossy(&checked.stderr).into_owned();
        (checked.status.success(), said)
    };
    let (valid, said) = check(&shipped, None);
    assert!(valid, "{said}");
    let secured = shipped.with_file_name("nats-secured.conf");
    let (valid, said) = check(&secured, Some("secret"));
    assert!(valid, "{said}");
    let (valid, _) = check(&secured, None);
    assert!(!valid, "users without passwords are let in");

    let server = NatsServer::start(NatsOptions::default()).await.unwrap();
    let ours = std::fs::read_to_string(server.data_dir().join("nats.conf")).unwrap();
    let mapping = ours.lines().find(|line| line.contains(".pub.")).unwrap();
    let shipped = std::fs::read_to_string(shipped).unwrap();
    assert!(
        shipped.lines().any(|line| line == mapping),
        "not in deploy/nats.conf: {mapping}"
    );
}

#[tokio::test]
async fn three_nats_servers_form_a_cluster_that_survives_one() {
    let cluster = NatsCluster::start(3).await.unwrap();
    assert_eq!(cluster.url().matches("nats://127.0.0.1:").count(), 3);
    let victim = &cluster.servers()[1];
    victim.kill();
    assert!(!connects(victim.port()));
    victim.restart().await.unwrap();
    cluster.formed().await.unwrap();
}

#[tokio::test]
async fn postgres_is_killed_and_recovers_what_was_committed() {
    let postgres = Postgres::start(PostgresOptions::default()).await.unwrap();
    let url = postgres.create_database("first").await.unwrap();
    assert!(url.ends_with("/first") && url.contains(&format!(":{}/", postgres.port())));
    postgres
        .execute("CREATE TABLE kept AS SELECT 7 AS n")
        .await
        .unwrap();
    let data = postgres.data_dir().to_str().unwrap().to_owned();
    assert!(!mentioning(&data).is_empty());

    postgres.kill();
    assert_eq!(postgres.pid(), None);
    until("its processes are gone", || mentioning(&data).is_empty()).await;

    postgres.restart().await.unwrap();
    assert_eq!(
        postgres.execute("SELECT n FROM kept").await.unwrap().trim(),
        "7"
    );

    postgres.stop().await;
    assert!(!connects(postgres.port()));
    postgres.restart().await.unwrap();
    let folder = postgres.data_dir().to_path_buf();
    drop(postgres);
    assert!(!folder.exists());
}

#[tokio::test]
async fn postgres_lets_nobody_in_without_the_password() {
    let postgres = Postgres::start(PostgresOptions::default()).await.unwrap();
    let bin = devstack::Tools::postgres_bin(&devstack::silent()).unwrap();
    let output = Command::new(bin.join("psql"))
        .args(["-w", "-c", "SELECT 1"])
        .arg(format!(
            "postgres://postgres:wrong@127.0.0.1:{}/postgres",
            postgres.port()
        ))
        .output()
        .unwrap();
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("password authentication failed"), "{text}");
}

#[tokio::test]
async fn a_kept_data_folder_is_used_again() {
    // Not below the checkout, which the server's own account may be unable to enter.
    let folder = tempfile::tempdir().unwrap();
    open_to_all(folder.path());
    let options = PostgresOptions {
        data_dir: Some(folder.path().join("pg")),
        durable: true,
        ..PostgresOptions::default()
    };
    let postgres = Postgres::start(options.clone()).await.unwrap();
    postgres
        .execute("CREATE TABLE kept AS SELECT 8 AS n")
        .await
        .unwrap();
    drop(postgres);
    let postgres = Postgres::start(options).await.unwrap();
    assert_eq!(
        postgres.execute("SELECT n FROM kept").await.unwrap().trim(),
        "8"
    );
}

fn open_to_all(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[tokio::test]
async fn the_shared_postgres_is_one_server_with_a_database_for_each_caller() {
    let (one, two) = tokio::join!(Postgres::shared(), Postgres::shared());
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_eq!(one.port(), two.port());
    let (first, second) = tokio::join!(one.scratch_database(), two.scratch_database());
    assert_ne!(first.unwrap(), second.unwrap());
}

#[tokio::test]
async fn a_database_name_is_no_way_to_inject() {
    let postgres = Postgres::start(PostgresOptions::default()).await.unwrap();
    for name in [
        "",
        "x\"; DROP DATABASE postgres; --",
        "Upper",
        &"a".repeat(64),
    ] {
        postgres.create_database(name).await.unwrap_err();
    }
}

#[tokio::test]
async fn many_servers_start_at_once_on_ports_of_their_own() {
    let starts: Vec<_> = (0..6)
        .map(|_| tokio::spawn(async { NatsServer::start(NatsOptions::default()).await.unwrap() }))
        .collect();
    let mut servers = Vec::new();
    for start in starts {
        servers.push(start.await.unwrap());
    }
    let mut ports: Vec<u16> = servers.iter().map(NatsServer::port).collect();
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), 6);
}

#[tokio::test]
async fn nothing_outlives_a_killed_starter() {
    let mut starter = Command::new(env!("CARGO_BIN_EXE_devstack"))
        .arg("run")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(starter.stdout.take().unwrap()).lines();
    let running = lines
        .map(Result::unwrap)
        .find(|line| line.starts_with("running:"))
        .unwrap();
    let pids: Vec<u32> = running
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|number| number.parse().ok())
        .collect();
    assert_eq!(pids.len(), 2, "{running}");
    assert!(pids.iter().all(|pid| runs(*pid)));
    let folders: Vec<PathBuf> = pids.iter().map(|pid| folder_of(*pid)).collect();

    starter.kill().unwrap();
    starter.wait().unwrap();

    for (pid, folder) in pids.iter().zip(&folders) {
        until("the server is gone", || !runs(*pid)).await;
        until("its helpers are gone", || {
            mentioning(folder.to_str().unwrap()).is_empty()
        })
        .await;
        until("its temporary data is gone", || !folder.exists()).await;
    }
}

/// The temporary folder that a server's command line names.
fn folder_of(pid: u32) -> PathBuf {
    let output = Command::new("ps")
        .args(["-ww", "-o", "args=", "-p", &pid.to_string()])
        .output()
        .unwrap();
    let args = String::from_utf8_lossy(&output.stdout).into_owned();
    let path = args
        .split_whitespace()
        .find(|arg| arg.contains("/rejoin-"))
        .unwrap();
    Path::new(path).parent().unwrap().to_path_buf()
}

#[tokio::test]
async fn a_process_reports_its_end_and_its_log() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let spec = ProcessSpec::new("/bin/sh", &log)
        .args([
            "-c",
            "echo \"$WORD $(cat | wc -c)\"; echo second >&2; exit 3",
        ])
        .env("WORD", "first");
    let mut process = Process::spawn(&spec).unwrap();
    let status = process.wait(Duration::from_secs(10)).await.unwrap();
    assert_eq!(status.code(), Some(3));
    assert_eq!(spec.log_tail(1), "second");
    assert!(spec.log_tail(2).starts_with("first") && spec.log_tail(2).contains('0'));

    let mut sleeper = Process::spawn(&ProcessSpec::new("sleep", &log).arg("60")).unwrap();
    assert!(sleeper.wait(Duration::from_millis(30)).await.is_none());
    sleeper.signal(Signal::Terminate).unwrap();
    assert!(
        !sleeper
            .wait(Duration::from_secs(10))
            .await
            .unwrap()
            .success()
    );
    // A second signal finds nobody, least of all a stranger with the same id.
    sleeper.signal(Signal::Kill).unwrap();

    let mut missing = Process::spawn(&ProcessSpec::new("/no/such/program", &log)).unwrap();
    assert_eq!(
        missing.wait(Duration::from_secs(10)).await.unwrap().code(),
        Some(127)
    );
}
