//! The metrics of a real edge, against everything that is made of them.

use std::collections::{BTreeMap, BTreeSet};

use client::{ConnectOptions, Connection};
use protocol::{Channel, From, MessageId};
use serde_json::Value;
use tokio::process::Command;

use super::{debian_program, file, output, text};
use crate::harness::{API_KEY, Stack, StackOptions, Watch, until};

const DASHBOARD: &str = "deploy/grafana/rejoin.json";
const ALERTS: &str = "deploy/prometheus/rejoin-alerts.yml";
const ALERTS_TEST: &str = "deploy/prometheus/rejoin-alerts.test.yml";

/// An edge with everything that has metrics, after some traffic, and a client that stays.
async fn busy_stack() -> (Stack, Connection) {
    let options = crate::store::with_store(1, "").await;
    let stack = Stack::start_with(StackOptions {
        edges: 1,
        ..options
    })
    .await;
    let room = Channel::parse("room:1").unwrap();
    let (mut connection, _) = stack
        .connect("alice", &["room:1"], &ConnectOptions::default())
        .await;
    connection
        .subscribe(room.clone(), From::Tail)
        .await
        .unwrap();
    let mut watch = Watch::new(&room);
    for number in 0..20 {
        let id = MessageId::random();
        let publishing = connection.publish(id, room.clone(), "", number.to_string().into());
        publishing.await.unwrap();
    }
    watch.until_seen(&mut connection, 20).await;
    // A refusal, to be counted.
    let nothing = stack.http().get("/v1/nothing").await;
    assert_eq!(nothing.status, 404);
    (stack, connection)
}

async fn exposition(stack: &Stack) -> String {
    let page = stack.edges[0].http().get("/metrics").await;
    page.body.as_str().expect("a text").to_owned()
}

/// The names of the samples of an exposition.
fn names(exposition: &str) -> BTreeSet<&str> {
    let samples = exposition.lines().filter(|line| !line.starts_with('#'));
    samples
        .map(|line| line.split(['{', ' ']).next().unwrap_or_default())
        .collect()
}

/// The metrics that an expression names.
fn named_in(expression: &str) -> BTreeSet<String> {
    let word = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
    let words = expression.split(word);
    let metric = |word: &&str| word.starts_with("rejoin_") || word.starts_with("process_");
    words.filter(metric).map(str::to_owned).collect()
}

/// The dashboard's expressions by panel, as Grafana would send them.
fn expressions() -> BTreeMap<String, Vec<String>> {
    let dashboard: Value = serde_json::from_str(&text(DASHBOARD)).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let mut by_panel = BTreeMap::new();
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        let title = panel["title"].as_str().expect("a title").to_owned();
        let targets = panel["targets"].as_array().expect("targets");
        let expressions: Vec<String> = targets
            .iter()
            .map(|target| target["expr"].as_str().expect("an expression"))
            .map(|it| {
                it.replace("$__rate_interval", "1m")
                    .replace("$instance", ".*")
            })
            .collect();
        assert!(!expressions.is_empty(), "{title} shows nothing");
        assert_eq!(by_panel.insert(title.clone(), expressions), None, "{title}");
    }
    by_panel
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dashboard_and_alerts_name_only_what_an_edge_exports() {
    let (stack, _connection) = busy_stack().await;
    // Asked for now and then.
    until("Postgres was seen", async || {
        let page = exposition(&stack).await;
        page.contains("rejoin_postgres_up 1\n")
    })
    .await;
    let page = exposition(&stack).await;
    let exported = names(&page);
    for (panel, expressions) in expressions() {
        for name in expressions.iter().flat_map(|it| named_in(it)) {
            assert!(exported.contains(&*name), "{panel}: no {name} in {page}");
        }
    }
    let alerts = named_in(&text(ALERTS));
    assert!(alerts.len() > 20, "{alerts:?}");
    // The tail of a family's name in a comment or a text is none.
    for name in alerts.iter().filter(|name| !name.ends_with('_')) {
        assert!(exported.contains(&**name), "no {name} in {page}");
    }
    // Each is explained.
    let explained = text("docs/METRICS.md");
    let families = page.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let missing: Vec<&str> = families
        .filter_map(|family| family.split(' ').next())
        .filter(|family| !explained.contains(&format!("`{family}`")))
        .collect();
    assert!(missing.is_empty(), "docs/METRICS.md lacks {missing:?}");
    // And what happened was counted.
    for sample in [
        "rejoin_connections{transport=\"websocket\"} 1\n",
        "rejoin_connects_total{transport=\"websocket\"} 1\n",
        "rejoin_delivery_duration_seconds_count 20\n",
        "rejoin_publish_duration_seconds_count 20\n",
        "rejoin_deliveries_total 20\n",
        "rejoin_catch_up_messages_count{source=\"window\"} 1\n",
        "rejoin_errors_total{code=\"not_found\"} 1\n",
        "rejoin_nats_connection_up{connection=\"tail\"} 1\n",
        "rejoin_slow_connections 0\n",
    ] {
        assert!(page.contains(sample), "no {sample} in {page}");
    }
    // Labels have few values: no channel, user or key is among them.
    for secret in ["room", "alice", API_KEY] {
        assert!(!page.contains(&format!("\"{secret}")), "{secret}: {page}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promtool_finds_nothing_wrong() {
    let path = "usr/bin/promtool";
    let Some(promtool) = debian_program("promtool", "prometheus", path).await else {
        return;
    };
    let (stack, _connection) = busy_stack().await;
    let page = exposition(&stack).await;
    let found = output(Command::new(&promtool).args(["check", "metrics"]), &page).await;
    assert_eq!(found.trim(), "", "promtool check metrics: {found}");
    let check = ["check", "rules"];
    output(Command::new(&promtool).args(check).arg(file(ALERTS)), "").await;
    let test = ["test", "rules"];
    output(
        Command::new(&promtool).args(test).arg(file(ALERTS_TEST)),
        "",
    )
    .await;
    // A rule's expression is parsed as a panel's is.
    let rules: Vec<Value> = expressions()
        .into_values()
        .flatten()
        .enumerate()
        .map(|(number, expr)| serde_json::json!({ "record": format!("panel_{number}"), "expr": expr }))
        .collect();
    let rules = serde_json::json!({ "groups": [{ "name": "dashboard", "rules": rules }] });
    let folder = tempfile::tempdir().unwrap();
    // JSON is YAML.
    let panels = folder.path().join("panels.yml");
    std::fs::write(&panels, rules.to_string()).unwrap();
    output(Command::new(&promtool).args(check).arg(&panels), "").await;
}
