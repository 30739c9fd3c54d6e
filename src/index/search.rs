//! A whole query on the caller's thread: the graph for the rows that are linked, an exact scan for
//! those that are not yet, one ranking for both.
//!
//! The scan compares codes as the walk does, and each code says how far it may be off. A row is
//! passed over only where even the best similarity that its code allows is not among the best; all
//! others are compared by their vectors. So the answer is that of comparing every vector, at a
//! quarter of the memory traffic.

use crate::ids::RowId;
use std::{cmp::Ordering, collections::BinaryHeap, ops::Range};

use tala_core::IntentId;

use super::{
    arena::Arena,
    graph::Graph,
    metric::{Cosine, Metric},
    point::{Coded, distance_of},
    walk::with_scratch,
};
use crate::{
    distance::Vector,
    kernels::{Probe, dots4},
    sync::is_broken,
};

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a> {
    /// Finite, of the arena's dimension.
    pub vector: &'a [f32],
    /// How many answers.
    pub k: usize,
    /// Width of the beam; at least `k` is used.
    pub ef: usize,
    /// With fewer live rows than this, every row is looked at.
    pub exact_below: usize,
}

/// The state that a query is answered from. Load the fields in their order, each with Acquire: a
/// row that the builder passed over as dead is then not visible at the snapshot, and every row that
/// is visible at the snapshot is below `rows_end`.
#[derive(Clone, Copy, Debug)]
pub struct View {
    /// Rows below had their turn in the graph; [`super::link::GraphWriter::next_row`].
    pub linked: RowId,
    /// The sequence number up to which the query sees.
    pub snapshot: u64,
    /// Number of rows; [`Arena::len`].
    pub rows_end: RowId,
}

/// The answer, and what it took.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Answer {
    /// Best first, ties by id, each id once.
    pub hits: Vec<(IntentId, f32)>,
    /// Whether the graph was walked.
    pub is_walked: bool,
    /// Nodes of the graph whose distance was computed.
    pub visited: usize,
    /// Rows compared outside the graph.
    pub scanned: usize,
}

/// The `k` rows most similar to the query, as `(id, cosine similarity)`.
pub fn search(graph: &Graph<Cosine>, query: Query<'_>, view: View) -> Answer {
    let mut answer = nearest(graph, query, view);
    for (_, cost) in &mut answer.hits {
        *cost = -*cost;
    }
    answer
}

/// The `k` rows of least [`Metric::cost`], with their costs.
///
/// Every row is looked at where the answer is a good part of the store anyway (`k` or `ef` reaches
/// half of the live rows), where the store is small, and where the query is as far from one row as
/// from any other.
pub fn nearest<M: Metric>(graph: &Graph<M>, query: Query<'_>, view: View) -> Answer {
    let mut answer = Answer::default();
    let live = graph.arena().live_count();
    // No more than there is: `k` may be any number.
    let k = query.k.min(view.rows_end.0 as usize);
    if k == 0 {
        return answer;
    }
    let vector = Vector::new(query.vector);
    let ef = query.ef.max(k);
    let mut best = Best::new(k);
    let is_exact =
        live < query.exact_below || ef.saturating_mul(2) >= live || M::is_placeless(vector);
    if !is_exact {
        let accept = |row: RowId| {
            (row < view.linked || is_broken("rows past the watermark in the graph"))
                && graph.arena().is_visible(row, view.snapshot)
        };
        answer.visited = graph.search(vector, ef, accept, &mut best);
        answer.is_walked = true;
        answer.scanned = scan::<M>(graph.arena(), vector, view, view.linked, &mut best);
    }
    // A walk can end early where the graph is torn by deaths; then nothing less than a scan will do.
    if is_exact || best.len() < k.min(live) {
        best = Best::new(k);
        answer.scanned += scan::<M>(graph.arena(), vector, view, RowId(0), &mut best);
    }
    answer.hits = best.into_hits();
    answer
}

/// Offers every visible row from `from` to the end of the view, but for those that cannot be among
/// the best, and returns the number of rows that it looked at.
fn scan<M: Metric>(
    arena: &Arena,
    vector: Vector<'_>,
    view: View,
    from: RowId,
    best: &mut Best,
) -> usize {
    let mut next = from.0;
    let end = view.rows_end.0.min(arena.len());
    if M::HAS_CODES && arena.has_codes() && end.saturating_sub(next) >= CODED_SCAN_MIN {
        with_scratch(|scratch| {
            let coded = scratch.aim(vector);
            next = scan_codes::<M>(arena, vector, (&scratch.probe, coded), view, next..end, best);
        });
    }
    for row in (next..end).map(RowId) {
        offer_visible::<M>(arena, vector, view, row, best);
    }
    end.saturating_sub(from.0) as usize
}

