//! A load generator: requests over loopback, timed as their callers feel them.
//!
//! In a **closed** loop each connection sends its next request when the last was answered. While the
//! service stalls, such a client sends nothing, so of a stall it counts one slow request where users
//! would have felt hundreds (coordinated omission). In an **open** loop requests are due at fixed
//! times whatever the service does, and a latency counts from when its request was due; beside it is
//! kept what the same requests took from when they were sent, to see the difference.

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use hdrhistogram::Histogram;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, StatusCode, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{net::TcpStream, time::sleep_until};
use uuid::Uuid;

/// What is sent, in turns.
const ROUTES: [Route; 10] = [
    Route::Insert,
    Route::Insert,
    Route::Insert,
    Route::Get,
    Route::Insert,
    Route::Search,
    Route::Insert,
    Route::Outcome,
    Route::Insert,
    Route::Range,
];
/// Nanoseconds from one intent of a load to the next.
const STEP_NS: u64 = 1_000;
/// The longest latency that is told apart, in nanoseconds.
const LATENCY_NS_MAX: u64 = 60_000_000_000;

/// What a request asks for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Route {
    /// `POST /intents`.
    Insert,
    /// `GET /intents/{id}`.
    Get,
    /// `POST /intents/{id}/outcome`.
    Outcome,
    /// `POST /search`.
    Search,
    /// `GET /range`.
    Range,
}

/// How the load is made.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where the service listens.
    pub addr: SocketAddr,
    /// Connections, each with one request at a time.
    pub connections: u64,
    /// How long.
    pub duration: Duration,
    /// Requests per second in an open loop; `None` is a closed one.
    pub rate: Option<u64>,
    /// Intents of one insert.
    pub batch: u64,
    /// Dimension of the embeddings.
    pub dim: usize,
    /// Tells this load's intents from those of others.
    pub seed: u64,
}

/// What the service acknowledged: what has to be there ever after.
#[derive(Clone, Default, Debug)]
pub struct Acknowledged {
    /// Ids of intents.
    pub ids: Vec<Uuid>,
    /// Of those, the ones with an outcome, and its exit code.
    pub outcomes: BTreeMap<Uuid, i32>,
}

/// What became of a load.
#[derive(Debug)]
pub struct Report {
    plan: Plan,
    took: Duration,
    routes: BTreeMap<Route, Tally>,
    /// What the service acknowledged.
    pub acknowledged: Acknowledged,
    /// Requests that were answered with 503.
    pub busy: u64,
    /// Requests without an answer: the connection broke.
    pub broken: u64,
}

#[derive(Debug)]
struct Tally {
    /// From when each request was due; from when it was sent in a closed loop.
    from_due: Histogram<u64>,
    /// From when each was sent.
    from_sent: Histogram<u64>,
}

impl Tally {
    fn new() -> Result<Self> {
        let histogram = Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3)?;
        Ok(Self { from_due: histogram.clone(), from_sent: histogram })
    }
}

/// One connection.
struct Client {
    sender: http1::SendRequest<Full<Bytes>>,
}

/// The answer to one request.
struct Answered {
    status: StatusCode,
    retry_after: bool,
    body: Bytes,
}

impl Client {
    async fn connect(addr: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // It ends with the sender, or with an error that the sender tells as well.
        tokio::spawn(async move { drop(connection.await) });
        Ok(Self { sender })
    }

    async fn ask(&mut self, method: Method, path: &str, body: String) -> Result<Answered> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "localhost")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))?;
        self.sender.ready().await?;
        let response = self.sender.send_request(request).await?;
        let status = response.status();
        let retry_after = response.headers().contains_key(header::RETRY_AFTER);
        let body = response.into_body().collect().await?.to_bytes();
        Ok(Answered { status, retry_after, body })
    }
}

/// One request and its answer, for those who only have a question.
///
/// # Errors
/// The service cannot be reached, or its answer is no JSON.
pub async fn ask(
    addr: SocketAddr,
    method: Method,
    path: &str,
    body: String,
) -> Result<(StatusCode, Value)> {
    let answered = Client::connect(addr).await?.ask(method, path, body).await?;
    let body = serde_json::from_slice(&answered.body)
        .with_context(|| format!("{path}: {}", String::from_utf8_lossy(&answered.body)))?;
    Ok((answered.status, body))
}

/// A page of the service as it is.
///
/// # Errors
/// The service cannot be reached.
pub async fn page(addr: SocketAddr, path: &str) -> Result<(StatusCode, String)> {
    let answered = Client::connect(addr).await?.ask(Method::GET, path, String::new()).await?;
    Ok((answered.status, String::from_utf8_lossy(&answered.body).into_owned()))
}

