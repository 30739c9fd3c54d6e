//! The HNSW graph, planning side: what the links of new rows will be, found by reading alone.

use std::ops::Range;

use super::{
    arena::Arena,
    graph::Seen,
    link::{GraphWriter, State, level_of},
    metric::Metric,
    point::{Coded, Ruler, distance_of},
    trust::Doubt,
    walk::{Key, Scratch, Trail, with_scratch},
};
use crate::{
    ids::RowId,
    kernels::{Probe, dots4},
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
        in_parallel, yield_to_others,
    },
};

/// With how many of the nearest rows met a new one is compared to see whether it is a twin: twins
/// are nearest, but for rounding, and for rows that codes cannot tell from them.
const TWIN_CHECKS: usize = 8;

/// What the links of a row will be, found by reading alone.
pub struct Draft {
    pub(super) row: u32,
    pub(super) turn: Turn,
    /// What does not tell the row's neighbors apart, where that was looked at.
    pub(super) doubt: Option<Doubt>,
}

pub(super) enum Turn {
    /// Dead when its turn came.
    Dead,
    /// As far from one row as from any other.
    Placeless,
    /// A twin of this row: a node, or an earlier row of the batch.
    Twin(u32),
    /// A new node with these neighbors on each level, chosen among `near` on the lowest.
    Node { lists: Vec<Vec<Key>>, near: Vec<Key> },
}

impl<M: Metric> GraphWriter<M> {
    /// Finds out, on so many threads, what the links of the next `rows` will be: rows that had their
    /// turn, or that are not published, give nothing; a row that died at or before `horizon` is
    /// never linked. Nothing is changed.
    ///
    /// All rows of the batch are searched for in the graph as it is now, and compared with those of
    /// the batch that come before them, so the drafts do not depend on the number of threads
    /// (ParlayANN, Manohar and others 2024, does the same with larger batches). They are settled
    /// and applied one after the other before anything else is planned.
    ///
    /// `horizon` is a sequence number that was already visible to readers before this call: no
    /// search that begins later has an older snapshot. A search that began earlier and still sees a
    /// row that died since may miss it, as it may miss any row of the graph.
    pub fn draft(&mut self, rows: Range<RowId>, horizon: u64, threads: usize) -> Vec<Draft> {
        self.count_deaths(horizon);
        let start = rows.start.0.max(self.next_row().0);
        let end = rows.end.0.min(self.graph.arena.len());
        let this = &*self;
        parallel_map(start..end, threads, |row| {
            yield_to_others();
            this.draft_row(row, start)
        })
    }

    /// Drafts one row of a batch that begins with `first`.
    pub(super) fn draft_row(&self, row: u32, first: u32) -> Draft {
        let graph = &*self.graph;
        let draft = |turn| Draft { row, turn, doubt: None };
        let Some(vector) = graph.arena.vector(RowId(row)) else { return draft(Turn::Dead) };
        if graph.arena.is_dead(RowId(row), self.horizon) {
            return draft(Turn::Dead);
        }
        if M::is_placeless(vector) {
            return draft(Turn::Placeless);
        }
        let level = level_of(row, self.params());
        with_scratch(|scratch| {
            let Scratch { trail, probe, chosen, .. } = scratch;
            let Some(ruler) = graph.ruler_at(row, probe) else { return draft(Turn::Dead) };
            let mut seen = Seen::default();
            let mut candidates: Vec<Vec<Key>> = vec![Vec::new(); level + 1];
            if let (Some(top), Some(nearest)) =
                (graph.entry(), graph.descend(&ruler, level, trail, &mut seen))
            {
                let mut entries = vec![nearest];
                for (level, found) in candidates.iter_mut().enumerate().rev() {
                    if level > top.level {
                        continue;
                    }
                    *found = self.candidates(&ruler, trail, &entries, level, &mut seen);
                    entries =
                        if found.is_empty() { Vec::from_iter(seen.nearest) } else { found.clone() };
                }
            }
            self.add_from_batch(first..row, &ruler, trail, &mut candidates);
            let lowest = candidates.first().map_or(&[][..], Vec::as_slice);
            // The nearest of all may be dead, and a twin all the same.
            let nearest = seen.nearest.and_then(|nearest| ruler.key(nearest.row()));
            let is_near = |key: &Key| lowest.first().is_none_or(|first| key <= first);
            let met = nearest.filter(is_near).into_iter().chain(lowest.iter().copied());
            if let Some(twin) = self.twin(row, met) {
                return draft(Turn::Twin(twin));
            }
            let doubt = self.doubt(row, &ruler, lowest);
            if let Some(lowest) = candidates.first_mut()
                && lowest.is_empty()
            {
                // Nothing alive to link to: a dead node makes the new one reachable.
                lowest.extend(nearest);
            }
            let lists = candidates
                .iter()
                .map(|candidates| self.select(candidates, self.params().m, chosen))
                .collect();
            let near = candidates.swap_remove(0);
            Draft { row, turn: Turn::Node { lists, near }, doubt }
        })
    }

