//! A whole query on the caller's thread: the graph for the rows that are linked, an exact scan for
//! those that are not yet, one ranking for both.

use crate::ids::RowId;
use std::{cmp::Ordering, collections::BinaryHeap};

use tala_core::IntentId;

use super::{
    arena::Arena,
    graph::Graph,
    metric::{Cosine, Metric},
};
use crate::distance::Vector;

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Query<'a> {
    /// Finite, of the arena's dimension.
    pub(crate) vector: &'a [f32],
    /// How many answers.
    pub(crate) k: usize,
    /// Width of the beam; at least `k` is used.
    pub(crate) ef: usize,
    /// With fewer live rows than this, every row is looked at.
    pub(crate) exact_below: usize,
}

/// The state that a query is answered from. Load the fields in their order, each with Acquire: a
/// row that the builder passed over as dead is then not visible at the snapshot, and every row that
/// is visible at the snapshot is below `rows_end`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View {
    /// Rows below had their turn in the graph; [`super::link::GraphWriter::next_row`].
    pub(crate) linked: RowId,
    /// The sequence number up to which the query sees.
    pub(crate) snapshot: u64,
    /// Number of rows; [`Arena::len`].
    pub(crate) rows_end: RowId,
}

/// The answer, and what it took.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Answer {
    /// Best first, ties by id, each id once.
    pub(crate) hits: Vec<(IntentId, f32)>,
    /// Whether the graph was walked.
    pub(crate) is_walked: bool,
    /// Nodes of the graph whose distance was computed.
    pub(crate) visited: usize,
    /// Rows compared outside the graph.
    pub(crate) scanned: usize,
}

/// The `k` rows most similar to the query, as `(id, cosine similarity)`.
pub(crate) fn search(graph: &Graph<Cosine>, query: Query<'_>, view: View) -> Answer {
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
pub(crate) fn nearest<M: Metric>(graph: &Graph<M>, query: Query<'_>, view: View) -> Answer {
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
        let accept = |row: RowId| row < view.linked && graph.arena().is_visible(row, view.snapshot);
        let walk = graph.search(vector, k, ef, accept);
        answer.is_walked = true;
        answer.visited = walk.visited;
        for (row, _) in walk.rows {
            best.offer_row::<M>(graph.arena(), vector, row);
        }
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

/// Offers every visible row from `from` to the end of the view, and returns their number.
fn scan<M: Metric>(
    arena: &Arena,
    vector: Vector<'_>,
    view: View,
    from: RowId,
    best: &mut Best,
) -> usize {
    let mut scanned = 0;
    for row in (from.0..view.rows_end.0.min(arena.len())).map(RowId) {
        if arena.is_visible(row, view.snapshot) {
            best.offer_row::<M>(arena, vector, row);
            scanned += 1;
        }
    }
    scanned
}

/// The `k` best hits so far.
pub(crate) struct Best {
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
    pub(crate) fn new(k: usize) -> Self {
        Self { k, heap: BinaryHeap::new() }
    }

    fn len(&self) -> usize {
        self.heap.len()
    }

    /// Keeps the hit if it is among the best.
    pub(crate) fn offer(&mut self, id: IntentId, cost: f32) {
        let hit = Hit { cost, id };
        if self.heap.len() < self.k {
            self.heap.push(hit);
        } else if let Some(mut worst) = self.heap.peek_mut()
            && hit < *worst
        {
            *worst = hit;
        }
    }

    fn offer_row<M: Metric>(&mut self, arena: &Arena, vector: Vector<'_>, row: RowId) {
        if let (Some(other), Some(id)) = (arena.vector(row), arena.id(row)) {
            self.offer(id, M::cost(vector, other));
        }
    }

    /// The hits, best first.
    pub(crate) fn into_hits(self) -> Vec<(IntentId, f32)> {
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