/// Runs a load; where the service goes away, as far as that.
///
/// # Errors
/// The service cannot be reached at all, or answers what it must not.
pub async fn run(plan: Plan) -> Result<Report> {
    let plan = Arc::new(plan);
    let next = Arc::new(AtomicU64::new(0));
    let acknowledged = Arc::new(Mutex::new(Acknowledged::default()));
    let begun = Instant::now();
    let workers: Vec<_> = (0..plan.connections)
        .map(|number| {
            let worker = Worker {
                number,
                plan: Arc::clone(&plan),
                next: Arc::clone(&next),
                acknowledged: Arc::clone(&acknowledged),
                begun,
                routes: BTreeMap::new(),
                busy: 0,
                inserted: 0,
                last: None,
            };
            tokio::spawn(worker.work())
        })
        .collect();
    let mut report = Report {
        plan: (*plan).clone(),
        took: Duration::ZERO,
        routes: BTreeMap::new(),
        acknowledged: Acknowledged::default(),
        busy: 0,
        broken: 0,
    };
    for worker in workers {
        let (worker, is_broken) = worker.await??;
        report.busy += worker.busy;
        report.broken += u64::from(is_broken);
        for (route, tally) in worker.routes {
            let sum = match report.routes.entry(route) {
                std::collections::btree_map::Entry::Occupied(sum) => sum.into_mut(),
                std::collections::btree_map::Entry::Vacant(place) => place.insert(Tally::new()?),
            };
            sum.from_due.add(&tally.from_due)?;
            sum.from_sent.add(&tally.from_sent)?;
        }
    }
    report.took = begun.elapsed();
    let mut acknowledged = acknowledged.lock().unwrap_or_else(|broken| broken.into_inner());
    report.acknowledged = std::mem::take(&mut *acknowledged);
    Ok(report)
}

struct Worker {
    number: u64,
    plan: Arc<Plan>,
    /// Number of the next request of an open loop.
    next: Arc<AtomicU64>,
    acknowledged: Arc<Mutex<Acknowledged>>,
    begun: Instant,
    routes: BTreeMap<Route, Tally>,
    busy: u64,
    inserted: u64,
    /// An intent that this worker has inserted.
    last: Option<Uuid>,
}

impl Worker {
    /// Sends requests until the time is over; whether the connection broke before.
    async fn work(mut self) -> Result<(Self, bool)> {
        let mut client = Client::connect(self.plan.addr).await?;
        let mut turn = self.number;
        while let Some(due) = self.due().await {
            let route = match ROUTES[turn as usize % ROUTES.len()] {
                Route::Get | Route::Outcome if self.last.is_none() => Route::Insert,
                route => route,
            };
            turn += 1;
            let (method, path, body, ids) = self.request(route);
            let sent = Instant::now();
            let Ok(answered) = client.ask(method, &path, body).await else {
                return Ok((self, true));
            };
            let done = Instant::now();
            if answered.status == StatusCode::SERVICE_UNAVAILABLE {
                if !answered.retry_after {
                    bail!("{path}: 503 without Retry-After");
                }
                self.busy += 1;
                continue;
            }
            if answered.status != StatusCode::OK {
                let body = String::from_utf8_lossy(&answered.body);
                bail!("{path}: {} {body}", answered.status);
            }
            self.take_down(route, ids);
            let tally = match self.routes.entry(route) {
                std::collections::btree_map::Entry::Occupied(tally) => tally.into_mut(),
                std::collections::btree_map::Entry::Vacant(place) => place.insert(Tally::new()?),
            };
            tally.from_due.saturating_record(nanoseconds(done - due.unwrap_or(sent)));
            tally.from_sent.saturating_record(nanoseconds(done - sent));
        }
        Ok((self, false))
    }

    /// When the next request is due; `Some(None)` is now, `None` the end.
    async fn due(&self) -> Option<Option<Instant>> {
        let end = self.begun + self.plan.duration;
        let Some(rate) = self.plan.rate else {
            return (Instant::now() < end).then_some(None);
        };
        let number = self.next.fetch_add(1, Relaxed);
        let due = self.begun + Duration::from_nanos(number * 1_000_000_000 / rate.max(1));
        if due >= end {
            return None;
        }
        sleep_until(due.into()).await;
        Some(Some(due))
    }

