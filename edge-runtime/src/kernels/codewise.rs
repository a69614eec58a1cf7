//! Steps that look at one code at a time: residual sums, norms of their own, leaks. They work in place, on rows that a
//! convolution has just left in the first cache.

use std::ops::Range;

use contract::{
    net::Activation,
    quant::{Affine, Sum},
};

use super::{Arena, Kernels, PACK, View};

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
    /// `zeros` of both inputs and of the output; one sum per modality. The output may be one of the inputs.
    pub fn new(kernels: Kernels, inputs: [View; 2], output: View, sums: &[Sum], zeros: [i8; 3], words: usize) -> Self {
        let [a, b, y] = zeros.map(|zero| f32::from(zero) + 128.);
        let table = |sum: &Sum| {
            let factors = sum.ratios();
            SumTable { factors, constant: y - (factors[0] * a + factors[1] * b) }
        };
        let mut this = Self { kernels, inputs, output, tables: sums.iter().map(table).collect() };
        // What the output holds is the second summand.
        if this.inputs[0] == output {
            this.inputs.swap(0, 1);
            this.tables.iter_mut().for_each(|table| table.factors.swap(0, 1));
        }
        let [a, b] = this.inputs;
        output.check_against(a.span(), words);
        check_source(&b, &output, words);
        assert!(a.planes == output.planes && a.size == output.size);
        this
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
        let (table, width, [a, b]) = (self.tables[table], self.output.size[2], self.inputs);
        for (plane, row) in (0..self.output.planes).flat_map(|plane| rows.clone().map(move |row| (plane, row))) {
            // SAFETY: `new` checked that the views are in bounds and that the output overlaps no input but the one that it is;
            // rows differ between threads; the table was made on this machine.
            unsafe {
                let out = arena.words_mut(self.output.row_at(plane, row), width);
                if b != self.output {
                    out.copy_from_slice(arena.words_at(b.row_at(plane, row), width));
                }
                (self.kernels.moves.sum)(arena.words_at(a.row_at(plane, row), width), table, self.kernels.flip, out);
            }
        }
    }
}

/// Panics unless `output` can be written while `input` is read, row by row: it is the same, or elsewhere.
fn check_source(input: &View, output: &View, words: usize) {
    assert!(input.planes == output.planes && input.size == output.size);
    output.check_against(if input == output { 0..0 } else { input.span() }, words);
}

/// An affine step and an activation per channel and modality: what the contract's `Table` says of each code.
#[derive(Debug)]
pub struct Map {
    kernels: Kernels,
    input: View,
    output: View,
    /// `[modality][plane]`.
    tables: Vec<Vec<MapTable>>,
}

/// What one plane's codes become: `max(v, slope * v) + zeros[1]`, rounded, of `v = factor * (code - zeros[0]) + shift`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MapTable {
    /// Per channel.
    pub factors: [f32; PACK],
    /// Per channel.
    pub shifts: [f32; PACK],
    /// 1 without a leak.
    pub slope: f32,
    /// Codes of real 0 of input and output.
    pub zeros: [i8; 2],
}

/// A map of one modality.
#[derive(Clone, Debug, PartialEq)]
pub struct MapSpec {
    /// Scale and code of real 0 of the input.
    pub x: (f32, i8),
    /// One for all channels, or one per channel, in reals.
    pub affine: Vec<Affine>,
    /// What follows. ReLU is the saturation at the output's real 0.
    pub activation: Activation,
    /// Scale and code of real 0 of the output.
    pub y: (f32, i8),
}

impl MapSpec {
    /// The table of a plane whose lanes hold these channels.
    pub(super) fn table(&self, lanes: &[Option<usize>]) -> MapTable {
        let slope = if let Activation::LeakyRelu(slope) = self.activation { slope } else { 1. };
        let mut table = MapTable { factors: [0.; PACK], shifts: [0.; PACK], slope, zeros: [self.x.1, self.y.1] };
        for (lane, channel) in lanes.iter().enumerate() {
            let Some(channel) = channel else { continue };
            let Affine { factor, shift } = self.affine[(*channel).min(self.affine.len() - 1)];
            (table.factors[lane], table.shifts[lane]) = (self.x.0 * factor / self.y.0, shift / self.y.0);
        }
        table
    }
}

impl Map {
    /// `specs` per modality; `lanes`: channel of each lane of the planes. The output may be the input.
    pub fn new(
        kernels: Kernels,
        input: View,
        output: View,
        specs: &[MapSpec],
        lanes: &[Option<usize>],
        words: usize,
    ) -> Self {
        check_source(&input, &output, words);
        assert_eq!(lanes.len(), output.planes * PACK);
        let tables = |spec: &MapSpec| lanes.chunks_exact(PACK).map(|lanes| spec.table(lanes)).collect();
        Self { kernels, input, output, tables: specs.iter().map(tables).collect() }
    }

    /// Words that it writes into.
    pub fn writes(&self) -> Range<usize> {
        self.output.span()
    }

    /// Bytes of input and output.
    pub const fn bytes(&self) -> usize {
        2 * PACK * self.output.pixels()
    }

    /// Bytes of the tables of all modalities.
    pub fn table_bytes(&self) -> usize {
        self.tables.iter().map(|table| size_of_val(table.as_slice())).sum()
    }

    /// Some rows.
    pub fn run(&self, arena: &Arena, table: usize, rows: Range<usize>) {
        let width = self.output.size[2];
        for (plane, table) in self.tables[table].iter().enumerate() {
            for row in rows.clone() {
                // SAFETY: `new` checked that the views are in bounds and the same or apart; rows differ between threads; the
                // table was made on this machine.
                unsafe {
                    let out = arena.words_mut(self.output.row_at(plane, row), width);
                    if self.input != self.output {
                        out.copy_from_slice(arena.words_at(self.input.row_at(plane, row), width));
                    }
                    (self.kernels.moves.map)(table, self.kernels.flip, out);
                }
            }
        }
    }
}
