//! Where each buffer lies in the arena: buffers that live at the same time never share a word, others may.

use std::ops::RangeInclusive;

use crate::kernels::WORDS_PER_LINE;

/// Memory that some steps need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Buffer {
    /// Size.
    pub words: usize,
    /// From the step that first writes it to the one that last reads it.
    pub life: RangeInclusive<usize>,
}

impl Buffer {
    fn meets(&self, other: &Self) -> bool {
        self.life.start() <= other.life.end() && other.life.start() <= self.life.end()
    }
}

/// First word of each buffer, and the words of the arena. The largest buffers are placed first, each at the lowest place
/// that no buffer of its time takes.
pub fn place(buffers: &[Buffer]) -> (Vec<usize>, usize) {
    let mut order: Vec<usize> = (0..buffers.len()).collect();
    order.sort_by_key(|&index| std::cmp::Reverse(buffers[index].words));
    let mut origins = vec![0; buffers.len()];
    let mut placed: Vec<usize> = vec![];
    for index in order {
        let mut taken: Vec<(usize, usize)> = placed
            .iter()
            .filter(|&&other| buffers[other].meets(&buffers[index]))
            .map(|&other| (origins[other], origins[other] + buffers[other].words))
            .collect();
        taken.sort_unstable();
        let mut origin = 0usize;
        for (start, end) in taken {
            if origin + buffers[index].words <= start {
                break;
            }
            origin = origin.max(end.next_multiple_of(WORDS_PER_LINE));
        }
        origins[index] = origin;
        placed.push(index);
    }
    let words = (0..buffers.len()).map(|index| origins[index] + buffers[index].words).max().unwrap_or(0);
    (origins, words.next_multiple_of(WORDS_PER_LINE))
}

/// The most words that live at one time: no plan needs less.
pub fn most_alive(buffers: &[Buffer]) -> usize {
    let alive = |step| buffers.iter().filter(|buffer| buffer.life.contains(&step)).map(|buffer| buffer.words).sum();
    let last = buffers.iter().map(|buffer| *buffer.life.end()).max().unwrap_or(0);
    (0..=last).map(alive).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn buffers_of_one_time_never_overlap(sizes in prop::collection::vec((1usize..2000, 0usize..30, 0usize..6), 1..40)) {
            let buffers: Vec<Buffer> =
                sizes.iter().map(|&(words, start, length)| Buffer { words, life: start..=start + length }).collect();
            let (origins, words) = place(&buffers);
            for (i, a) in buffers.iter().enumerate() {
                prop_assert!(origins[i] % WORDS_PER_LINE == 0 && origins[i] + a.words <= words);
                for (j, b) in buffers.iter().enumerate().skip(i + 1).filter(|(_, b)| a.meets(b)) {
                    let apart = origins[i] + a.words <= origins[j] || origins[j] + b.words <= origins[i];
                    prop_assert!(apart, "{i} and {j}");
                }
            }
            prop_assert!(words >= most_alive(&buffers));
        }
    }

    #[test]
    fn a_chain_needs_two_neighbours_at_a_time() {
        let buffers: Vec<Buffer> = (0..8).map(|step| Buffer { words: 64, life: step..=step + 1 }).collect();
        assert_eq!(most_alive(&buffers), 128);
        assert_eq!(place(&buffers).1, 128);
    }
}
