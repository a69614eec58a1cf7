//! What stands around a value: real zeros, or the value mirrored.

use std::ops::Range;

use super::{Arena, Kernels, PACK, View};

/// Puts the byte of real 0 into everything around a value: what a convolution's padding sees.
#[derive(Debug)]
pub struct Fill {
    view: View,
    pads: [usize; 3],
    word: u32,
}

impl Fill {
    /// Fills the gaps of `view`, which leaves room for `pads`, with the code `zero`.
    pub fn new(kernels: Kernels, view: View, pads: [usize; 3], zero: i8, words: usize) -> Self {
        let before = before(&view, pads);
        assert!(before <= view.origin && view.origin + view.planes * view.plane <= words);
        assert!(view.row == view.size[2] + pads[2] && view.slab == (view.size[1] + pads[1]) * view.row);
        assert!(view.plane == (view.size[0] + pads[0]) * view.slab);
        Self { view, pads, word: zero_word(kernels, zero) }
    }

    /// Words that it writes into.
    pub fn writes(&self) -> Range<usize> {
        self.view.origin - before(&self.view, self.pads)..self.view.origin + self.view.planes * self.view.plane
    }

    /// All of it; cheap, so not split.
    pub fn run(&self, arena: &Arena) {
        let (view, [_, _, px]) = (&self.view, self.pads);
        let [d, h, w] = view.size;
        // SAFETY: `new` checked the ends; one thread fills before any reads.
        let fill = |at: usize, len: usize| unsafe { arena.words_mut(at, len) }.fill(self.word);
        let before = before(view, self.pads);
        fill(view.origin - before, before);
        for plane in 0..view.planes {
            for row in 0..d * h {
                fill(view.row_at(plane, row) + w, px);
                if row % h + 1 == h {
                    // Behind the last row of a slab; behind the last slab, all of the next.
                    let end = view.row_at(plane, row) + view.row;
                    let next = view.origin + plane * view.plane + (row / h + 1) * view.slab;
                    let to = if row + 1 == d * h { view.origin + (plane + 1) * view.plane } else { next };
                    fill(end, to - end);
                }
            }
        }
    }
}

/// Words from the first surrounding one to the first pixel.
fn before(view: &View, pads: [usize; 3]) -> usize {
    pads[0] * view.slab + pads[1] * view.row + pads[2]
}

/// The word of four times real 0.
fn zero_word(kernels: Kernels, zero: i8) -> u32 {
    u32::from_le_bytes([zero as u8 ^ kernels.flip; PACK])
}

/// Puts the byte of real 0 into a whole value: channels that nobody makes.
#[derive(Debug)]
pub struct Blank {
    view: View,
    word: u32,
}

impl Blank {
    /// Of `view`, with the code `zero`.
    pub fn new(kernels: Kernels, view: View, zero: i8, words: usize) -> Self {
        view.check_against(0..0, words);
        Self { view, word: zero_word(kernels, zero) }
    }

    /// Words that it writes into.
    pub fn writes(&self) -> Range<usize> {
        self.view.span()
    }

    /// Bytes written.
    pub const fn bytes(&self) -> usize {
        PACK * self.view.pixels()
    }

    /// Some rows.
    pub fn run(&self, arena: &Arena, rows: Range<usize>) {
        for (plane, row) in (0..self.view.planes).flat_map(|plane| rows.clone().map(move |row| (plane, row))) {
            // SAFETY: `new` checked the view; rows differ between threads.
            unsafe { arena.words_mut(self.view.row_at(plane, row), self.view.size[2]) }.fill(self.word);
        }
    }
}

/// Mirrors a value into the gaps around it, its edge repeated: `x1 x0 | x0 x1`. Every row has gaps of its own on both sides.
#[derive(Debug)]
pub struct Mirror {
    view: View,
    pads: [usize; 3],
}

impl Mirror {
    /// Fills the gaps of `view`, which leaves room for `pads` on both sides of each axis.
    pub fn new(view: View, pads: [usize; 3], words: usize) -> Self {
        let before = before(&view, pads);
        assert!(before <= view.origin && view.origin - before + view.planes * view.plane <= words);
        let whole: [usize; 3] = std::array::from_fn(|axis| view.size[axis] + 2 * pads[axis]);
        assert!(view.row == whole[2] && view.slab == whole[1] * view.row && view.plane == whole[0] * view.slab);
        Self { view, pads }
    }

    /// Planes, to split between threads.
    pub const fn planes(&self) -> usize {
        self.view.planes
    }

    /// Words that it writes into.
    pub fn writes(&self) -> Range<usize> {
        let first = self.view.origin - before(&self.view, self.pads);
        first..first + self.view.planes * self.view.plane
    }

    /// Some planes.
    pub fn run(&self, arena: &Arena, planes: Range<usize>) {
        let ([d, h, w], [pz, py, px]) = (self.view.size, self.pads);
        let View { row, slab, plane, .. } = self.view;
        for index in planes {
            // SAFETY: `new` checked the ends; planes differ between threads, and nobody reads them meanwhile.
            let words = unsafe { arena.words_mut(self.writes().start + index * plane, plane) };
            for line in (0..d).flat_map(|z| (0..h).map(move |y| (z + pz) * slab + (y + py) * row)) {
                let line = &mut words[line..][..row];
                for (at, from) in mirrored(w, px) {
                    line[at] = line[from];
                }
            }
            for (z, (at, from)) in (0..d).flat_map(|z| mirrored(h, py).map(move |pair| (z + pz, pair))) {
                let from = z * slab + from * row;
                words.copy_within(from..from + row, z * slab + at * row);
            }
            for (at, from) in mirrored(d, pz) {
                words.copy_within(from * slab..(from + 1) * slab, at * slab);
            }
        }
    }
}

/// Of `n` samples with `pad` around them: each position around, and the one that it mirrors.
fn mirrored(n: usize, pad: usize) -> impl Iterator<Item = (usize, usize)> {
    let reflect = move |at: usize| {
        let period = 2 * n as isize;
        let i = (at as isize - pad as isize).rem_euclid(period);
        (if i < n as isize { i } else { period - 1 - i }) as usize + pad
    };
    (0..pad).chain(pad + n..2 * pad + n).map(move |at| (at, reflect(at)))
}

#[cfg(test)]
mod tests {
    use super::mirrored;

    #[test]
    fn a_mirror_repeats_the_edge_and_folds_more_than_once() {
        let pairs: Vec<_> = mirrored(3, 2).collect();
        assert_eq!(pairs, [(0, 3), (1, 2), (5, 4), (6, 3)]);
        let narrow: Vec<_> = mirrored(1, 3).map(|(_, from)| from).collect();
        assert_eq!(narrow, [3; 6]);
        // Two samples a b: ...a b b a [a b] b a a b...
        let from: Vec<_> = mirrored(2, 4).map(|(_, from)| from - 4).collect();
        assert_eq!(from, [0, 1, 1, 0, 1, 0, 0, 1]);
    }
}