/// With fewer rows to scan than this, the code of the query costs more than it saves.
const CODED_SCAN_MIN: u32 = 16;

/// Scans by codes, four rows at a time, and returns the first row that is not scanned.
fn scan_codes<M: Metric>(
    arena: &Arena,
    vector: Vector<'_>,
    (probe, coded): (&Probe, Coded),
    view: View,
    rows: Range<u32>,
    best: &mut Best,
) -> u32 {
    let mut next = rows.start;
    while next + 4 <= rows.end {
        let four: [u32; 4] = std::array::from_fn(|offset| next + offset as u32);
        let dots = dots4(probe, four.map(|row| arena.code(row).unwrap_or_default()));
        for (row, dot) in four.into_iter().zip(dots) {
            let (row_scale, error) = arena.coding(row).unwrap_or_default();
            let distance = distance_of(dot as f32, coded.scale, row_scale);
            let is_far = best.worst().is_some_and(|cost| {
                distance - coded.bound(error, arena.dim()) > M::distance_of(cost)
            });
            if !is_far {
                offer_visible::<M>(arena, vector, view, RowId(row), best);
            }
        }
        next += 4;
    }
    next
}

fn offer_visible<M: Metric>(
    arena: &Arena,
    vector: Vector<'_>,
    view: View,
    row: RowId,
    best: &mut Best,
) {
    if arena.is_visible(row, view.snapshot)
        && let Some(other) = arena.vector(row)
    {
        best.offer_row(arena, row, M::cost(vector, other));
    }
}

/// For how many hits room is made before there are any.
const HITS_AHEAD: usize = 1_024;

/// The `k` best hits so far.
pub struct Best {
    k: usize,
    /// The worst on top.
    heap: BinaryHeap<Hit>,
}

/// Better hits are smaller: by cost, then by the bytes of the id.
struct Hit {
    cost: f32,
    id: IntentId,
}

impl Best {
    pub fn new(k: usize) -> Self {
        // `k` may be any number, so no more than an ordinary one is believed.
        Self { k, heap: BinaryHeap::with_capacity(k.min(HITS_AHEAD)) }
    }

    fn len(&self) -> usize {
        self.heap.len()
    }

    /// Keeps the hit if it is among the best.
    pub fn offer(&mut self, id: IntentId, cost: f32) {
        let hit = Hit { cost, id };
        if self.heap.len() < self.k {
            self.heap.push(hit);
        } else if let Some(mut worst) = self.heap.peek_mut()
            && hit < *worst
        {
            *worst = hit;
        }
    }

    /// Keeps a row if it is among the best.
    pub(super) fn offer_row(&mut self, arena: &Arena, row: RowId, cost: f32) {
        // Most rows are too far; their ids need not be fetched.
        if self.worst().is_some_and(|worst| cost > worst) {
            return;
        }
        if let Some(id) = arena.id(row) {
            self.offer(id, cost);
        }
    }

    /// The cost of the worst hit, once there are as many as were asked for.
    pub(super) fn worst(&self) -> Option<f32> {
        self.heap.peek().filter(|_| self.heap.len() >= self.k).map(|hit| hit.cost)
    }

    /// The hits, best first.
    pub fn into_hits(self) -> Vec<(IntentId, f32)> {
        self.heap.into_sorted_vec().into_iter().map(|hit| (hit.id, hit.cost)).collect()
    }
}

impl Ord for Hit {
    fn cmp(&self, other: &Self) -> Ordering {
        self.cost.total_cmp(&other.cost).then_with(|| self.id.cmp(&other.id))
    }
}

impl PartialOrd for Hit {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Hit {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Hit {}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;
    use crate::index::{
        graph_tests::brute_force,
        testing::{PARAMS, Random, World, id},
    };

    /// `count` random rows with falling ids, `linked` of them in the graph.
    fn world(count: u64, linked: u64) -> World<Cosine> {
        let mut random = Random::new(21);
        let mut world = World::new(4, PARAMS);
        for number in 0..count {
            world.push(&random.vector(4), 1_000 - number, None);
            if number + 1 == linked {
                world.link_all();
            }
        }
        world
    }

    fn ask(
        world: &World<Cosine>,
        vector: &[f32],
        k: usize,
        ef: usize,
        exact_below: usize,
    ) -> Answer {
        let query = Query { vector, k, ef, exact_below };
        search(world.graph.graph(), query, world.view())
    }

