//! Models of the engine's concurrency, explored by loom.
//!
//! They run the production code of the rooms, on the files of [`disk`]. Each model is named after
//! the promise that it checks, and each promise has tests that break it on purpose: a model runs
//! again, in a process of its own, with a collaborator that does not keep its word, and has to
//! fail.
//!
//! ```text
//! RUSTFLAGS="--cfg loom -C debug-assertions" LOOM_MAX_PREEMPTIONS=2 \
//!     cargo test --release --test loom --target-dir target/loom
//! ```
//!
//! With at most two preemptions there are so many executions of each model; all of them take under
//! three minutes on two cores.
//!
//! | model | executions |
//! |---|---|
//! | `acknowledged_means_visible_and_logged` | 3,564 |
//! | `what_is_in_a_map_is_found_by_a_search` | 1,313 |
//! | `the_order_of_the_log_is_the_order_of_visibility` | 128,748 |
//! | `a_full_hot_buffer_is_flushed_exactly_once` | 7,038 |
//! | `a_hot_buffer_is_flushed_exactly_once` | 40,619 |
//! | `a_refused_append_is_told_to_everyone` | 15,800 |
//! | `a_refused_sync_is_told_to_everyone` | 15,800 |
//! | `a_failed_publication_is_told_to_everyone` | 15,952 |
//! | `a_dying_flusher_is_told_to_everyone` | 94,299 |
//! | `a_close_answers_everyone` | 202,006 |
//! | `everyone_who_waits_is_served` | 205 |
//! | `everyone_who_waits_is_refused_by_a_close` | 180 |
//! | `the_share_of_a_waiter_that_left_goes_to_the_next` | 88 |
//! | `an_insert_waits_for_the_builder_and_no_longer` | 179,117 |
//! | `a_walk_finds_what_is_visible_once` | 68,145 |
//! | `a_commit_at_the_edge_of_sleep_is_answered_in_order` | 584 |
//! | `a_letter_at_the_edge_of_sleep_is_found_or_wakes` | 142 |
//! | `rows_at_the_edge_of_the_builders_sleep_are_seen_or_wake_it` | 50 |
//!
//! What they do not show: loom's bound is on deviations, so a race that takes three preemptions is
//! not met; deadlines never pass and the clock stands still; panics of actors end a model.
#![cfg(loom)]

mod disk;
mod explore;
mod world;

mod acknowledged;
mod awake;
mod dying;
mod flushed;
mod gate;
mod graph;
