//! Running a model, and running it broken.

use std::{
    cell::Cell,
    env, panic,
    process::Command,
    sync::{
        Arc, Once,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

/// With at most so many preemptions models are explored unless `LOOM_MAX_PREEMPTIONS` says otherwise.
const ORDINARY_BOUND: usize = 2;

/// What a run of a model has wrong on purpose, if anything.
const BREAK: &str = "TALA_MODEL_BREAK";

/// Whether this run has `what` wrong on purpose: in a model or its collaborators, as the code asks for
/// itself (`sync::is_broken`).
pub fn is_broken(what: &str) -> bool {
    env::var(BREAK).is_ok_and(|broken| broken == what)
}

/// How many executions each model has at its own bound, which is the ordinary one but for one. A
/// change of the code or of a model changes them; where it is for a reason, they are recorded anew,
/// here and in ARCHITECTURE.md.
const RECORDED: [(&str, u64); 45] = [
    ("acknowledged_means_visible_and_logged", 3_986),
    ("what_is_in_a_map_is_found_by_a_search", 1_378),
    ("the_order_of_the_log_is_the_order_of_visibility", 66_899),
    ("a_full_hot_buffer_is_flushed_exactly_once", 7_194),
    ("a_hot_buffer_is_flushed_exactly_once", 49_819),
    ("a_refused_append_is_told_to_everyone", 16_696),
    ("a_refused_sync_is_told_to_everyone", 16_696),
    ("a_failed_publication_is_told_to_everyone", 15_952),
    ("a_dying_flusher_is_told_to_everyone", 103_610),
    ("a_close_answers_everyone", 19_207),
    ("everyone_who_waits_is_served", 205),
    ("everyone_who_waits_is_refused_by_a_close", 180),
    ("the_share_of_a_waiter_that_left_goes_to_the_next", 88),
    ("an_insert_waits_for_the_builder_and_no_longer", 4_366),
    ("a_walk_finds_what_is_visible_once", 69_973),
    ("a_commit_at_the_edge_of_sleep_is_answered_in_order", 588),
    ("a_letter_at_the_edge_of_sleep_is_found_or_wakes", 142),
    ("rows_at_the_edge_of_the_builders_sleep_are_seen_or_wake_it", 50),
    ("nothing_is_seen_by_half", 14_981),
    ("two_readers_find_each_row_once_while_the_tail_grows_into_a_new_chunk", 58_202),
    ("a_reader_meets_only_nodes_that_are_written_while_the_entry_point_climbs", 10_020),
    ("a_full_buffer_and_a_flush_make_one_segment", 50_969),
    ("a_slow_flush_makes_inserts_wait_and_not_fail", 26_873),
    ("no_log_goes_before_its_segment_is_published", 20_040),
    ("of_two_replacements_one_wins_everywhere", 31_519),
    ("an_outcome_and_a_replacement_leave_one_of_them_everywhere", 28_595),
    ("a_full_mailbox_serves_who_waits_and_turns_back_who_does_not", 33),
    ("a_next_log_that_cannot_be_made_is_told_to_everyone", 2_696),
    ("a_mark_that_cannot_be_written_is_told_to_everyone", 2_696),
    ("a_mark_that_cannot_be_synced_is_told_to_everyone", 2_696),
    ("a_refused_step_into_the_next_log_is_told_to_everyone", 2_961),
    ("a_builder_that_dies_at_once_is_told_to_everyone", 6_728),
    ("a_builder_that_dies_after_a_step_is_told_to_everyone", 37_588),
    ("a_builder_that_dies_after_two_steps_is_told_to_everyone", 7_464),
    ("a_builder_that_dies_after_three_steps_is_told_to_everyone", 7_808),
    ("a_batch_that_is_not_full_is_linked_for_who_waits_for_room", 453),
    ("a_dropped_engine_ends_and_leaves_what_it_acknowledged", 3_418),
    ("inserts_beside_a_close_are_on_disk_or_refused", 4_677),
    ("inserts_of_two_threads_beside_a_close_are_on_disk_or_refused", 9_679),
    ("a_caller_that_left_before_a_close_leaves_all_of_its_intent_or_nothing", 8_025),
    ("a_flush_beside_a_close_has_its_segment_or_is_refused", 14_157),
    ("a_subscriber_sees_each_write_once_and_in_order", 1_025),
    ("no_write_falls_between_the_store_and_its_first_subscriber", 666),
    ("a_subscriber_that_is_too_slow_is_told_and_the_writer_never_waits", 689),
    ("a_subscriber_that_waits_is_told_of_the_end", 3_032),
];

thread_local! {
    /// Which execution the model on this thread is in. All threads of a model run on this one.
    static EXECUTION: Cell<u64> = const { Cell::new(0) };
}

/// What a failure says before the number of the execution that it came in.
const FAILED_IN: &str = "failed in execution ";

/// Has every panic say in which execution it came.
fn number_failures() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            eprintln!("{FAILED_IN}{}", EXECUTION.get());
            before(info);
        }));
    });
}