    #[test]
    fn a_small_store_or_a_large_question_is_scanned_and_another_is_walked() {
        let world = world(100, 100);
        let vector = [0.5, 0.1, -0.2, 0.3];
        for (k, ef, exact_below, is_walked) in [
            (10, 10, 0, true),
            (10, 49, 100, true),
            (10, 49, 101, false),
            (10, 50, 0, false),
            (50, 10, 0, false),
            (usize::MAX, usize::MAX, 0, false),
        ] {
            let answer = ask(&world, &vector, k, ef, exact_below);
            assert_eq!(answer.is_walked, is_walked, "k {k}, ef {ef}, exact below {exact_below}");
            assert_eq!(answer.scanned, if is_walked { 0 } else { 100 });
            assert_eq!(answer.visited > 0, is_walked);
            assert_eq!(answer.hits.len(), k.min(100));
        }
        assert_eq!(ask(&world, &vector, 0, 64, 0), Answer::default());
    }

    #[test]
    fn rows_that_are_not_linked_are_scanned_and_ranked_with_the_others() {
        let world = world(200, 150);
        let mut from_tail = 0;
        for vector in [[1.0, 0.0, 0.0, 0.0], [0.0, -1.0, 0.3, 0.0], [0.2, 0.2, 0.9, -0.9]] {
            let walked = ask(&world, &vector, 10, 80, 0);
            let exact = ask(&world, &vector, 10, 80, 201);
            assert!(walked.is_walked && walked.scanned == 50 && !exact.is_walked);
            assert_eq!(walked.hits, exact.hits);
            from_tail += exact.hits.iter().filter(|hit| hit.0 <= id(850)).count();
        }
        assert!(from_tail > 0, "no hit came from the scan");
    }

    /// How the rows of a store lie that is hard to scan by codes.
    #[derive(Clone, Copy, Debug)]
    enum Lie {
        Anywhere,
        /// Off a common vector by so many units in the last place, at most.
        LastBits(u32),
        /// Off a common vector by this share of it, at most.
        Near(f32),
        /// One coordinate is so many times as large as the others.
        Outlier(f32),
    }

    fn lies() -> impl Strategy<Value = Lie> {
        prop_oneof![
            Just(Lie::Anywhere),
            (1_u32..4).prop_map(Lie::LastBits),
            prop_oneof![Just(1e-4), Just(1e-3), Just(1e-2), Just(0.1)].prop_map(Lie::Near),
            prop_oneof![Just(30.0), Just(1e3), Just(1e6)].prop_map(Lie::Outlier),
        ]
    }

