//! Steps that move codes or compare them. Like convolutions, they are checked against the arena when made and split by
//! output rows between threads.

use std::ops::Range;

use super::{Arena, Kernels, PACK, View};

/// Copies a value and its surroundings as 16-bit numbers.
#[derive(Debug)]
pub struct Widen {
    kernels: Kernels,
    from: Range<usize>,
    to: usize,
}

impl Widen {
    /// `from` in words; `to` is where twice as many words go.
    pub fn new(kernels: Kernels, from: Range<usize>, to: usize, words: usize) -> Self {
        assert!(from.end <= words && to + 2 * from.len() <= words && to.is_multiple_of(2));
        assert!(to >= from.end || to + 2 * from.len() <= from.start);
        Self { kernels, from, to }
    }

    /// Words that it writes into.
    pub fn writes(&self) -> Range<usize> {
        self.to..self.to + 2 * self.from.len()
    }

    /// The `part`th of `parts`.
    pub fn run(&self, arena: &Arena, part: usize, parts: usize) {
        let range = share(self.from.len(), part, parts);
        // SAFETY: checked in `new`; parts are disjoint; the table was made on this machine.
        unsafe {
            let from = arena.words_at(self.from.start + range.start, range.len());
            let to = arena.words_mut(self.to + 2 * range.start, 2 * range.len());
            let (head, wide, _) = to.align_to_mut::<u64>();
            debug_assert!(head.is_empty() && wide.len() == from.len());
            (self.kernels.moves.widen)(from, wide);
        }
    }
}

/// The part of `len` things that falls to `part` of `parts`.
pub fn share(len: usize, part: usize, parts: usize) -> Range<usize> {
    len * part / parts..len * (part + 1) / parts
}

/// How a value becomes another of other size, plane by plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resize {
    /// Largest code of each block.
    MaxPool([usize; 3]),
    /// Each pixel, so many times along each axis. `[1, 1, 1]` copies.
    Repeat([usize; 3]),
}

/// Pools, repeats or copies planes.
#[derive(Debug)]
pub struct Move {
    kernels: Kernels,
    input: View,
    output: View,
    how: Resize,
}

impl Move {
    /// From one place to another.
    pub fn new(kernels: Kernels, input: View, output: View, how: Resize, words: usize) -> Self {
        output.check_against(input.span(), words);
        assert_eq!(input.planes, output.planes);
        for axis in 0..3 {
            match how {
                Resize::MaxPool(block) => assert_eq!(output.size[axis] * block[axis], input.size[axis]),
                Resize::Repeat(factor) => assert_eq!(output.size[axis], input.size[axis] * factor[axis]),
            }
        }
        Self { kernels, input, output, how }
    }

    /// Words that it writes into.
    pub fn writes(&self) -> Range<usize> {
        self.output.span()
    }

    /// Bytes of input and output.
    pub const fn bytes(&self) -> usize {
        PACK * (self.input.pixels() + self.output.pixels())
    }

    /// What it does.
    pub const fn how(&self) -> Resize {
        self.how
    }

    /// Some rows of the output.
    pub fn run(&self, arena: &Arena, rows: Range<usize>) {
        for plane in 0..self.output.planes {
            for row in rows.clone() {
                let (z, y) = (row / self.output.size[1], row % self.output.size[1]);
                // SAFETY: `new` checked that the views are in bounds and disjoint; rows differ between threads.
                let out = unsafe { arena.words_mut(self.output.row_at(plane, row), self.output.size[2]) };
                let source = |z: usize, y: usize| {
                    // SAFETY: as above.
                    unsafe { arena.words_at(self.input.row_at(plane, z * self.input.size[1] + y), self.input.size[2]) }
                };
                match self.how {
                    Resize::MaxPool(block) => self.pool(block, [z, y], &source, out),
                    Resize::Repeat(factor) => self.repeat(factor[2], source(z / factor[0], y / factor[1]), out),
                }
            }
        }
    }

    fn pool<'a>(
        &self,
        block: [usize; 3],
        [z, y]: [usize; 2],
        source: &impl Fn(usize, usize) -> &'a [u32],
        out: &mut [u32],
    ) {
        let (moves, flip) = (&self.kernels.moves, self.kernels.flip);
        for dz in 0..block[0] {
            let z = z * block[0] + dz;
            if block[1..] == [2, 2] {
                // SAFETY: holding the table proves that the CPU has its instructions.
                unsafe { (moves.max_2x2)(source(z, 2 * y), source(z, 2 * y + 1), flip, dz == 0, out) };
                continue;
            }
            for dy in 0..block[1] {
                let row = source(z, y * block[1] + dy);
                // SAFETY: holding the table proves that the CPU has its instructions.
                unsafe { (moves.max_blocks)(row, block[2], flip, dz == 0 && dy == 0, out) };
            }
        }
    }

    fn repeat(&self, factor: usize, row: &[u32], out: &mut [u32]) {
        match factor {
            1 => out.copy_from_slice(row),
            // SAFETY: holding the table proves that the CPU has its instructions.
            2 => unsafe { (self.kernels.moves.repeat_2)(row, out) },
            _ => row.iter().zip(out.chunks_exact_mut(factor)).for_each(|(&word, out)| out.fill(word)),
        }
    }
}

/// Channels to pixels, in the order of the contract's `PixelShuffle`.
#[derive(Debug)]
pub struct Shuffle {
    input: View,
    output: View,
    channels: usize,
    factor: usize,
}

impl Shuffle {
    /// `channels` of the output; `factor` along rows and columns.
    pub fn new(input: View, output: View, channels: usize, factor: usize, words: usize) -> Self {
        output.check_against(input.span(), words);
        assert!(input.planes * PACK >= channels * factor * factor && output.planes == channels.div_ceil(PACK));
        let [depth, height, width] = input.size;
        assert_eq!(output.size, [depth, height * factor, width * factor]);
        Self { input, output, channels, factor }
    }

