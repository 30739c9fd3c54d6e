//! What is in a store's files, whatever happened to them: power cuts, refusals, damage, old formats.
//!
//! One program for many files, as `store` is.

#[path = "../child_support/mod.rs"]
mod child_support;
#[path = "../common/mod.rs"]
mod common;
#[path = "../crash/mod.rs"]
mod crash;
#[path = "../../crates/tala-wire/tests/common/fixed_part.rs"]
mod fixed_part;
#[path = "../simulated/mod.rs"]
mod simulated;

mod a_check_refuses_what_opening_refuses_and_changes_nothing;
mod a_check_says_what_it_checked;
mod a_failed_fsync_is_final;
mod a_failing_disk_loses_nothing_acknowledged;
mod a_legacy_directory_may_hold_a_log_with_checksums;
mod a_link_that_leads_nowhere_is_refused;
mod a_log_of_which_nothing_counts_is_set_aside;
mod a_lost_log_is_damage;
mod a_lost_manifest_is_damage_after_an_import_too;
mod a_panic_is_told_to_everyone_who_waits;
mod a_power_cut_loses_nothing_acknowledged;
mod a_repair_is_led_astray_by_no_stray_file;
mod a_repair_of_a_directory_of_the_original;
mod a_repair_on_a_failing_disk_can_be_repeated;
mod a_repair_saves_every_intact_record;
mod a_store_may_have_any_name_and_be_moved;
mod a_torn_end_opens_and_damage_is_refused;
mod damage_is_named_and_nothing_is_thrown_away;
mod directories_of_the_original_are_imported;
mod directories_that_cannot_be_opened;
mod fixtures_of_every_version_open;
mod logs_are_prepared_ahead_and_cut_to_their_length;
mod other_programs_read_our_files;
mod recovery_may_be_interrupted;
mod standalone_log;
mod the_clock_orders_nothing;
mod the_dimension_of_a_legacy_directory;
mod the_simulated_disk_is_as_harsh_as_it_says;
mod what_is_no_regular_file_is_refused;
mod what_the_system_refuses_stops_writes_and_loses_nothing;
mod whatever_is_done_the_store_is_its_model;