    /// The next vector of such a store, about `common`.
    fn lying(lie: Lie, common: &[f32], random: &mut Random) -> Vec<f32> {
        let mut vector: Vec<f32> = common
            .iter()
            .map(|value| match lie {
                Lie::Anywhere | Lie::Outlier(_) => random.float(),
                Lie::LastBits(units) => {
                    let bits = value.to_bits() & !7;
                    f32::from_bits(bits + random.below(units as usize + 1) as u32)
                }
                Lie::Near(share) => value * (1.0 + share * random.float()),
            })
            .collect();
        if let Lie::Outlier(times) = lie {
            let index = vector.len() / 2;
            vector[index] = times.copysign(random.float() + 0.5);
        }
        // Now and then a zero, and scales that change nothing but the arithmetic.
        match random.below(32) {
            0 => vector.fill(0.0),
            1 => vector.iter_mut().for_each(|value| *value *= 1e-18),
            2 => vector.iter_mut().for_each(|value| *value *= 1e12),
            _ => {}
        }
        vector
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if
            std::env::var_os("TALA_TEST_LARGE").is_some() { 20_000 } else { 400 }
        ))]

        /// Whatever the rows are, whatever part of them is linked: of the others the answer has
        /// those that comparing every vector would give, at the same costs to the bit.
        #[test]
        fn rows_that_are_not_linked_are_found_as_if_every_vector_were_compared(
            lie in lies(),
            dim in 1_usize..=200,
            count in 1_u64..300,
            linked_share in prop_oneof![Just(0), Just(50), 0_u64..=100],
            k in 1_usize..50,
            ef in 1_usize..30,
            seed in any::<u64>(),
        ) {
            let mut random = Random::new(seed);
            let common = random.vector(dim);
            let mut world = World::<Cosine>::new(dim, PARAMS);
            let linked = count * linked_share / 100;
            for number in 0..count {
                // An odd factor: each id once, and in another order than the rows.
                let number = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
                let dead = (random.below(8) == 0 && number > 0)
                    .then(|| RowId(random.below(world.arena.len() as usize) as u32));
                world.push(&lying(lie, &common, &mut random), number, dead);
                if u64::from(world.arena.len()) == linked {
                    world.link_all();
                }
            }
            let view = world.view();
            prop_assert_eq!(u64::from(view.linked.0), linked);
            let vectors = [
                lying(lie, &common, &mut random),
                common.clone(),
                world.arena.row(RowId(random.below(count as usize) as u32)).unwrap().to_vec(),
            ];
            for vector in vectors {
                let query = Query { vector: &vector, k, ef, exact_below: 0 };
                let hits = nearest(world.graph.graph(), query, view).hits;
                let all = brute_force::<Cosine>(&world.arena, &vector, usize::MAX, view);
                prop_assert_eq!(hits.len(), k.min(all.len()));
                if linked == 0 {
                    prop_assert_eq!(&hits[..], &all[..hits.len()]);
                }
                let tail: HashSet<_> = (view.linked.0..view.rows_end.0)
                    .map(|row| world.arena.id(RowId(row)).unwrap())
                    .collect();
                let due = all.into_iter().filter(|(id, _)| tail.contains(id));
                let mut due = due.map(|(id, cost)| Hit { cost, id });
                let found: Vec<_> = hits.iter().filter(|(id, _)| tail.contains(id)).collect();
                for (id, cost) in found {
                    let due = due.next().unwrap();
                    prop_assert_eq!((id, cost.to_bits()), (&due.id, due.cost.to_bits()));
                }
                // The best that is left out is no better than the worst that is in.
                if let (Some(left_out), Some((id, cost))) = (due.next(), hits.last()) {
                    let worst = Hit { cost: *cost, id: *id };
                    prop_assert!(left_out > worst, "{:?} is left out", left_out.id);
                }
            }
        }
    }

    /// Where codes are exact, all that is left of a bound is what rounding may do, and sums over many
    /// components round much.
    #[test]
    fn the_scan_is_exact_where_codes_are_and_dimensions_are_many() {
        const DIM: usize = 4_096;
        let mut random = Random::new(31);
        for _ in 0..20 {
            let mut world = World::<Cosine>::new(DIM, PARAMS);
            for number in 0..40 {
                let mut vector = vec![0.1 + random.float().abs(); DIM];
                // A component that a code keeps as it is.
                vector[random.below(DIM)] *= (127 - number / 4) as f32 / 127.0;
                world.push(&vector, 1_000 - number as u64, None);
            }
            let query = vec![0.1 + random.float().abs(); DIM];
            let vector = Vector::new(&query);
            let mut expected: Vec<_> = (0..40)
                .map(|row| {
                    let row = RowId(row);
                    let cost = Cosine::cost(vector, world.arena.vector(row).unwrap());
                    (world.arena.id(row).unwrap(), -cost)
                })
                .collect();
            expected.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
            expected.truncate(5);
            assert_eq!(ask(&world, &query, 5, 5, usize::MAX).hits, expected);
        }
    }

    #[test]
    fn a_zero_query_is_as_like_one_row_as_any_other_so_ids_decide() {
        let world = world(100, 100);
        let answer = ask(&world, &[0.0; 4], 3, 10, 0);
        assert_eq!(answer.hits, [(id(901), 0.0), (id(902), 0.0), (id(903), 0.0)]);
    }

    #[test]
    fn zero_rows_are_found_between_the_like_and_the_unlike() {
        let mut world = World::<Cosine>::new(2, PARAMS);
        for number in 0..60 {
            let angle = f32::from(number as u8) * 0.01;
            world.push(&[angle.cos(), angle.sin()], number, None);
            world.push(&[-angle.cos(), -angle.sin()], 100 + number, None);
        }
        let dead = world.push(&[0.0, 0.0], 6, None);
        world.push(&[-0.0, 0.0], 7, Some(dead));
        world.push(&[0.0, 0.0], 5, None);
        world.link_all();
        // The angles to the first kind are all below a right one, those to the second all above.
        let query = [0.3_f32.cos(), 0.3_f32.sin()];
        let answer = search(
            world.graph.graph(),
            Query { vector: &query, k: 60, ef: 60, exact_below: 0 },
            world.view(),
        );
        assert!(answer.is_walked && answer.scanned == 0);
        assert!(answer.hits.iter().all(|hit| hit.1 > 0.0));
        let far: Vec<f32> = query.iter().map(|v| -v).collect();
        for vector in [query.as_slice(), &far] {
            let query = Query { vector, k: 61, ef: 61, exact_below: 0 };
            let mut best = Best::new(62);
            let accept = |row| world.arena.is_visible(row, world.seq);
            world.graph.graph().search(Vector::new(vector), 62, accept, &mut best);
            let hits = best.into_hits();
            let zeros = hits.iter().filter(|hit| hit.1 == 0.0).count();
            assert_eq!(zeros, 2, "zero rows are among the 62 nearest");
            assert_eq!(search(world.graph.graph(), query, world.view()).hits[60], (id(5), 0.0));
        }
    }
}
