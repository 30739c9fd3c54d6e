//! The recall of searches: what an exact query promises, and what `measure_recall` reports.

use crate::common::{Random, assert_exact, cosine, id, intent};
use tala_core::{Intent, IntentStore, TalaError};
use tala_store::{Query, RecallOptions, StorageEngine};

const DIM: usize = 24;

fn with(number: u64, embedding: Vec<f32>) -> Intent {
    Intent { embedding, ..intent(number) }
}

/// `count` intents in clusters of 50: near to each other, and far from the rest.
fn clustered(count: u64) -> Vec<Intent> {
    let mut random = Random::new(17);
    let mut center = Vec::new();
    (0..count)
        .map(|number| {
            if number % 50 == 0 {
                center = random.vector(DIM);
            }
            let offset = random.vector(DIM);
            with(number, center.iter().zip(offset).map(|(c, o)| c + 0.2 * o).collect())
        })
        .collect()
}

/// A store with a poor graph, so that narrow beams miss some, and with no scan but of what is asked
/// for.
fn poorly_linked(intents: &[Intent]) -> StorageEngine {
    let engine =
        StorageEngine::options(DIM).exact_below(0).m(3).ef_construction(8).in_memory().unwrap();
    engine.insert_batch(intents.to_vec()).unwrap();
    engine.wait_indexed().unwrap();
    engine
}

#[test]
fn an_exact_query_misses_nothing_and_does_not_walk() {
    let intents = clustered(2_000);
    let engine = poorly_linked(&intents);
    let walks = || engine.metrics().hnsw_search_count.load(std::sync::atomic::Ordering::Relaxed);
    let mut random = Random::new(4);
    let mut missed = 0;
    for number in 0..40 {
        let query: Vec<f32> =
            intents[number * 50].embedding.iter().map(|value| value + random.float()).collect();
        for k in [1, 10, 300] {
            let before = walks();
            let hits = engine.search(Query::new(&query, k).ef(1).exact()).unwrap();
            assert_exact(&hits, &intents, &query, k);
            assert_eq!(walks(), before, "the graph was walked");
            missed += usize::from(engine.search(Query::new(&query, k).ef(1)).unwrap() != hits);
        }
    }
    assert!(missed > 0, "the graph misses nothing, so this shows nothing");
    assert_eq!(engine.search(Query::new(&[1.0; DIM], 0).exact()).unwrap(), []);
}

/// Every intent is a query, so that the report can be compared with one made here.
#[test]
fn the_report_is_what_anyone_can_count_who_leaves_the_intent_itself_out() {
    const K: usize = 5;
    let intents = clustered(600);
    let engine = poorly_linked(&intents);
    let options = RecallOptions::new().sample(600).k(K).efs([6, 20, 400]).seed(5);
    let report = engine.measure_recall(&options).unwrap();
    assert_eq!((report.k, report.queries, report.rows, report.linked), (K, 600, 600, 600));
    assert!(0 < report.exact_p50_ns && report.exact_p50_ns <= report.exact_p99_ns);
    assert_eq!(report.at.iter().map(|at| at.ef).collect::<Vec<_>>(), [6, 20, 400]);
    for at in &report.at {
        let mut recalls = Vec::new();
        for query in &intents {
            let mut truth: Vec<_> = intents
                .iter()
                .filter(|other| other.id != query.id)
                .map(|other| (cosine(&other.embedding, &query.embedding), other.id))
                .collect();
            truth.sort_by(|a, b| b.0.total_cmp(&a.0));
            truth.truncate(K);
            let hits = engine.search(Query::new(&query.embedding, K + 1).ef(at.ef)).unwrap();
            let others = hits.iter().filter(|hit| hit.0 != query.id).take(K);
            let right = others.filter(|hit| truth.iter().any(|(_, id)| *id == hit.0)).count();
            recalls.push(right as f64 / K as f64);
        }
        let mean = recalls.iter().sum::<f64>() / recalls.len() as f64;
        let worst = recalls.iter().copied().fold(1.0, f64::min);
        assert!((at.recall - mean).abs() < 1e-9, "ef {}: {} is not {mean}", at.ef, at.recall);
        assert!((at.worst - worst).abs() < 1e-9, "ef {}: {} is not {worst}", at.ef, at.worst);
        assert!(0 < at.p50_ns && at.p50_ns <= at.p99_ns);
        // 400 is more than half of the store.
        assert_eq!(at.walks, if at.ef == 400 { 0 } else { 600 });
    }
    assert!(report.at[0].recall < 1.0, "nothing is missed, so this shows nothing");
    assert_eq!(report.at[2].recall, 1.0, "a scan misses nothing");
}

