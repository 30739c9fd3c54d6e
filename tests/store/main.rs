//! What a store does for those who use it, through the public door.
//!
//! One program for many files, since each program is linked for itself. A file is named after what it
//! holds the store to. Tests run beside each other: what changes or counts something of the whole
//! process is a program of its own, in `tests/`.

#[path = "../common/mod.rs"]
mod common;
#[path = "../../crates/tala-wire/tests/common/fixed_part.rs"]
mod fixed_part;
#[path = "../slow_disk/mod.rs"]
mod slow_disk;

mod a_batch_is_measured_in_bytes_of_log;
mod a_batch_is_there_whole_or_not_at_all;
mod a_waker_may_do_anything;
mod acknowledged_writes_survive;
mod an_engine_ends_when_it_is_told_to;
mod an_engine_says_how_it_is;
mod an_id_may_be_replaced_for_ever;
mod an_id_that_is_being_replaced_is_always_found;
mod bad_input_is_refused;
mod callers_wait_for_room_or_get_their_intent_back;
mod close_tells_what_could_not_be_finished;
mod house_rules_hold;
mod latencies_are_recorded_and_dumped;
mod metrics_count_what_happened;
mod metrics_snapshots_are_plain_numbers;
mod neighbors_are_found_whatever_the_data;
mod query_engine_finds_the_nearest_intents;
mod query_engine_replaces_and_refuses;
mod recall_is_measured_on_what_is_stored;
mod room_in_the_index_comes_soon;
mod similarity_is_cosine_of_what_was_stored;
mod subscribers_see_each_write_once;
mod tasks_wait_without_a_thread;
mod the_graph_is_the_same_for_any_number_of_threads;
mod the_index_takes_as_much_memory_as_it_says;
mod the_last_write_wins;
mod the_public_page_holds;
mod threads_see_all_that_was_acknowledged;
mod time_ranges_hold_what_lies_in_them;
