use tala_core::*;
use tala_store::*;
fn intent(n: u64) -> Intent {
    Intent {
        id: IntentId::from_bytes((n as u128).to_be_bytes()),
        timestamp: n,
        raw_command: format!("cmd {n}"),
        embedding: (0..8).map(|i| ((n * 31 + i * 17) % 101) as f32 - 50.0).collect(),
        context_hash: n,
        parent_ids: vec![],
        outcome: None,
        confidence: 1.0,
    }
}
#[test]
fn smoke() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..3u64 {
        let e = StorageEngine::open(8, dir.path(), 100).unwrap();
        println!("{:?} {:?}", e.recovery(), e.stats());
        assert_eq!(e.len() as u64, round * 1050);
        for n in 0..1050 {
            e.insert(intent(round * 1050 + n)).unwrap();
        }
        for n in 0..50 {
            e.attach_outcome(
                intent(n).id,
                Outcome { status: Status::Success, latency_ns: round, exit_code: 3 },
            )
            .unwrap();
        }
        e.wait_indexed().unwrap();
        let r = e.query_semantic(&intent(7).embedding, 5).unwrap();
        println!("{r:?}");
        assert_eq!(e.query_temporal(TimeRange { start: 5, end: 105 }).unwrap().len(), 100);
        assert_eq!(e.get(intent(3).id).unwrap().unwrap().outcome.unwrap().latency_ns, round);
        if round == 1 {
            e.close().unwrap();
            assert!(e.get(intent(1).id).is_err());
        }
        println!("{:?}", e.metrics());
    }
    println!("{}", verify(dir.path()).unwrap());
    for f in std::fs::read_dir(dir.path()).unwrap() {
        println!("{:?}", f.unwrap());
    }
}
