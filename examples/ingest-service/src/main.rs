//! An ingestion service around `tala-store`: HTTP in, durable and searchable intents out.
//!
//! | route | what |
//! |---|---|
//! | `POST /intents` | a batch as JSON Lines, stored whole or not at all; the ids when it is durable |
//! | `GET /intents/{id}` | one intent |
//! | `POST /intents/{id}/outcome` | attaches `{status, latency_ns, exit_code}` |
//! | `POST /search` | `{embedding, k}`: the most similar intents |
//! | `GET /range?start=&end=` | the intents of a range of time, ns since the epoch |
//! | `GET /healthz` | how the engine is, and how much waits |
//! | `GET /metrics` | for Prometheus |
//! | `POST /dump` | writes the latency histograms beside the store, as `DIR-dumps/latencies.hlog` and `*.hgrm` |
//!
//! Where inserts would have to wait it answers 503 with `Retry-After` at once. SIGTERM lets requests
//! that were begun finish and closes the engine.

use std::path::PathBuf;

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Path, Query, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use ingest_service::{Refused, intent_json, intents_of, outcome_of};
use serde::Deserialize;
use serde_json::{Value, json};
use tala_core::{IntentId, IntentStore, TalaError, TimeRange};
use tala_store::{Health, Query as Search, StorageEngine};
use tokio::{net::TcpListener, signal::unix, task::spawn_blocking};
use uuid::Uuid;

/// A batch of more bytes is refused.
const BODY_BYTES_MAX: usize = 32 << 20;

type Answer = Result<Json<Value>, Refused>;
type Engine = State<StorageEngine>;

async fn insert(State(engine): Engine, lines: String) -> Answer {
    // Shed load instead of queueing it: whoever waits here holds its batch in memory.
    if let health @ Health::Degraded(_) = engine.health() {
        return Err(Refused::busy(&health));
    }
    let ids = engine.insert_batch_async(intents_of(&lines)?).await?;
    Ok(Json(json!({ "ids": ids.iter().map(ToString::to_string).collect::<Vec<_>>() })))
}

async fn one(State(engine): Engine, Path(id): Path<Uuid>) -> Answer {
    let id = IntentId(id);
    let intent = engine.get(id)?.ok_or(TalaError::NodeNotFound(id))?;
    Ok(Json(intent_json(&intent)))
}

async fn outcome(State(engine): Engine, Path(id): Path<Uuid>, body: String) -> Answer {
    engine.attach_outcome_async(IntentId(id), outcome_of(&body)?).await?;
    Ok(Json(json!({})))
}

#[derive(Deserialize)]
struct SearchIn {
    embedding: Vec<f32>,
    k: usize,
}

async fn search(State(engine): Engine, Json(query): Json<SearchIn>) -> Answer {
    // A search computes for a millisecond or more, which is not for the runtime's own threads.
    let search = move || engine.search(Search::new(&query.embedding, query.k));
    let hits = spawn_blocking(search).await??;
    let hits = hits.iter().map(|(id, similarity)| json!([id.to_string(), similarity]));
    Ok(Json(json!({ "hits": hits.collect::<Vec<_>>() })))
}

#[derive(Deserialize)]
struct RangeIn {
    start: u64,
    end: u64,
}

async fn range(State(engine): Engine, Query(RangeIn { start, end }): Query<RangeIn>) -> Answer {
    let intents = spawn_blocking(move || engine.query_temporal(TimeRange { start, end })).await??;
    Ok(Json(intents.iter().map(intent_json).collect()))
}

async fn healthz(State(engine): Engine) -> Response {
    let health = engine.health();
    let status =
        if health.takes_writes() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = json!({
        "health": health.to_string(),
        "queue_depth": engine.queue_depth(),
        "queue_bytes": engine.queue_bytes(),
        "index_lag": engine.index_lag(),
    });
    (status, Json(body)).into_response()
}

async fn metrics(State(engine): Engine) -> Result<impl IntoResponse, Refused> {
    let page = spawn_blocking(move || engine.render_prometheus()).await?;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], page))
}

async fn dump(engine: StorageEngine, dir: PathBuf) -> Answer {
    let written = spawn_blocking(move || {
        let histograms = engine.histograms();
        histograms.write_hgrm(&dir)?;
        histograms.write_hlog(dir.join("latencies.hlog")).map(|()| dir)
    });
    Ok(Json(json!({ "written": written.await?? })))
}

/// Resolves when the process is told to end.
async fn told_to_end() -> std::io::Result<()> {
    let mut terminate = unix::signal(unix::SignalKind::terminate())?;
    let mut interrupt = unix::signal(unix::SignalKind::interrupt())?;
    tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
    Ok(())
}

async fn serve(dir: PathBuf, addr: &str, dim: usize, lag: usize) -> anyhow::Result<()> {
    let mut dumps = dir.clone().into_os_string();
    dumps.push("-dumps");
    let dumps = PathBuf::from(dumps);
    let options = StorageEngine::options(dim).index_lag_max(lag);
    let engine = spawn_blocking(move || options.open(dir)).await??;
    let app = Router::new()
        .route("/intents", post(insert))
        .route("/intents/{id}", get(one))
        .route("/intents/{id}/outcome", post(outcome))
        .route("/search", post(search))
        .route("/range", get(range))
        .route("/healthz", get(healthz))
        .route("/metrics", get(metrics))
        .route("/dump", post(move |State(engine): Engine| dump(engine, dumps.clone())))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(engine.clone());
    let listener = TcpListener::bind(addr).await?;
    println!("listening on {}", listener.local_addr()?);
    let end = async { drop(told_to_end().await) };
    axum::serve(listener, app).with_graceful_shutdown(end).await?;
    spawn_blocking(move || engine.close()).await??;
    println!("closed");
    Ok(())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (dir, addr, dim, lag) = match args.as_slice() {
        [dir, addr, dim] => (dir, addr, dim, "100000"),
        [dir, addr, dim, lag] => (dir, addr, dim, lag.as_str()),
        _ => anyhow::bail!("usage: ingest-service DIR ADDR DIM [INDEX_LAG_MAX]"),
    };
    serve(dir.into(), addr, dim.parse()?, lag.parse()?).await
}
