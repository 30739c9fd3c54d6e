//! `index_threads` changes how long linking takes and nothing else.

use crate::common::{Random, intent};
use tala_core::Intent;
use tala_store::{Query, StorageEngine};

const DIM: usize = 160;

/// A store that was filled at once, linked on so many threads.
fn filled(intents: &[Intent], threads: usize) -> StorageEngine {
    let engine = StorageEngine::options(DIM)
        .exact_below(0)
        .m(6)
        .ef_construction(30)
        .index_threads(threads)
        .in_memory()
        .unwrap();
    engine.insert_batch(intents.to_vec()).unwrap();
    engine.wait_indexed().unwrap();
    engine
}

#[test]
fn answers_do_not_depend_on_the_number_of_threads() {
    let mut random = Random::new(71);
    let mut center = Vec::new();
    let intents: Vec<Intent> = (0..6_000)
        .map(|number| {
            if number % 100 == 0 {
                center = random.vector(DIM);
            }
            let embedding = center.iter().map(|value| value + 0.4 * random.float()).collect();
            Intent { embedding, ..intent(number) }
        })
        .collect();
    let engines = [1, 2, 5].map(|threads| filled(&intents, threads));
    let mut missed = 0;
    for number in 0..200 {
        let query: Vec<f32> =
            intents[number * 29].embedding.iter().map(|value| value + random.float()).collect();
        let answers = engines.each_ref().map(|engine| {
            // So narrow a beam finds other rows in another graph.
            engine.search(Query::new(&query, 5).ef(5)).unwrap()
        });
        assert_eq!(answers[0], answers[1], "one thread and two");
        assert_eq!(answers[0], answers[2], "one thread and five");
        missed +=
            usize::from(answers[0] != engines[0].search(Query::new(&query, 5).exact()).unwrap());
    }
    assert!(missed > 0, "the walks miss nothing, so this shows nothing");
    let stats = engines.each_ref().map(StorageEngine::stats);
    assert_eq!(stats[0], stats[1]);
    assert_eq!(stats[0], stats[2]);
}