    /// Adds those of the batch's earlier `rows` that will be nodes, or twins of nodes.
    fn add_from_batch(
        &self,
        rows: Range<u32>,
        ruler: &Ruler<'_, M>,
        trail: &mut Trail,
        candidates: &mut [Vec<Key>],
    ) {
        if rows.is_empty() {
            return;
        }
        let arena = &self.graph.arena;
        trail.rows.clear();
        trail.rows.extend(rows.filter(|row| {
            let vector = arena.vector(RowId(*row));
            vector.is_some_and(|vector| !M::is_placeless(vector))
                && !arena.is_dead(RowId(*row), self.horizon)
        }));
        trail.keys.clear();
        ruler.keys(&trail.rows, &mut trail.keys);
        for (level, found) in candidates.iter_mut().enumerate() {
            let on_level = |key: &&Key| level == 0 || level_of(key.row(), self.params()) >= level;
            found.extend(trail.keys.iter().filter(on_level));
            found.sort_unstable();
            found.truncate(self.params().ef_construction);
        }
    }

    /// The live nodes nearest to the ruler's point on `level`, nearest first.
    pub(super) fn candidates(
        &self,
        ruler: &Ruler<'_, M>,
        trail: &mut Trail,
        entries: &[Key],
        level: usize,
        seen: &mut Seen,
    ) -> Vec<Key> {
        let accept = |node| self.is_alive(node);
        let ef = self.params().ef_construction;
        self.graph.walk_level(trail, ruler, entries, level, ef, accept, seen);
        let mut found: Vec<Key> = trail.beam.found().collect();
        ruler.refine(&mut trail.rows, &mut found);
        found
    }

    /// The first of the rows met, nearest first, that `row` is a twin of.
    fn twin(&self, row: u32, met: impl Iterator<Item = Key>) -> Option<u32> {
        let arena = &self.graph.arena;
        let vector = arena.vector(RowId(row))?;
        let is_coded = self.graph.sight().detail().is_some();
        let (scale, error) = arena.coding(row).unwrap_or_default();
        let coded = Coded { scale, error };
        met.take(TWIN_CHECKS)
            .take_while(|key| {
                // Codes of twins are nearly the same, or quite.
                let slack = || {
                    2.0 * coded.bound(arena.coding(key.row()).unwrap_or_default().1, arena.dim())
                };
                M::are_twins(key.distance()) || is_coded && key.distance() <= slack()
            })
            .map(Key::row)
            .filter(|other| self.state(*other) != State::Condemned)
            .find(|other| {
                let other = arena.vector(RowId(*other));
                other.is_some_and(|other| M::are_twins(M::distance(vector, other)))
            })
    }

    /// Algorithm 4: of `candidates`, nearest first, keeps each one that is as near to the base as to
    /// any kept before it, or nearer; `max` at most. Links then lead in different directions, and not all
    /// into the densest one. Slots left over stay empty: filling them from the
    /// rejected candidates lengthened walks by a tenth on 20,000 real embeddings, and recall was
    /// that of a wider beam.
    pub(super) fn select(
        &self,
        candidates: &[Key],
        max: usize,
        chosen: &mut Vec<Probe>,
    ) -> Vec<Key> {
        let arena = &self.graph.arena;
        if self.graph.sight().detail().is_some() {
            return select_by_codes(arena, candidates, max, chosen);
        }
        let mut kept: Vec<Key> = Vec::with_capacity(max);
        for candidate in candidates {
            if kept.len() == max {
                break;
            }
            let Some(vector) = arena.vector(RowId(candidate.row())) else { continue };
            let mut others = kept.iter().filter_map(|key| arena.vector(RowId(key.row())));
            if others.all(|other| candidate.distance() <= M::distance(vector, other)) {
                kept.push(*candidate);
            }
        }
        kept
    }
}

/// Candidates that are compared at a time: as many as a list is chosen from when it is pruned.
const RIVALS: usize = 40;

/// A candidate that is as near to the base as to any that was kept, so far.
#[derive(Clone, Copy)]
struct Rival<'a> {
    key: Key,
    code: &'a [u8],
    scale: f32,
}

