//! `load ADDR SECONDS CONNECTIONS BATCH DIM [RATE]`: a load on a running service; with a rate in an
//! open loop, without in a closed one.

use std::time::Duration;

use ingest_service::load::{Plan, run};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [addr, seconds, connections, batch, dim, rate @ ..] = args.as_slice() else {
        anyhow::bail!("usage: load ADDR SECONDS CONNECTIONS BATCH DIM [RATE]");
    };
    let plan = Plan {
        addr: addr.parse()?,
        connections: connections.parse()?,
        duration: Duration::from_secs(seconds.parse()?),
        rate: rate.first().map(|rate| rate.parse()).transpose()?,
        batch: batch.parse()?,
        dim: dim.parse()?,
        // Another load's intents are others.
        seed: u64::from(std::process::id()),
    };
    print!("{}", run(plan).await?);
    Ok(())
}
