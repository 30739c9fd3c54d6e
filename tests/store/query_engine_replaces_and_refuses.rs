//! A [`QueryEngine`] holds each id once and takes only finite vectors of its dimension.

use tala_core::TalaError;
use tala_store::{EngineOptions, QueryEngine};

#[test]
fn the_same_id_replaces() {
    let mut engine = QueryEngine::new(2);
    assert!(engine.is_empty());
    engine.insert([1; 16], 1, "old".to_string(), vec![1.0, 0.0]);
    engine.insert([2; 16], 2, "other".to_string(), vec![0.0, 5.0]);
    engine.insert([1; 16], 3, "new".to_string(), vec![0.0, 3.0]);
    assert_eq!((engine.len(), engine.is_empty()), (2, false));
    assert_eq!(engine.search(&[0.0, 0.0], 9), [([1; 16], 3.0), ([2; 16], 5.0)]);
    assert_eq!(engine.get(&[1; 16]), Some((3, "new")));
    assert_eq!(engine.get(&[3; 16]), None);
}

/// Past the size that is looked at one by one, and with every intent replaced several times.
#[test]
fn replaced_vectors_leave_no_ghosts_in_the_graph() {
    let mut engine = QueryEngine::new(2);
    let place = |number: u32, round: u32| vec![(number % 40) as f32, (number / 40 + round) as f32];
    for round in 0..4 {
        for number in 0..1_200 {
            let id = u128::from(number).to_be_bytes();
            engine.insert(id, 0, String::new(), place(number, 100 * round));
        }
    }
    assert_eq!(engine.len(), 1_200);
    for number in [0, 1, 599, 1_199] {
        let hits = engine.search(&place(number, 300), 1);
        assert_eq!(hits, [(u128::from(number).to_be_bytes(), 0.0)]);
    }
    // Nothing is left where the first round was.
    assert!(engine.search(&[0.0, 0.0], 1)[0].1 >= 300.0);
}

#[test]
fn a_wrong_dimension_and_what_is_not_finite_are_errors_and_change_nothing() {
    let mut engine = QueryEngine::new(2);
    engine.insert([1; 16], 1, "kept".to_string(), vec![1.0, 0.0]);
    for bad in [vec![f32::NAN, 0.0], vec![0.0, f32::INFINITY], vec![f32::NEG_INFINITY, 0.0]] {
        for error in [
            engine.try_insert([1; 16], 2, "bad".to_string(), bad.clone()).unwrap_err(),
            engine.try_search(&bad, 1).unwrap_err(),
            engine.try_find_edge_candidates(&bad, 1).unwrap_err(),
        ] {
            assert!(matches!(error, TalaError::InvalidInput { field: "embedding", .. }));
        }
    }
    for error in [
        engine.try_insert([1; 16], 2, "bad".to_string(), vec![0.0]).unwrap_err(),
        engine.try_search(&[0.0; 3], 1).unwrap_err(),
        engine.try_find_edge_candidates(&[], 1).unwrap_err(),
    ] {
        assert!(matches!(error, TalaError::DimensionMismatch { expected: 2, .. }));
    }
    assert_eq!(engine.get(&[1; 16]), Some((1, "kept")));
    assert_eq!(engine.search(&[1.0, 0.0], 1), [([1; 16], 0.0)]);
}

#[test]
fn a_dimension_that_no_store_has_is_refused() {
    for dim in [0, EngineOptions::DIM_MAX + 1, usize::MAX] {
        let error = QueryEngine::try_new(dim).err();
        assert!(
            matches!(error, Some(TalaError::InvalidOption { option: "dim", .. })),
            "{dim}: {error:?}"
        );
    }
    for dim in [1, EngineOptions::DIM_MAX] {
        let mut engine = QueryEngine::try_new(dim).unwrap();
        engine.insert([1; 16], 1, String::new(), vec![-0.0; dim]);
        let distance = engine.search(&vec![0.0; dim], 1)[0].1;
        assert_eq!(distance.to_bits(), 0, "a distance of nothing is +0, not {distance}");
    }
}

#[test]
#[should_panic(expected = "invalid option dim: must be between 1 and 65,536")]
fn new_panics_on_no_dimension() {
    let _ = QueryEngine::new(0);
}

#[test]
#[should_panic(expected = "dimension mismatch: expected 2, got 1")]
fn insert_panics_on_another_dimension() {
    QueryEngine::new(2).insert([1; 16], 1, String::new(), vec![1.0]);
}

#[test]
#[should_panic(expected = "component 1 is NaN")]
fn search_panics_on_a_nan() {
    let _ = QueryEngine::new(2).search(&[0.0, f32::NAN], 1);
}