    fn request(&mut self, route: Route) -> (Method, String, String, Vec<Uuid>) {
        let last = self.last.unwrap_or_default();
        match route {
            Route::Insert => {
                let first = self.inserted;
                self.inserted += self.plan.batch;
                let ids: Vec<Uuid> = (first..self.inserted).map(|at| self.id(at)).collect();
                let mut body = String::new();
                for (at, id) in (first..).zip(&ids) {
                    let _ = writeln!(body, "{}", self.intent(at, *id));
                }
                (Method::POST, "/intents".to_owned(), body, ids)
            }
            Route::Get => (Method::GET, format!("/intents/{last}"), String::new(), Vec::new()),
            Route::Outcome => {
                let body = json!({ "exit_code": exit_code(last), "latency_ns": 5 });
                let path = format!("/intents/{last}/outcome");
                (Method::POST, path, body.to_string(), vec![last])
            }
            Route::Search => {
                let query = json!({ "embedding": self.embedding(self.inserted), "k": 10 });
                (Method::POST, "/search".to_owned(), query.to_string(), Vec::new())
            }
            Route::Range => {
                let end = self.inserted * STEP_NS;
                let path = format!("/range?start={}&end={end}", end.saturating_sub(20 * STEP_NS));
                (Method::GET, path, String::new(), Vec::new())
            }
        }
    }

    /// Notes what was acknowledged.
    fn take_down(&mut self, route: Route, ids: Vec<Uuid>) {
        let mut acknowledged =
            self.acknowledged.lock().unwrap_or_else(|broken| broken.into_inner());
        match route {
            Route::Insert => {
                self.last = ids.last().copied();
                acknowledged.ids.extend(ids);
            }
            Route::Outcome => {
                acknowledged.outcomes.extend(ids.into_iter().map(|id| (id, exit_code(id))));
            }
            Route::Get | Route::Search | Route::Range => {}
        }
    }

    fn id(&self, at: u64) -> Uuid {
        Uuid::from_u64_pair(self.plan.seed, (self.number << 40) | at)
    }

    fn intent(&self, at: u64, id: Uuid) -> Value {
        json!({
            "id": id,
            "timestamp": at * STEP_NS,
            "raw_command": format!("make -C worker-{} step-{at}", self.number),
            "embedding": self.embedding(at),
        })
    }

    /// Pseudo-random (SplitMix64), the same for the same intent.
    fn embedding(&self, at: u64) -> Vec<f32> {
        let mut state = (self.plan.seed << 32) ^ (self.number << 24) ^ at;
        let values = (0..self.plan.dim).map(|_| {
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            // Three digits, as models' embeddings are often sent, and for short bodies.
            ((z >> 40) as f32 / (1_u64 << 24) as f32 * 2000.0 - 1000.0).round() / 1000.0
        });
        values.collect()
    }
}

/// The exit code that a load gives the intent with this id.
#[must_use]
pub fn exit_code(id: Uuid) -> i32 {
    (id.as_u128() % 256) as i32
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Plan { connections, rate, batch, dim, .. } = &self.plan;
        let seconds = self.took.as_secs_f64();
        match rate {
            Some(rate) => write!(f, "open loop, {rate} requests/s due")?,
            None => write!(f, "closed loop")?,
        }
        writeln!(
            f,
            ", {connections} connections, {batch} intents of {dim} dimensions an insert, {seconds:.1} s"
        )?;
        let stored = self.acknowledged.ids.len();
        writeln!(
            f,
            "{stored} intents stored ({:.0}/s), {} requests refused with 503, {} connections broken",
            stored as f64 / seconds,
            self.busy,
            self.broken
        )?;
        writeln!(
            f,
            "{:<8} {:>9} {:>9} {:>10} {:>10} {:>10} {:>10}  latency from",
            "route", "count", "per s", "p50 ms", "p99 ms", "p99.9 ms", "max ms"
        )?;
        for (route, tally) in &self.routes {
            let mut row = |histogram: &Histogram<u64>, from: &str| {
                let ms = |ns: u64| ns as f64 / 1e6;
                writeln!(
                    f,
                    "{:<8} {:>9} {:>9.0} {:>10.3} {:>10.3} {:>10.3} {:>10.3}  {from}",
                    format!("{route:?}").to_lowercase(),
                    histogram.len(),
                    histogram.len() as f64 / seconds,
                    ms(histogram.value_at_quantile(0.5)),
                    ms(histogram.value_at_quantile(0.99)),
                    ms(histogram.value_at_quantile(0.999)),
                    ms(histogram.max()),
                )
            };
            if self.plan.rate.is_some() {
                row(&tally.from_due, "when it was due")?;
            }
            row(&tally.from_sent, "when it was sent")?;
        }
        Ok(())
    }
}
