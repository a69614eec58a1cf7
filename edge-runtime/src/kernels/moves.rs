//! Steps that move codes or compare them. Like convolutions, they are checked against the arena when made and split by
//! output rows between threads.

use std::ops::Range;

use contract::quant::Sum;

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
        Self { view, pads, word: u32::from_le_bytes([zero as u8 ^ kernels.flip; PACK]) }
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

/// Sums of two values of other scales, per modality, by the contract's rule.
#[derive(Debug)]
pub struct Add {
    kernels: Kernels,
    inputs: [View; 2],
    output: View,
    tables: Vec<SumTable>,
}

/// `factors[0] * a + factors[1] * b + constant` of codes plus 128 is the sum's code plus 128, before rounding.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SumTable {
    /// One per input.
    pub factors: [f32; 2],
    /// Of the zero points.
    pub constant: f32,
}

impl Add {
    /// `zeros` of both inputs and of the output; one sum per modality.
    pub fn new(kernels: Kernels, inputs: [View; 2], output: View, sums: &[Sum], zeros: [i8; 3], words: usize) -> Self {
        for input in inputs {
            output.check_against(input.span(), words);
            assert!(input.planes == output.planes && input.size == output.size);
        }
        let [a, b, y] = zeros.map(|zero| f32::from(zero) + 128.);
        let table = |sum: &Sum| {
            let factors = sum.ratios();
            SumTable { factors, constant: y - (factors[0] * a + factors[1] * b) }
        };
        Self { kernels, inputs, output, tables: sums.iter().map(table).collect() }
    }

    /// Words that it writes into.
    pub fn writes(&self) -> Range<usize> {
        self.output.span()
    }

    /// Bytes of inputs and output.
    pub const fn bytes(&self) -> usize {
        3 * PACK * self.output.pixels()
    }

    /// Some rows.
    pub fn run(&self, arena: &Arena, table: usize, rows: Range<usize>) {
        let (table, width) = (self.tables[table], self.output.size[2]);
        for plane in 0..self.output.planes {
            for row in rows.clone() {
                // SAFETY: `new` checked that the views are in bounds and the output overlaps no input; rows differ between threads;
                // the table was made on this machine.
                unsafe {
                    let [a, b] = self.inputs.map(|input| arena.words_at(input.row_at(plane, row), width));
                    let out = arena.words_mut(self.output.row_at(plane, row), width);
                    (self.kernels.moves.sum)(a, b, table, self.kernels.flip, out);
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
}

impl Intake {
    /// Into `output`.
    pub fn new(kernels: Kernels, output: View, channels: usize, words: usize) -> Self {
        output.check_against(0..0, words);
        assert_eq!(output.planes, channels.div_ceil(PACK));
        Self { kernels, output, channels }
    }

    /// Words that it writes into.
    pub fn writes(&self) -> Range<usize> {
        self.output.span()
    }

    /// Some rows.
    pub fn run(&self, arena: &Arena, codes: &[i8], rows: Range<usize>) {
        let width = self.output.size[2];
        assert_eq!(codes.len(), self.channels * self.output.rows() * width);
        for channel in 0..self.channels {
            for row in rows.clone() {
                let codes = &codes[(channel * self.output.rows() + row) * width..][..width];
                // SAFETY: `new` checked the view; rows differ between threads; the table was made on this machine.
                unsafe {
                    let out = arena.words_mut(self.output.row_at(channel / PACK, row), width);
                    (self.kernels.moves.spread)(codes, channel % PACK, self.kernels.flip, out);
                }
            }
        }
    }
}

/// The channel with the largest code of each pixel, the lowest at a tie.
#[derive(Debug)]
pub struct Labels {
    kernels: Kernels,
    logits: View,
    classes: usize,
    /// Each label stands for so many pixels along each axis: an up-sampling behind the head.
    factor: [usize; 3],
}

impl Labels {
    /// From `logits`.
    pub fn new(kernels: Kernels, logits: View, classes: usize, factor: [usize; 3], words: usize) -> Self {
        assert!(logits.span().end <= words && logits.planes * PACK >= classes && (1..=256).contains(&classes));
        Self { kernels, logits, classes, factor }
    }

    /// Rows of logits, to split between threads.
    pub const fn rows(&self) -> usize {
        self.logits.rows()
    }

    /// Labels `[d, h, w]`.
    pub fn labels_len(&self) -> usize {
        (0..3).map(|axis| self.logits.size[axis] * self.factor[axis]).product()
    }

    /// The labels of some rows of logits; `out` holds exactly those.
    pub fn run(&self, arena: &Arena, rows: Range<usize>, out: &mut [u8]) {
        let ([_, height, width], [fz, fy, fx]) = (self.logits.size, self.factor);
        let wide = width * fx;
        // Rows of a slab stay together, so only whole slabs can be repeated along z.
        assert!(fz == 1 || rows == (0..self.logits.rows()));
        for row in rows.clone() {
            let (z, y) = (row / height, row % height);
            let line = if fz == 1 { (row - rows.start) * fy } else { (z * fz * height + y) * fy };
            let len = (self.logits.planes - 1) * self.logits.plane + width;
            let (first, rest) = out[line * wide..].split_at_mut(wide);
            // SAFETY: `new` checked the view; nobody writes logits now; the table was made on this machine.
            unsafe {
                let planes = arena.words_at(self.logits.row_at(0, row), len);
                let flip = self.kernels.flip;
                (self.kernels.moves.argmax)(planes, self.logits.plane, self.classes, flip, &mut first[..width]);
            }
            if fx > 1 {
                for x in (0..width).rev() {
                    let label = first[x];
                    first[x * fx..][..fx].fill(label);
                }
            }
            rest.chunks_exact_mut(wide).take(fy - 1).for_each(|line| line.copy_from_slice(first));
            for copy in 1..fz {
                let to = line + copy * height * fy;
                out.copy_within(line * wide..(line + fy) * wide, to * wide);
            }
        }
    }

    /// Logit codes `[classes, d, h, w]`.
    pub fn logits(&self, arena: &Arena, out: &mut Vec<i8>) {
        out.clear();
        let size: [usize; 3] = std::array::from_fn(|axis| self.logits.size[axis] * self.factor[axis]);
        for class in 0..self.classes {
            for row in 0..size[0] * size[1] {
                let (z, y) = (row / size[1] / self.factor[0], row % size[1] / self.factor[1]);
                let at = self.logits.row_at(class / PACK, z * self.logits.size[1] + y);
                // SAFETY: `new` checked the view; nobody writes logits now.
                let words = unsafe { arena.words_at(at, self.logits.size[2]) };
                let code = |word: &u32| (word.to_le_bytes()[class % PACK] ^ self.kernels.flip) as i8;
                out.extend(words.iter().flat_map(|word| std::iter::repeat_n(code(word), self.factor[2])));
            }
        }
    }
}
