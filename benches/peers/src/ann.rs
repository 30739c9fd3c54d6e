//! TODO
use crate::{Common, Failure};

/// Options.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    #[command(flatten)]
    common: Common,
}

/// The driver.
pub fn run(options: &Options) -> Result<(), Failure> {
    let _ = &options.common;
    Err("not yet".into())
}

/// One competitor.
pub fn work(competitor: &str) -> Result<(), Failure> {
    Err(format!("no such competitor: {competitor}").into())
}
