//! Chooses the scales of what a residual sum reads and writes, so that the contract's [`Sum`] holds.
//!
//! Scales that sums tie together, directly or over further sums, become whole multiples of one step; those that a sum
//! writes become odd ones, up to [`Sum::MAX_DENOMINATOR`]. Then every ratio of a sum is a fraction with a small odd denominator,
//! and no engine's way of computing it can change a code. A scale only grows, by half a part in 63 on average where the
//! largest is, and the room around ties leaves each some units in the last place for what convolutions ask of it.

use contract::quant::Sum;

use crate::factors::{Neighbours, settle_scale};

/// A scale moves by at most this many units in the last place: less than [`Sum`] forgives with all ratios at their largest.
const MAX_MOVES: usize = 16;
/// Steps that are tried, each a ten-thousandth larger than the last.
const MAX_STEPS: usize = 2000;

/// Groups of the summands and of the sum.
pub type Tied = [usize; 3];

/// Sums by what they tie together, each list in the given order: no group occurs in two of them.
pub fn components(sums: &[Tied]) -> Vec<Vec<Tied>> {
    let mut components: Vec<Vec<Tied>> = vec![];
    for &sum in sums {
        let touches = |other: &Vec<Tied>| other.iter().flatten().any(|group| sum.contains(group));
        let (mut touched, rest): (Vec<_>, Vec<_>) = components.into_iter().partition(touches);
        touched.push(vec![sum]);
        components = rest;
        components.push(touched.concat());
    }
    for component in &mut components {
        component.sort_by_key(|sum| sums.iter().position(|other| other == sum));
    }
    components
}

/// Scales for the groups of one component, in `groups`' order and at least as large as `scales[group]`. `neighbours` tells
/// which settled scales a group meets in convolutions, given the component's scales so far.
pub fn settle(
    component: &[Tied],
    groups: &[usize],
    scales: &[f32],
    neighbours: impl Fn(usize, &[(usize, f32)]) -> Neighbours,
) -> Option<Vec<(usize, f32)>> {
    let wanted = wanted(component, scales);
    let written = |group: usize| component.iter().any(|sum| sum[2] == group);
    let largest = groups.iter().filter(|&&group| written(group)).map(|&group| wanted[group]).fold(0f32, f32::max);
    let (mut step, largest_multiple) = (largest / Sum::MAX_DENOMINATOR as f32, Sum::MAX_DENOMINATOR as f32);
    for _ in 0..MAX_STEPS {
        step *= 1.0001;
        let multiple = |group: usize| {
            let multiple = (wanted[group] / step).ceil().max(1.);
            // Past the largest only where a sum reads what no sum writes.
            if written(group) { (multiple as u32 | 1) as f32 } else { multiple }
        };
        if groups.iter().any(|&group| written(group) && multiple(group) > largest_multiple) {
            continue;
        }
        let mut settled = vec![];
        for &group in groups {
            let Some(scale) = settle_scale(multiple(group) * step, &neighbours(group, &settled), MAX_MOVES) else {
                break;
            };
            settled.push((group, scale));
        }
        if settled.len() == groups.len() && component.iter().all(|sum| holds(*sum, &settled)) {
            return Some(settled);
        }
    }
    None
}

/// The smallest scales that cover the ranges and keep the ratios of every sum below the contract's limit.
fn wanted(component: &[Tied], scales: &[f32]) -> Vec<f32> {
    let mut wanted = scales.to_vec();
    for &[a, b, y] in component {
        // One below the limit, for what rounding to multiples adds.
        wanted[y] = wanted[y].max((wanted[a] + wanted[b]) / (Sum::MAX_RATIO as f32 - 1.));
    }
    wanted
}

fn holds(sum: Tied, settled: &[(usize, f32)]) -> bool {
    let scale = |group: usize| settled.iter().find(|(other, _)| *other == group).map_or(f32::NAN, |(_, scale)| *scale);
    Sum::new(scale(sum[0]), scale(sum[1]), scale(sum[2])).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn components_share_no_group() {
        let sums = [[0, 1, 2], [3, 4, 5], [2, 6, 7], [8, 8, 9], [7, 5, 10]];
        let found = components(&sums);
        assert_eq!(found, [vec![[8, 8, 9]], vec![[0, 1, 2], [3, 4, 5], [2, 6, 7], [7, 5, 10]]]);
    }

    /// A single sum and a chain of three, with ranges that differ up to tenfold.
    #[test]
    fn settled_sums_hold_and_cover_their_ranges() {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        for component in [vec![[0, 1, 2]], vec![[0, 1, 2], [2, 3, 4], [4, 5, 6]]] {
            let groups: Vec<usize> = (0..=2 * component.len()).collect();
            for _ in 0..100 {
                let scales: Vec<f32> = groups.iter().map(|_| rng.random_range(0.01f32..0.1)).collect();
                let image = rng.random_range(0.001f32..0.1);
                let meet = |group: usize, _: &[(usize, f32)]| Neighbours {
                    inputs: if group % 2 == 1 { vec![image] } else { vec![] },
                    outputs: vec![],
                };
                let settled = settle(&component, &groups, &scales, meet).unwrap();
                for &(group, scale) in &settled {
                    assert!(scale >= scales[group], "{group}: {scale} does not cover {}", scales[group]);
                }
                assert!(component.iter().all(|sum| holds(*sum, &settled)));
                let (group, largest) = settled.iter().copied().max_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
                assert!(largest < 1.25 * scales[group].max(0.1 * 2. / 7.), "{largest} for {}", scales[group]);
            }
        }
    }
}
