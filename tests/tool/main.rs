//! The command-line tool, run as its users run it.
//!
//! One program for many files, as `store` is.
#![cfg(feature = "cli")]

#[path = "../common/mod.rs"]
mod common;
#[path = "../tool_support/mod.rs"]
mod tool_support;

mod kill_loses_nothing_acknowledged;
mod tool_damage;
mod tool_demo;
mod tool_hist;
mod tool_ingest;
mod tool_outcome;
mod tool_read;
mod tool_recall;
mod tool_stress;
