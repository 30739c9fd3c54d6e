//! Promises of rows that are linked in batches by several threads: the same graph for any number of
//! them, and the shape that a graph has to have through any life.

use super::*;
use crate::index::graph::Graph;

/// Links what was pushed up to `end` as one batch, as the builder does.
fn link_batch<M: Metric>(world: &mut World<M>, end: u32, threads: usize) {
    let rows = world.graph.next_row()..RowId(end);
    for draft in world.graph.draft(rows, world.seq, threads) {
        let plan = world.graph.settle(draft).unwrap();
        world.graph.apply(plan);
    }
    assert_eq!(world.graph.next_row(), RowId(end));
}

/// One write of a random life.
#[derive(Clone, Copy)]
enum Write {
    /// A new row; the row of this number dies.
    Push { replaced: Option<u32> },
    /// The row of this number dies.
    Kill(u32),
}

/// Carries a write out. `vectors` are used in turn.
fn write<M: Metric>(world: &mut World<M>, vectors: &[Vec<f32>], write: Write) {
    match write {
        Write::Push { replaced } => {
            let row = world.arena.len();
            let vector = &vectors[row as usize % vectors.len()];
            world.push(vector, u64::from(row), replaced.map(RowId));
        }
        Write::Kill(row) => {
            world.seq += 1;
            world.writer.kill(RowId(row), world.seq);
        }
    }
}

/// A random write: mostly new rows, one in so many with a death.
fn any_write(random: &mut Random, rows: u32, death_share: usize) -> Write {
    let dead = (random.below(death_share) == 0 && rows > 0).then(|| random.below(rows as usize));
    match dead.map(|row| row as u32) {
        Some(row) if random.below(2) == 0 => Write::Kill(row),
        replaced => Write::Push { replaced },
    }
}

/// Clumps, with one row in ten the same as another at some scale, and some zeros: every kind of turn.
fn mixed(random: &mut Random, count: usize, dim: usize) -> Vec<Vec<f32>> {
    let mut vectors = random.clustered(count, dim, 12);
    for number in 1..count {
        if random.below(10) == 0 {
            let scale = [1.0, 2.0, 1e-3][random.below(3)];
            let other = random.below(number);
            vectors[number] = vectors[other].iter().map(|value| value * scale).collect();
        } else if random.below(50) == 0 {
            vectors[number].fill(0.0);
        }
    }
    vectors
}

/// All that a graph is made of, and that decides how it goes on.
fn everything<M: Metric>(world: &World<M>) -> Vec<Vec<u32>> {
    let graph: &Graph<M> = world.graph.graph();
    let mut all = vec![
        graph.entry().map_or(Vec::new(), |entry| vec![entry.row, entry.level as u32]),
        graph.chain(graph.chain_of_placeless()).collect(),
        world.graph.nodes.clone(),
    ];
    for row in 0..world.arena.len() {
        let state = world.graph.state(row);
        all.push(vec![row, state as u32, world.graph.parent(row)]);
        if matches!(state, State::Linked | State::Kept) {
            let levels = 0..=world.graph.level_of(row);
            all.extend(levels.map(|level| graph.neighbors(row, level).collect()));
            all.push(graph.members(row).flat_map(|(row, same)| [row, same.into()]).collect());
            all.push(vec![graph.is_buried(row).into()]);
        }
    }
    all
}

/// How long the next batch is, after so many rows.
type Cut = fn(&mut Random, u32) -> u32;

#[test]
fn any_number_of_threads_makes_the_same_graph() {
    const ROWS: u32 = 1_200;
    let cuts: [(&str, Cut); 4] = [
        ("one by one", |_, _| 1),
        ("growing", |_, rows| (rows / 32).clamp(1, 64)),
        ("anyhow", |random, _| 1 + random.below(64) as u32),
        ("all at once", |_, _| 300),
    ];
    // Walks over short vectors compare those, over long ones codes.
    for (dim, (name, cut)) in [12, 140].into_iter().flat_map(|dim| cuts.map(|cut| (dim, cut))) {
        let vectors = mixed(&mut Random::new(21), ROWS as usize, dim);
        let built = |threads| {
            let mut random = Random::new(22);
            let params = GraphParams { m: 5, ef_construction: 30, seed: 3 };
            let mut world = World::<Cosine>::new(dim, params);
            while world.arena.len() < ROWS {
                let end = (world.arena.len() + cut(&mut random, world.arena.len())).min(ROWS);
                while world.arena.len() < end {
                    let next = any_write(&mut random, world.arena.len(), 6);
                    write(&mut world, &vectors, next);
                }
                link_batch(&mut world, end, threads);
                world.graph.repair(world.seq);
            }
            everything(&world)
        };
        let alone = built(1);
        for threads in [2, 3, 8] {
            // No `assert_eq`: nobody reads two graphs.
            assert!(built(threads) == alone, "{threads} threads, batches {name}");
        }
    }
}