/// [`GraphWriter::select`] by whole codes. Whoever is kept is held against all that are left, four at
/// a time: so a probe is made of those that are kept, and not of every candidate.
fn select_by_codes(
    arena: &Arena,
    candidates: &[Key],
    max: usize,
    chosen: &mut Vec<Probe>,
) -> Vec<Key> {
    let mut kept: Vec<Key> = Vec::with_capacity(max);
    let mut rivals: Vec<Rival<'_>> = Vec::with_capacity(RIVALS);
    let mut scales: Vec<f32> = Vec::with_capacity(max);
    for candidates in candidates.chunks(RIVALS) {
        rivals.clear();
        rivals.extend(candidates.iter().filter_map(|key| {
            let (code, scale) = (arena.code(key.row())?, arena.scale(key.row())?);
            Some(Rival { key: *key, code, scale })
        }));
        for (probe, scale) in chosen.iter().zip(&scales) {
            drop_nearer(&mut rivals, 0, probe, *scale);
        }
        let mut next = 0;
        while let Some(rival) = rivals.get(next).copied() {
            if kept.len() == max {
                return kept;
            }
            if chosen.len() == kept.len() {
                chosen.push(Probe::new());
            }
            next += 1;
            if let Some(probe) = chosen.get_mut(kept.len())
                && kept.len() + 1 < max
            {
                probe.set_code(rival.code);
                drop_nearer(&mut rivals, next, probe, rival.scale);
            }
            kept.push(rival.key);
            scales.push(rival.scale);
        }
    }
    kept
}

/// Of the rivals from `first` on drops those that are nearer to `probe` than to the base.
fn drop_nearer(rivals: &mut Vec<Rival<'_>>, first: usize, probe: &Probe, scale: f32) {
    let first = first.min(rivals.len());
    let (_, rest) = rivals.split_at_mut(first);
    let mut left = 0;
    let mut next = 0;
    while next < rest.len() {
        // At the end some are looked at twice.
        let four: [Rival<'_>; 4] =
            std::array::from_fn(|lane| rest[(next + lane).min(rest.len() - 1)]);
        let dots = dots4(probe, four.map(|rival| rival.code));
        for (rival, dot) in four.into_iter().zip(dots).take(rest.len() - next) {
            rest[left] = rival;
            // Without a branch: the next one overwrites who is dropped.
            let is_nearer = distance_of(dot as f32, scale, rival.scale) < rival.key.distance();
            left += usize::from(!is_nearer);
        }
        next += 4;
    }
    rivals.truncate(first + left);
}

/// `draft` of each row, on so many threads, in the order of the rows.
fn parallel_map(
    rows: Range<u32>,
    threads: usize,
    draft: impl Fn(u32) -> Draft + Sync,
) -> Vec<Draft> {
    if threads <= 1 || rows.len() <= 1 {
        return rows.map(draft).collect();
    }
    let next = AtomicU32::new(rows.start);
    let drafts = Mutex::new(Vec::with_capacity(rows.len()));
    in_parallel(threads.min(rows.len()), || {
        loop {
            // Only the number is shared; what is read was there before the threads began.
            let row = next.fetch_add(1, Ordering::Relaxed);
            if row >= rows.end {
                break;
            }
            let draft = draft(row);
            drafts.lock().push(draft);
        }
    });
    let mut drafts = std::mem::take(&mut *drafts.lock());
    drafts.sort_unstable_by_key(|draft| draft.row);
    drafts
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::{
        index::{
            metric::Cosine,
            testing::{PARAMS, Random, World},
        },
        kernels::dot,
    };

    /// Algorithm 4 word by word.
    fn one_by_one(arena: &Arena, candidates: &[Key], max: usize) -> Vec<Key> {
        let mut probe = Probe::new();
        let mut kept: Vec<Key> = Vec::new();
        for candidate in candidates {
            probe.set_code(arena.code(candidate.row()).unwrap());
            let scale = arena.scale(candidate.row()).unwrap();
            let is_nearest = kept.iter().all(|other| {
                let product = dot(&probe, arena.code(other.row()).unwrap()) as f32;
                let other_scale = arena.scale(other.row()).unwrap();
                candidate.distance() <= distance_of(product, scale, other_scale)
            });
            if is_nearest && kept.len() < max {
                kept.push(*candidate);
            }
        }
        kept
    }

    /// Any number of candidates, so that the last ones fill a pass of four or not, and a round of
    /// [`RIVALS`] or not.
    #[test]
    fn choosing_four_at_a_time_chooses_the_same() {
        let mut random = Random::new(41);
        let mut world = World::<Cosine>::new(140, PARAMS);
        for (vector, number) in random.clustered(220, 140, 9).iter().zip(0..) {
            world.push(vector, number, None);
        }
        let mut chosen = Vec::new();
        let mut lengths = std::collections::HashSet::new();
        for base in 0..220 {
            let count = random.below(220);
            let rows: Vec<u32> = (0..count as u32).filter(|row| *row != base).collect();
            let mut probe = Probe::new();
            let mut candidates = Vec::new();
            world.graph.graph().ruler_at(base, &mut probe).unwrap().keys(&rows, &mut candidates);
            candidates.sort_unstable();
            for max in [1, 2, 5, 16, 33] {
                let kept = select_by_codes(&world.arena, &candidates, max, &mut chosen);
                assert_eq!(kept, one_by_one(&world.arena, &candidates, max), "{max} of {count}");
                lengths.insert(kept.len());
            }
        }
        assert!(lengths.len() > 8, "all lists were alike: {lengths:?}");
    }
}
