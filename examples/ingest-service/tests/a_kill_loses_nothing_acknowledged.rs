//! The service as its users have it: a process, HTTP over loopback, SIGKILL and SIGTERM.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    time::Duration,
};

use hyper::{Method, StatusCode};
use ingest_service::load::{Acknowledged, Plan, Report, ask, page, run};
use serde_json::json;

const DIM: usize = 32;

struct Service {
    child: Child,
    stdout: BufReader<ChildStdout>,
    addr: SocketAddr,
}

impl Service {
    fn start(dir: &Path, dim: usize, lag: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_ingest-service"))
            .arg(dir)
            .args(["127.0.0.1:0", &dim.to_string(), lag])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let addr = line.trim().strip_prefix("listening on ").expect("it does not listen");
        Self { addr: addr.parse().unwrap(), child, stdout }
    }

    fn plan(&self, seed: u64) -> Plan {
        Plan {
            addr: self.addr,
            connections: 8,
            duration: Duration::from_secs(30),
            rate: None,
            batch: 5,
            dim: DIM,
            seed,
        }
    }

    /// Sends a signal, by the shell's `kill`.
    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    /// The exit code and what it said last.
    fn ended(mut self) -> (Option<i32>, String) {
        let status = self.child.wait().unwrap();
        let mut said = String::new();
        let _ = self.stdout.read_line(&mut said);
        (status.code(), said)
    }