/// Parents form a tree, and a node is buried just where nothing that it stands for is alive.
fn assert_sound<M: Metric>(world: &World<M>) {
    let graph = world.graph.graph();
    let nodes: HashSet<u32> = world.graph.nodes.iter().copied().collect();
    assert_eq!(nodes.len(), world.graph.nodes.len(), "a node twice");
    for node in &nodes {
        assert!(matches!(world.graph.state(*node), State::Linked | State::Kept));
        let mut steps = 0;
        let mut at = *node;
        // The oldest node is the child of one of its children: there the way up ends.
        while world.graph.parent(at) < at {
            at = world.graph.parent(at);
            steps += 1;
            assert!(steps < nodes.len(), "a ring of parents");
        }
        assert!(nodes.contains(&at), "a parent that is no node");
        let is_dead = |row| world.arena.is_dead(RowId(row), world.seq);
        let is_alive = graph.members(*node).any(|(row, _)| !is_dead(row));
        assert_eq!(graph.is_buried(*node), !is_alive, "node {node}");
    }
}

/// Asks at the present and at some moments before it; what is found is visible then, is ranked by
/// what it costs, and is there once.
fn assert_only_visible(world: &World<Cosine>, random: &mut Random, vectors: &[Vec<f32>]) {
    let view = world.view();
    for age in [0, 1, 5, 50, 1_000] {
        let view = View { snapshot: view.snapshot.saturating_sub(age), ..view };
        let vector = &vectors[random.below(vectors.len())];
        let accept = |row| row < view.linked && world.arena.is_visible(row, view.snapshot);
        let mut best = search::Best::new(20);
        world.graph.graph().search(Vector::new(vector), 30, accept, &mut best);
        let walked = best.into_hits();
        let query = Query { vector, k: 20, ef: 30, exact_below: 0 };
        let asked = search::nearest(world.graph.graph(), query, view).hits;
        for hits in [walked, asked] {
            let ids: HashSet<_> = hits.iter().map(|hit| hit.0).collect();
            assert_eq!(ids.len(), hits.len(), "an id twice");
            for (found, cost) in &hits {
                // The number of a row is its id.
                let row = (0..view.rows_end.0).find(|row| id(u64::from(*row)) == *found).unwrap();
                assert!(world.arena.is_visible(RowId(row), view.snapshot), "row {row} at {view:?}");
                let own =
                    Cosine::cost(Vector::new(vector), world.arena.vector(RowId(row)).unwrap());
                // Twins that are not the same bit for bit are compared one by one.
                assert_eq!(*cost, own);
            }
            assert!(hits.windows(2).all(|pair| pair[0].1 <= pair[1].1));
        }
    }
}

/// A life of `rows` writes in batches of any length, with repairs that are begun, left for later
/// and finished. Returns the largest share of live rows out of reach that was seen.
fn live(params: GraphParams, dim: usize, rows: u32, seed: u64, death_share: usize) -> f64 {
    let mut random = Random::new(seed);
    let vectors = mixed(&mut random, rows as usize + 64, dim);
    let mut world = World::<Cosine>::new(dim, params);
    let mut worst: f64 = 0.0;
    while world.arena.len() < rows {
        for _ in 0..1 + random.below(64) {
            let next = any_write(&mut random, world.arena.len(), death_share);
            write(&mut world, &vectors, next);
        }
        // Some rows of a batch may wait for the next one.
        let waiting = world.arena.len() - world.graph.next_row().0;
        let end = world.arena.len() - random.below(waiting as usize / 4 + 1) as u32;
        link_batch(&mut world, end, 1 + random.below(3));
        for _ in 0..random.below(6) {
            if let Some(plan) = world.graph.plan_repair(world.seq) {
                world.graph.apply(plan);
            }
        }
        assert_only_visible(&world, &mut random, &vectors);
        if random.below(4) == 0 {
            world.graph.repair(world.seq);
            worst = worst.max(unreachable_share(&world));
            assert_sound(&world);
            let stats = world.graph.graph().stats();
            assert!(stats.dead * 5 <= stats.rows, "{stats:?} after a repair");
        }
    }
    worst
}

