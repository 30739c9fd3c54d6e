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
//! that were begun finish and closes the engine. With `REPORT_SECONDS` it appends the latencies of each
//! so many seconds to `DIR-dumps/intervals.hlog`.

use std::{path::PathBuf, time::Duration};

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Path, Query, State},
    response::IntoResponse,
    routing::{get, post},
};
use ingest_service::{Range, Refused, Search, intent_json, intents_of, outcome_of, told_to_end};
use serde_json::{Value, json};
use tala_core::{IntentId, IntentStore, TalaError, TimeRange};
use tala_store::{Health, Resource, StorageEngine};
use tokio::{net::TcpListener, task::spawn_blocking};
use uuid::Uuid;

/// A body of more bytes is refused: encoding it holds up a thread of the runtime for milliseconds.
const BODY_BYTES_MAX: usize = 4 << 20;

type Answer = Result<Json<Value>, Refused>;
type Engine = State<StorageEngine>;

/// Sheds load instead of queueing it: whoever waits holds a connection, and a batch in memory.
fn check_room(engine: &StorageEngine, adds_rows: bool) -> Result<(), Refused> {
    match engine.health() {
        Health::Degraded(lack) if lack.what == Resource::UnlinkedRows && !adds_rows => Ok(()),
        Health::Degraded(lack) if lack.makes_inserts_wait() => Err(Refused::busy(&lack)),
        _ => Ok(()),
    }
}

async fn insert(State(engine): Engine, lines: String) -> Answer {
    check_room(&engine, true)?;
    // What computes for long (here, and in what follows) is not for the runtime's own threads.
    let intents = spawn_blocking(move || intents_of(&lines)).await??;
    let ids = engine.insert_batch_async(intents).await?;
    Ok(Json(json!({ "ids": ids.iter().map(ToString::to_string).collect::<Vec<_>>() })))
}

async fn one(State(engine): Engine, Path(id): Path<Uuid>) -> Answer {
    let id = IntentId(id);
    let found = spawn_blocking(move || engine.get(id)).await??;
    let intent = found.ok_or(TalaError::NodeNotFound(id))?;
    Ok(Json(intent_json(&intent)))
}

async fn outcome(State(engine): Engine, Path(id): Path<Uuid>, body: String) -> Answer {
    check_room(&engine, false)?;
    engine.attach_outcome_async(IntentId(id), outcome_of(&body)?).await?;
    Ok(Json(json!({})))
}

async fn search(State(engine): Engine, Json(Search { embedding, k }): Json<Search>) -> Answer {
    let hits = spawn_blocking(move || engine.query_semantic(&embedding, k)).await??;
    let hits = hits.iter().map(|(id, similarity)| json!([id.to_string(), similarity]));
    Ok(Json(json!({ "hits": hits.collect::<Vec<_>>() })))
}

async fn range(
    State(engine): Engine,
    Query(Range { start, end }): Query<Range>,
) -> Result<impl IntoResponse, Refused> {
    let text = spawn_blocking(move || {
        let intents = engine.query_temporal(TimeRange { start, end })?;
        Ok::<_, TalaError>(intents.iter().map(intent_json).collect::<Value>().to_string())
    });
    Ok(([("content-type", "application/json")], text.await??))
}

async fn healthz(State(engine): Engine) -> Result<Json<Value>, Refused> {
    let health = engine.health();
    if !health.takes_writes() {
        return Err(Refused::busy(&health));
    }
    let (depth, bytes, lag) = (engine.queue_depth(), engine.queue_bytes(), engine.index_lag());
    let health = health.to_string();
    Ok(Json(
        json!({ "health": health, "queue_depth": depth, "queue_bytes": bytes, "index_lag": lag }),
    ))
}

async fn metrics(State(engine): Engine) -> Result<impl IntoResponse, Refused> {
    let page = spawn_blocking(move || engine.render_prometheus()).await?;
    Ok(([("content-type", "text/plain; version=0.0.4")], page))
}

async fn dump(engine: StorageEngine, dir: PathBuf) -> Answer {
    let histograms = engine.histograms();
    let written = spawn_blocking(move || {
        histograms.write_hgrm(&dir)?;
        histograms.write_hlog(dir.join("latencies.hlog")).map(|()| dir)
    });
    Ok(Json(json!({ "written": written.await?? })))
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [dir, addr, dim, more @ ..] = args.as_slice() else {
        anyhow::bail!("usage: ingest-service DIR ADDR DIM [INDEX_LAG_MAX [REPORT_SECONDS]]");
    };
    let (dir, dumps) = (PathBuf::from(dir), PathBuf::from(format!("{dir}-dumps")));
    let mut options = StorageEngine::options(dim.parse()?);
    if let Some(lag) = more.first() {
        options = options.index_lag_max(lag.parse()?);
    }
    if let Some(seconds) = more.get(1) {
        std::fs::create_dir_all(&dumps)?;
        let every = Duration::from_secs(seconds.parse()?);
        options = options.report_histograms(dumps.join("intervals.hlog"), every);
    }
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
    axum::serve(listener, app).with_graceful_shutdown(told_to_end()?).await?;
    spawn_blocking(move || engine.close()).await??;
    println!("closed");
    Ok(())
}