    /// Words that it writes into.
    pub fn writes(&self) -> Range<usize> {
        self.output.span()
    }

    /// Bytes of input and output.
    pub const fn bytes(&self) -> usize {
        PACK * (self.input.pixels() + self.output.pixels())
    }

    /// Some rows of the output.
    pub fn run(&self, arena: &Arena, rows: Range<usize>) {
        let (factor, height) = (self.factor, self.output.size[1]);
        for (plane, row) in (0..self.output.planes).flat_map(|plane| rows.clone().map(move |row| (plane, row))) {
            // SAFETY: `new` checked that the views are in bounds and disjoint; rows differ between threads.
            let out = unsafe { arena.words_mut(self.output.row_at(plane, row), self.output.size[2]) };
            out.fill(0);
            let (source, p) = (row / height * self.input.size[1] + row % height / factor, row % height % factor);
            for (lane, q) in (0..PACK).flat_map(|lane| (0..factor).map(move |q| (lane, q))) {
                let channel = plane * PACK + lane;
                if channel >= self.channels {
                    continue;
                }
                let from = (channel * factor + p) * factor + q;
                // SAFETY: as above.
                let words = unsafe { arena.words_at(self.input.row_at(from / PACK, source), self.input.size[2]) };
                for (out, word) in out[q..].iter_mut().step_by(factor).zip(words) {
                    *out |= (word >> (8 * (from % PACK)) & 0xff) << (8 * lane);
                }
            }
        }
    }
}

/// Copies channels into other lanes.
#[derive(Debug)]
pub struct Pick {
    output: View,
    /// Per lane of the output.
    lanes: Vec<Option<Lane>>,
    zero: u8,
}

/// Where a channel lies.
#[derive(Clone, Copy, Debug)]
pub struct Lane {
    /// A value.
    pub view: View,
    /// Its plane.
    pub plane: usize,
    /// Byte of the plane's words.
    pub lane: usize,
}

impl Pick {
    /// `lanes` of the output, `None` for those that get the code `zero`.
    pub fn new(kernels: Kernels, lanes: Vec<Option<Lane>>, output: View, zero: i8, words: usize) -> Self {
        assert_eq!(lanes.len(), output.planes * PACK);
        for Lane { view, plane, lane } in lanes.iter().flatten() {
            output.check_against(view.span(), words);
            assert!(view.size == output.size && *plane < view.planes && *lane < PACK);
        }
        Self { output, lanes, zero: zero as u8 ^ kernels.flip }
    }

    /// Words that it writes into.
    pub fn writes(&self) -> Range<usize> {
        self.output.span()
    }

    /// Bytes of input and output.
    pub const fn bytes(&self) -> usize {
        2 * PACK * self.output.pixels()
    }

    /// Some rows.
    pub fn run(&self, arena: &Arena, rows: Range<usize>) {
        for (plane, lanes) in self.lanes.chunks_exact(PACK).enumerate() {
            for row in rows.clone() {
                // SAFETY: `new` checked that the views are in bounds and disjoint; rows differ between threads.
                let out = unsafe { arena.words_mut(self.output.row_at(plane, row), self.output.size[2]) };
                out.fill(0);
                for (to, from) in lanes.iter().enumerate() {
                    let Some(Lane { view, plane, lane }) = from else {
                        out.iter_mut().for_each(|out| *out |= u32::from(self.zero) << (8 * to));
                        continue;
                    };
                    // SAFETY: as above.
                    let words = unsafe { arena.words_at(view.row_at(*plane, row), out.len()) };
                    for (out, word) in out.iter_mut().zip(words) {
                        *out |= (word >> (8 * lane) & 0xff) << (8 * to);
                    }
                }
            }
        }
    }
}

/// Codes `[channels, d, h, w]` into planes.
#[derive(Debug)]
pub struct Intake {
    kernels: Kernels,
    output: View,
    channels: usize,
    unfold: bool,
}

impl Intake {
    /// Into `output`. Of one channel, `unfold` puts a pixel and its neighbours left and right into the first lanes of a word,
    /// real 0 (code 0) beyond the ends: a kernel of three columns then reads one word where it would read three.
    pub fn new(kernels: Kernels, output: View, channels: usize, unfold: bool, words: usize) -> Self {
        output.check_against(0..0, words);
        assert!(output.planes == channels.div_ceil(PACK) && (channels == 1 || !unfold));
        Self { kernels, output, channels, unfold }
    }

    /// Words that it writes into.
    pub fn writes(&self) -> Range<usize> {
        self.output.span()
    }

    /// Some rows.
    pub fn run(&self, arena: &Arena, codes: &[i8], rows: Range<usize>) {
        let width = self.output.size[2];
        assert_eq!(codes.len(), self.channels * self.output.rows() * width);
        let spread = |codes: &[i8], lane: usize, out: &mut [u32]| {
            // SAFETY: the table was made on this machine.
            unsafe { (self.kernels.moves.spread)(codes, lane, self.kernels.flip, out) };
        };
        for channel in 0..self.channels {
            for row in rows.clone() {
                let codes = &codes[(channel * self.output.rows() + row) * width..][..width];
                // SAFETY: `new` checked the view; rows differ between threads.
                let out = unsafe { arena.words_mut(self.output.row_at(channel / PACK, row), width) };
                spread(codes, channel % PACK, out);
                if self.unfold {
                    spread(&codes[..width - 1], 1, &mut out[1..]);
                    spread(&codes[1..], 2, &mut out[..width - 1]);
                }
            }
        }
    }
}