#[test]
fn a_life_in_batches_leaves_every_row_within_reach() {
    let large = if std::env::var_os("TALA_TEST_LARGE").is_some() { 20 } else { 1 };
    for seed in 0..large {
        for (m, dim, death_share) in [(8, 12, 3), (16, 12, 8), (16, 3, 2), (12, 80, 1_000)] {
            let params = GraphParams { m, ef_construction: 40, seed };
            let lost = live(params, dim, 1_500, seed, death_share);
            assert_eq!(lost, 0.0, "m {m}, dimension {dim}, seed {seed}");
        }
    }
}

/// Lists so short that parents and children fill them.
#[test]
fn a_life_in_batches_with_tiny_lists_loses_hardly_a_row() {
    for seed in 0..8 {
        for (m, dim, death_share) in [(3, 12, 6), (3, 30, 10), (3, 2, 3)] {
            let params = GraphParams { m, ef_construction: 16, seed };
            let lost = live(params, dim, 1_500, seed, death_share);
            assert!(lost <= 0.001, "{lost} out of reach: m {m}, dimension {dim}, seed {seed}");
        }
    }
}

/// Nobody dies and rows come one by one: parents lead from the oldest node to all others, so the
/// entry point has to lead to the oldest node.
#[test]
fn the_shortest_lists_leave_every_row_within_reach_of_the_entry_point() {
    for (seed, dim) in (0..8).flat_map(|seed| [(seed, 2), (seed, 12)]) {
        let vectors = Random::new(seed).clustered(1_500, dim, 12);
        let params = GraphParams { m: 2, ef_construction: 16, seed };
        let lost = unreachable_share(&build::<Cosine>(&vectors, params));
        assert!(lost <= 0.001, "{lost} out of reach: dimension {dim}, seed {seed}");
    }
}

/// Each of these directions is a twin of the next, and the last is none of the first: what hangs on
/// a node must be a twin of the node itself.
#[test]
fn a_row_of_the_batch_hangs_on_a_node_only_as_a_twin_of_it() {
    let mut world = World::<Cosine>::new(2, PARAMS);
    for number in 0..8_u8 {
        world.push(&[1.0, 0.9e-6 * f32::from(number)], number.into(), None);
    }
    link_batch(&mut world, 8, 1);
    let graph = world.graph.graph();
    assert_eq!(world.graph.state(1), State::Hanging, "the first pair are twins");
    for node in world.graph.nodes.iter().copied() {
        for (row, _) in graph.members(node) {
            let vector = |row| world.arena.vector(RowId(row)).unwrap();
            let distance = Cosine::distance(vector(node), vector(row));
            assert!(Cosine::are_twins(distance), "{row} hangs on {node}, {distance} away");
        }
    }
}

/// A twin may have been drawn a higher level than the node that stands for it, and a later row of the
/// batch, which takes the twin for a node, finds it there.
#[test]
fn a_row_of_the_batch_that_becomes_a_twin_brings_no_link_above_its_nodes_level() {
    for seed in 0..64 {
        let params = GraphParams { m: 2, ef_construction: 8, seed };
        let mut world = World::<Cosine>::new(2, params);
        let vectors = [[1.0, 0.0], [0.0, 1.0], [2.0, 0.0], [1.0, 0.1]];
        for (vector, number) in vectors.iter().zip(0..) {
            world.push(vector, number, None);
        }
        link_batch(&mut world, 2, 1);
        link_batch(&mut world, 4, 1);
        assert_eq!(world.graph.state(2), State::Hanging);
        assert_eq!(unreachable_share(&world), 0.0);
    }
}