    /// Runs a load and sends the signal when so many more intents are stored, as the service tells.
    async fn ended_under_load(self, seed: u64, name: &str) -> (Report, Option<i32>, String) {
        let addr = self.addr;
        let before = stored(addr).await;
        let load = tokio::spawn(run(self.plan(seed)));
        // Long enough for every kind of request to be under way again and again.
        while stored(addr).await < before + 400 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.signal(name);
        let (code, said) = tokio::task::spawn_blocking(|| self.ended()).await.unwrap();
        (load.await.unwrap().unwrap(), code, said)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // Of a test that failed; otherwise it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How many intents the service has.
async fn stored(addr: SocketAddr) -> usize {
    let path = format!("/range?start=0&end={}", u64::MAX);
    let (_, found) = ask(addr, Method::GET, &path, String::new()).await.unwrap();
    found.as_array().unwrap().len()
}

async fn check(addr: SocketAddr, all: &Acknowledged) {
    assert!(all.ids.len() >= 300 && !all.outcomes.is_empty(), "hardly any load");
    for id in &all.ids {
        let (status, intent) =
            ask(addr, Method::GET, &format!("/intents/{id}"), String::new()).await.unwrap();
        assert_eq!(status, StatusCode::OK, "{id} was acknowledged and is gone");
        assert_eq!(intent["embedding"].as_array().unwrap().len(), DIM);
        if let Some(code) = all.outcomes.get(id) {
            assert_eq!(intent["outcome"]["exit_code"], *code, "the outcome of {id} is gone");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_and_a_request_to_end_lose_nothing_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path(), DIM, "100000");
    let (killed, code, said) = service.ended_under_load(1, "KILL").await;
    assert_eq!((code, said.as_str()), (None, ""), "it ended by itself");
    assert!(killed.broken > 0, "the load was over before the kill");

    let service = Service::start(dir.path(), DIM, "100000");
    check(service.addr, &killed.acknowledged).await;
    let (told, code, said) = service.ended_under_load(2, "TERM").await;
    assert_eq!((code, said.as_str()), (Some(0), "closed\n"));

    let service = Service::start(dir.path(), DIM, "100000");
    check(service.addr, &told.acknowledged).await;
    check(service.addr, &killed.acknowledged).await;
    println!(
        "{} and {} acknowledged intents were there",
        killed.acknowledged.ids.len(),
        told.acknowledged.ids.len()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_above_what_the_index_takes_is_shed() {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path(), DIM, "64");
    let plan = Plan { batch: 50, duration: Duration::from_secs(3), ..service.plan(3) };
    let report = run(plan).await.unwrap();
    println!("{report}");
    assert!(report.busy > 0, "nothing was refused");
    assert_eq!(report.broken, 0);
    check(service.addr, &report.acknowledged).await;
    let (status, health) = ask(service.addr, Method::GET, "/healthz", String::new()).await.unwrap();
    assert_eq!(status, StatusCode::OK, "{health}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_answers_and_says_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(&dir.path().join("store"), 2, "1000");
    let addr = service.addr;
    let id = "00000000-0000-0000-0000-00000000000a";
    let lines = format!(
        "{}\n\n{}\n",
        json!({"id": id, "raw_command": "a", "timestamp": 5, "embedding": [1, 0]}),
        json!({"raw_command": "b", "timestamp": 7, "embedding": [0, 1]}),
    );
    let (status, stored) = ask(addr, Method::POST, "/intents", lines).await.unwrap();
    assert_eq!((status, &stored["ids"][0]), (StatusCode::OK, &json!(id)));

    let body = json!({"exit_code": 3, "latency_ns": 9}).to_string();
    let path = format!("/intents/{id}/outcome");
    assert_eq!(ask(addr, Method::POST, &path, body.clone()).await.unwrap().0, StatusCode::OK);
    let (_, one) = ask(addr, Method::GET, &format!("/intents/{id}"), String::new()).await.unwrap();
    assert_eq!(one["outcome"], json!({"status": "failure", "latency_ns": 9, "exit_code": 3}));
    let (_, found) = ask(addr, Method::GET, "/range?start=5&end=7", String::new()).await.unwrap();
    assert_eq!(found, json!([one]));
    let query = json!({"embedding": [0, 2], "k": 1}).to_string();
    let (_, found) = ask(addr, Method::POST, "/search", query).await.unwrap();
    assert_eq!(found["hits"][0][0], stored["ids"][1]);

    let (status, metrics) = page(addr, "/metrics").await.unwrap();
    assert_eq!(status, StatusCode::OK);
    // One batch and one outcome were awaited, of which inserts have a histogram.
    let is_count = |line: &&str| line.contains("insert") && line.contains("_count");
    let count = metrics.lines().find(is_count).expect("no latencies of inserts");
    assert!(count.ends_with(" 1"), "{count}");
    let (status, dump) = ask(addr, Method::POST, "/dump", String::new()).await.unwrap();
    assert_eq!(status, StatusCode::OK, "{dump}");
    let dumps = Path::new(dump["written"].as_str().unwrap());
    let log = std::fs::read_to_string(dumps.join("latencies.hlog")).unwrap();
    assert!(log.starts_with('#') && log.contains("Tag=insert"), "{log}");
    assert!(dumps.join("insert.hgrm").exists());

    let missing = "/intents/00000000-0000-0000-0000-00000000000b";
    let refused = [
        (Method::GET, missing.to_owned(), String::new(), StatusCode::NOT_FOUND),
        (Method::POST, format!("{missing}/outcome"), body, StatusCode::NOT_FOUND),
        (Method::POST, "/intents".into(), "{".into(), StatusCode::BAD_REQUEST),
        (
            Method::POST,
            "/intents".into(),
            json!({"raw_command": "b", "timestamp": 7, "embedding": [0]}).to_string(),
            StatusCode::BAD_REQUEST,
        ),
    ];
    for (method, path, body, due) in refused {
        let (status, answer) = ask(addr, method, &path, body).await.unwrap();
        assert_eq!(status, due, "{path}: {answer}");
        assert!(answer["error"].is_string());
    }
    service.signal("TERM");
    assert_eq!(service_end(service).await, (Some(0), "closed\n".to_owned()));
}

async fn service_end(service: Service) -> (Option<i32>, String) {
    tokio::task::spawn_blocking(|| service.ended()).await.unwrap()
}
