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