/// Explores every execution of `model` that the bound on preemptions allows, and prints how many
/// there were. Fails where more than a tenth of those that are recorded are gone: a model can become
/// empty unseen.
pub fn explore(name: &str, model: impl Fn() + Send + Sync + 'static) {
    explore_within(ORDINARY_BOUND, name, model);
}

/// [`explore`], of a model that is too large for the ordinary bound: with at most `ordinary` preemptions,
/// unless `LOOM_MAX_PREEMPTIONS` asks for more than the ordinary bound.
pub fn explore_within(ordinary: usize, name: &str, model: impl Fn() + Send + Sync + 'static) {
    let count = Arc::new(AtomicU64::new(0));
    let mut builder = loom::model::Builder::new();
    let asked = builder.preemption_bound.unwrap_or(ORDINARY_BOUND);
    let bound = if asked > ORDINARY_BOUND { asked } else { asked.min(ordinary) };
    builder.preemption_bound = Some(bound);
    builder.max_branches = 20_000;
    let since = Instant::now();
    number_failures();
    {
        let count = Arc::clone(&count);
        builder.check(move || {
            EXECUTION.set(count.fetch_add(1, Relaxed) + 1);
            model();
        });
    }
    let count = count.load(Relaxed);
    let recorded = RECORDED.iter().find(|(recorded, _)| *recorded == name);
    let (_, expected) = recorded.expect("each model's executions are recorded");
    println!("{name}: {count} executions in {:.1?} ({expected} recorded)", since.elapsed());
    assert!(
        bound < ordinary || !has_become_small(count, *expected),
        "{name} has become small: {count} executions, where there were {expected}"
    );
}

/// Whether more than a tenth of the executions are gone.
fn has_become_small(count: u64, expected: u64) -> bool {
    count < expected - expected / 10
}

#[test]
fn a_model_that_has_lost_more_than_a_tenth_is_noticed() {
    for (_, expected) in RECORDED {
        assert!(!has_become_small(expected, expected) && has_become_small(0, expected));
    }
    assert!(!has_become_small(900, 1_000) && has_become_small(899, 1_000));
}

/// Runs a part of a model that the model is not about, its beginning or its end, in one way only:
/// whatever threads do until the part is over is not explored.
pub fn quietly<R>(part: impl FnOnce() -> R) -> R {
    loom::stop_exploring();
    let result = part();
    loom::explore();
    result
}

/// Runs the test `model` of this program with `what` wrong and checks that it fails, saying
/// `because`.
pub fn must_fail(model: &str, what: &str, because: &str) {
    run_broken(model, what, because);
}

/// [`must_fail`], where it takes a race: the first execution, in which no thread is preempted, passes.
pub fn must_fail_later(model: &str, what: &str, because: &str) {
    let execution = run_broken(model, what, because);
    assert!(execution > 1, "{model} notices {what} without a race");
}

/// Runs a model broken, and returns in which execution it fails. It runs in a process of its own,
/// since threads that loom leaves behind when a model fails cannot be unwound.
fn run_broken(model: &str, what: &str, because: &str) -> u64 {
    let output = Command::new(env::current_exe().unwrap())
        .args(["--exact", model, "--nocapture"])
        .env(BREAK, what)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{model} does not notice {what}");
    assert!(said.contains(because), "{model} with {what} fails for another reason: {said}");
    let number = said.split(FAILED_IN).nth(1).and_then(|rest| rest.lines().next());
    let execution = number.and_then(|number| number.parse().ok());
    let execution = execution.expect("a failure says which execution it came in");
    println!("{model} with {what}: fails in execution {execution}");
    execution
}