#[test]
fn queries_of_the_caller_are_compared_with_the_truth_about_them() {
    const K: usize = 5;
    let intents = clustered(1_000);
    let engine = poorly_linked(&intents);
    let mut random = Random::new(8);
    let queries: Vec<Vec<f32>> = (0..100).map(|_| random.vector(DIM)).collect();
    // What is stored is not left out of the answers to a query that happens to be the same.
    let queries = [queries, vec![intents[7].embedding.clone()]].concat();
    let mut recalls = Vec::new();
    for query in &queries {
        let mut truth: Vec<_> =
            intents.iter().map(|intent| (cosine(&intent.embedding, query), intent.id)).collect();
        truth.sort_by(|a, b| b.0.total_cmp(&a.0));
        let hits = engine.search(Query::new(query, K).ef(8)).unwrap();
        let right = hits.iter().filter(|hit| truth[..K].iter().any(|(_, id)| *id == hit.0));
        recalls.push(right.count() as f64 / K as f64);
    }
    let mean = recalls.iter().sum::<f64>() / recalls.len() as f64;
    let options = RecallOptions::new().k(K).efs([8]).sample(3).queries(queries);
    let report = engine.measure_recall(&options).unwrap();
    assert_eq!(report.queries, 101);
    assert!(mean < 1.0, "nothing is missed, so this shows nothing");
    assert!((report.at[0].recall - mean).abs() < 1e-9, "{report:?} should be {mean}");
}

#[test]
fn a_wider_beam_finds_more_and_the_report_names_the_narrowest_that_is_enough() {
    let engine = poorly_linked(&clustered(3_000));
    let options = RecallOptions::new().efs([256, 1, 2_000]);
    let report = engine.measure_recall(&options).unwrap();
    let [wide, narrow, scan] = report.at[..] else { panic!("{report:?}") };
    assert_eq!((report.queries, wide.walks, narrow.walks, scan.walks), (200, 200, 200, 0));
    assert!(narrow.recall + 0.05 < wide.recall, "{report:?}");
    assert!(narrow.worst <= narrow.recall && wide.worst <= wide.recall);
    assert_eq!((scan.recall, scan.worst), (1.0, 1.0));
    assert_eq!(report.ef_for(narrow.recall), Some(1));
    assert_eq!(report.ef_for(wide.recall), Some(256));
    assert_eq!(report.ef_for(1.0), Some(if wide.recall < 1.0 { 2_000 } else { 256 }));
    assert_eq!(report.ef_for(1.1), None);
    // The same seed asks the same questions.
    let again = engine.measure_recall(&options).unwrap();
    let recalls =
        |at: &[tala_store::RecallAt]| at.iter().map(|at| (at.recall, at.worst)).collect::<Vec<_>>();
    assert_eq!(recalls(&report.at), recalls(&again.at));
}

#[test]
fn what_is_gone_is_neither_asked_for_nor_missed() {
    let intents = clustered(300);
    let engine = poorly_linked(&intents);
    for intent in &intents[100..] {
        engine.remove(intent.id).unwrap();
    }
    engine.insert(with(0, vec![-1.0; DIM])).unwrap();
    let report = engine.measure_recall(&RecallOptions::new().sample(1_000).k(150)).unwrap();
    assert_eq!((report.queries, report.rows), (100, 301));
    // 99 others are all there is.
    assert!(report.at.iter().all(|at| at.recall == 1.0 && at.walks == 0), "{report:?}");
}

#[test]
fn a_store_of_nothing_and_a_store_of_one() {
    let engine = StorageEngine::in_memory(2, 10);
    let report = engine.measure_recall(&RecallOptions::new()).unwrap();
    assert_eq!((report.queries, report.rows, report.at.len()), (0, 0, 0));
    assert_eq!(report.ef_for(0.0), None);
    engine.insert(with(1, vec![1.0, 0.0])).unwrap();
    let report = engine.measure_recall(&RecallOptions::new().efs([1, usize::MAX])).unwrap();
    assert_eq!(report.queries, 1);
    assert!(report.at.iter().all(|at| (at.recall, at.worst) == (1.0, 1.0)), "{report:?}");
    engine.insert(with(2, vec![0.0, 0.0])).unwrap();
    let all = RecallOptions::new().k(usize::MAX).sample(usize::MAX);
    let report = engine.measure_recall(&all).unwrap();
    assert_eq!((report.k, report.queries), (usize::MAX, 2));
    assert!(report.at.iter().all(|at| at.recall == 1.0), "{report:?}");
}

#[test]
fn what_cannot_be_measured_is_refused_by_name() {
    let engine = StorageEngine::in_memory(2, 10);
    engine.insert(with(1, vec![1.0, 0.0])).unwrap();
    let options = RecallOptions::new;
    for (options, name) in [
        (options().queries(vec![]), "queries"),
        (options().sample(0), "sample"),
        (options().k(0), "k"),
        (options().efs([]), "efs"),
        (options().efs([16, 0]), "efs"),
    ] {
        let error = engine.measure_recall(&options).unwrap_err();
        assert!(
            matches!(error, TalaError::InvalidOption { option, .. } if option == name),
            "{error}"
        );
    }
    let short = options().queries(vec![vec![1.0, 0.0], vec![1.0]]);
    let error = engine.measure_recall(&short).unwrap_err();
    assert!(matches!(error, TalaError::DimensionMismatch { expected: 2, got: 1 }), "{error}");
    let unfit = options().queries(vec![vec![f32::NAN, 0.0]]);
    let error = engine.measure_recall(&unfit).unwrap_err();
    assert!(matches!(error, TalaError::InvalidInput { field: "embedding", .. }), "{error}");
    assert_eq!(engine.query_semantic(&[1.0, 0.0], 1).unwrap()[0].0, id(1));
    engine.close().unwrap();
    let error = engine.measure_recall(&options()).unwrap_err();
    assert!(matches!(error, TalaError::Stopped { .. }), "{error}");
}
