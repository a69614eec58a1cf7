//! Chooses the scales of what is interpolated, so that the contract's [`Interpolation`] holds.
//!
//! The scale of an interpolated value is that of its input times a number just above 1, up to a few units in the last place.
//! Whichever of the two is settled first, the other follows it at once, within the little that convolutions ask of it; where
//! that is not enough, the first moves on.

use contract::{
    interpolate::Interpolation,
    net::{Layer, Op},
};

use crate::{
    factors::{Neighbours, settle_scale},
    fold::Folded,
};

/// A scale that follows another moves by at most this many units in the last place.
const MAX_MOVES: usize = 64;

/// Groups of an interpolated value and its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tie {
    /// Index of the layer.
    pub layer: usize,
    /// Group of what it reads.
    pub from: usize,
    /// Group of what it makes.
    pub to: usize,
    factor: [usize; 3],
    size: [usize; 3],
}

impl Tie {
    /// Scale of the result over that of the input.
    fn ratio(&self) -> f32 {
        Interpolation::scale(self.factor, 1.)
    }

    /// Whether both scales are settled and no error can change a code.
    pub fn holds(&self, settled: &[(usize, f32)]) -> bool {
        let scales = [self.from, self.to].map(|group| find(settled, group).unwrap_or(f32::NAN));
        Interpolation::new(self.factor, self.size, scales[0], scales[1]).is_some()
    }

    /// The group that follows the one that is settled, and its scale; `None` if both are or neither.
    fn next(&self, settled: &[(usize, f32)]) -> Option<(&Self, usize, f32)> {
        match (find(settled, self.from), find(settled, self.to)) {
            (Some(scale), None) => Some((self, self.to, Interpolation::scale(self.factor, scale))),
            (None, Some(scale)) => Some((self, self.from, scale / self.ratio())),
            _ => None,
        }
    }
}

fn find(settled: &[(usize, f32)], group: usize) -> Option<f32> {
    settled.iter().find(|(other, _)| *other == group).map(|(_, scale)| *scale)
}

/// One per interpolation, in the order of the layers.
pub fn ties(folded: &Folded, group_of: &[usize]) -> Vec<Tie> {
    let layers = folded.spec.net.layers.iter().enumerate();
    let tie = |(index, layer): (usize, &Layer)| match layer.op {
        Op::Interpolate { factor } => {
            let input = layer.inputs[0];
            let (from, to) = (group_of[input], group_of[index + 1]);
            Some(Tie { layer: index, from, to, factor, size: folded.shapes[input].size })
        }
        _ => None,
    };
    layers.filter_map(tie).collect()
}

/// Lets tied scales cover one another's ranges.
pub fn widen(ties: &[Tie], wanted: &mut [f32]) {
    // A chain of ties is as long as there are ties.
    for tie in ties.iter().flat_map(|_| ties) {
        wanted[tie.to] = wanted[tie.to].max(wanted[tie.from] * tie.ratio());
        wanted[tie.from] = wanted[tie.from].max(wanted[tie.to] / tie.ratio());
    }
}

/// Settles all that is tied to what is settled; `false` if a scale has no room for what convolutions ask of it.
pub fn follow(
    ties: &[Tie],
    settled: &mut Vec<(usize, f32)>,
    neighbours: impl Fn(usize, &[(usize, f32)]) -> Neighbours,
) -> bool {
    while let Some((tie, group, scale)) = ties.iter().find_map(|tie| tie.next(settled)) {
        let Some(scale) = settle_scale(scale, &neighbours(group, settled), MAX_MOVES) else { return false };
        settled.push((group, scale));
        if !tie.holds(settled) {
            return false;
        }
    }
    true
}

/// `settled` with the scale of a group nearest above `scale`, within `max_moves` units in the last place, and all that is
/// tied to it.
pub fn settle(
    ties: &[Tie],
    group: usize,
    scale: f32,
    max_moves: usize,
    settled: &[(usize, f32)],
    neighbours: impl Fn(usize, &[(usize, f32)]) -> Neighbours,
) -> Option<Vec<(usize, f32)>> {
    let meet = neighbours(group, settled);
    let last = f32::from_bits(scale.to_bits() + max_moves as u32);
    let mut from = scale;
    loop {
        let left = last.to_bits().checked_sub(from.to_bits())?;
        let found = settle_scale(from, &meet, left as usize)?;
        let mut all = [settled, &[(group, found)]].concat();
        if follow(ties, &mut all, &neighbours) {
            return Some(all);
        }
        from = found.next_up();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    fn tie(from: usize, to: usize) -> Tie {
        Tie { layer: 0, from, to, factor: [1, 2, 2], size: [1, 40, 40] }
    }

    /// A chain of two, between two convolutions, settled from its start, its middle and its end.
    #[test]
    fn settled_ties_hold_and_cover_their_ranges() {
        let mut rng = ChaCha8Rng::seed_from_u64(6);
        let ties = [tie(0, 1), tie(1, 2)];
        for round in 0..60 {
            let mut wanted: Vec<f32> = (0..3).map(|_| rng.random_range(0.01f32..0.1)).collect();
            let least = wanted.clone();
            widen(&ties, &mut wanted);
            let image = rng.random_range(0.001f32..0.1);
            let last = settle_scale(rng.random_range(0.001f32..0.1), &Neighbours::default(), 1 << 16).unwrap();
            let meet = |group: usize, _: &[(usize, f32)]| Neighbours {
                inputs: if group == 0 { vec![image] } else { vec![] },
                outputs: if group == 2 { vec![last] } else { vec![] },
            };
            let first = round % 3;
            let settled = settle(&ties, first, wanted[first], 1 << 16, &[], meet).unwrap();
            assert_eq!(settled.len(), 3);
            assert!(ties.iter().all(|tie| tie.holds(&settled)));
            for (group, scale) in settled {
                // To a few units in the last place.
                assert!(scale > least[group] * (1. - 1e-6), "{group}: {scale} does not cover {}", least[group]);
            }
        }
    }

    #[test]
    fn ties_that_contradict_do_not_hold() {
        let settled = [(0, 0.1), (1, 0.1)];
        assert!(!tie(0, 1).holds(&settled));
        assert!(!tie(0, 0).holds(&settled));
        assert!(!tie(0, 2).holds(&settled));
    }
}
