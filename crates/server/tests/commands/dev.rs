use std::fs::File;

use devstack::Signal;

use super::*;

/// Process ids of the edges, from what `rejoin dev` printed.
fn edge_pids(printed: &str) -> Vec<u32> {
    let words: Vec<&str> = printed.split_whitespace().collect();
    let pids = words.windows(2).filter(|pair| pair[0] == "pid");
    pids.filter_map(|pair| pair[1].parse().ok()).collect()
}

fn is_alive(pid: u32) -> bool {
    // A process that has ended and was not waited for still has a folder.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')')
        .next()
        .is_some_and(|rest| !rest.trim().is_empty() && !rest.trim().starts_with('Z'))
}

async fn until(what: &str, log: &Path, mut condition: impl FnMut(&str) -> bool) -> String {
    let end = Instant::now() + LONG;
    loop {
        let printed = File::open(log).map(read).unwrap_or_default();
        if condition(&printed) {
            return printed;
        }
        assert!(Instant::now() < end, "{what} did not happen:\n{printed}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn the_demonstration_survives_a_killed_edge_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("dev.log");
    let spec = ProcessSpec::new(REJOIN, &log)
        .args(["dev", "--port", "0", "--no-postgres", "--data"])
        .arg(folder.path().join("data"));
    let mut dev = Process::spawn(&spec).unwrap();
    let printed = until("the start", &log, |text| text.contains("Ctrl-C stops")).await;
    let pids = edge_pids(&printed);
    assert_eq!(pids.len(), 2, "{printed}");

    let killed = std::process::Command::new("kill")
        .args(["-9", &pids[0].to_string()])
        .status()
        .unwrap();
    assert!(killed.success());
    let printed = until("the restart", &log, |text| text.contains("runs again")).await;
    assert!(printed.contains("edge-1 has ended"), "{printed}");

    dev.signal(Signal::Interrupt).unwrap();
    let status = dev.wait(LONG).await.expect("it did not end");
    let printed = until("the end", &log, |text| text.contains("has stopped")).await;
    assert!(status.success(), "{status}:\n{printed}");
    for pid in edge_pids(&printed) {
        assert!(!is_alive(pid), "{pid} is still there:\n{printed}");
    }
}
