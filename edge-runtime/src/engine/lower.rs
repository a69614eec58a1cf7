//! A network to steps over one arena: places for its layout, kernels for its layers.
//!
//! Every value has its planes, with gaps around the rows as wide as the widest padding among the convolutions that read
//! it. A join has none: its readers find the planes of its inputs where they are, so joining copies nothing.

use contract::net::{Conv as ConvLayer, Op};

use super::{
    layout::{Layout, Task},
    load::{Constants, Network},
    plan,
    planes::{Geometry, Piece},
    step::{Planned, Program, Step},
};
use crate::kernels::{
    Add, Arena, Blank, Conv, ConvSpec, Fill, Intake, Interpolate, Kernels, Labels, Lane, Map, Mirror, Move, PACK, Part,
    Pick, Resize, Shuffle, View, Widen,
};

/// What a plan costs, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memory {
    /// The arena.
    pub arena_bytes: usize,
    /// The most bytes of values alive at one time, without gaps and padding channels: no plan needs less.
    pub alive_bytes: usize,
    /// Weights, packed once for all modalities.
    pub weight_bytes: usize,
    /// Bias and factors of all modalities.
    pub table_bytes: usize,
}

/// A lowered network and what it costs.
pub struct Lowered {
    /// The steps.
    pub program: Program,
    /// Their memory.
    pub memory: Memory,
}

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// The arena would need so many bytes.
    Arena(usize),
    /// A shape or an order of layers that the planes of four channels do not serve.
    Shape {
        /// The layer.
        layer: String,
        /// What it does.
        reason: &'static str,
    },
}

/// Decides everything; refuses arenas of more than `max_bytes`.
pub fn lower(network: &Network<'_>, kernels: Kernels, max_bytes: usize) -> Result<Lowered, Unfit> {
    let layout = Layout::new(network, kernels)?;
    let (origins, words) = plan::place(&layout.buffers);
    if words.saturating_mul(4) > max_bytes.min(MAX_ARENA_BYTES) {
        return Err(Unfit::Arena(words.saturating_mul(4)));
    }
    let build = Build { network, kernels, layout: &layout, origins, words };
    let steps: Vec<Planned> = layout.tasks.iter().map(|task| build.step(task)).collect();
    let memory = Memory {
        arena_bytes: 4 * words,
        alive_bytes: plan::most_alive(&layout.values),
        weight_bytes: steps.iter().map(Planned::weight_bytes).sum(),
        table_bytes: steps.iter().map(Planned::table_bytes).sum(),
    };
    let (groups, labels) = (layout.groups.clone(), build.labels());
    Ok(Lowered { program: Program { steps, groups, labels, arena: Arena::new(words) }, memory })
}

/// Offsets are 32-bit words.
const MAX_ARENA_BYTES: usize = u32::MAX as usize;

/// Places are known: makes the steps.
struct Build<'a> {
    network: &'a Network<'a>,
    kernels: Kernels,
    layout: &'a Layout,
    origins: Vec<usize>,
    words: usize,
}

impl Build<'_> {
    fn geometry(&self, value: usize) -> Geometry {
        self.layout.geometry[value].expect("only joins lie nowhere, and their parts are asked for")
    }

    /// First word of a value's memory.
    fn origin(&self, value: usize) -> usize {
        self.origins[self.layout.homes[value]]
    }

    fn view(&self, value: usize) -> View {
        self.geometry(value).view(self.origin(value))
    }

    /// First word of the scratch of a layer.
    fn scratch(&self, layer: usize) -> usize {
        self.origins[self.layout.geometry.len() + layer]
    }

    fn step(&self, task: &Task) -> Planned {
        let (kernels, words) = (self.kernels, self.words);
        let layers = &self.network.spec.net.layers;
        let (layer, rows, step) = match *task {
            Task::Intake => {
                let (output, channels) = (self.view(0), self.network.shapes[0].channels);
                let intake = Intake::new(kernels, output, channels, self.layout.unfolded, words);
                (None, output.rows(), Step::Intake(intake))
            }
            Task::Fill(value) => {
                let Geometry { pads, zero, .. } = self.geometry(value);
                (value.checked_sub(1), 1, Step::Fill(Fill::new(kernels, self.view(value), pads, zero, words)))
            }
            Task::Mirror(value) => {
                let mirror = Mirror::new(self.view(value), self.geometry(value).pads, words);
                (value.checked_sub(1), mirror.planes(), Step::Mirror(mirror))
            }
            Task::Widen(layer, part) => {
                let parts = &self.layout.parts[layers[layer].inputs[0]];
                let (from, pixels) = (self.origin(parts[part]), self.layout.words(parts[part]));
                let before: usize = parts[..part].iter().map(|&value| self.layout.words(value)).sum();
                let to = self.scratch(layer) + 2 * before;
                (Some(layer), 1, Step::Widen(Widen::new(kernels, from..from + pixels, to, words)))
            }
            Task::Layer(layer, piece) => (Some(layer), self.view(layer + 1).rows(), self.layer(layer, piece)),
            Task::Pick(layer) => {
                let sources = self.layout.picks[layer].iter().flatten();
                let lane = |&(value, plane, lane)| Lane { view: self.view(value), plane, lane };
                let lanes = sources.map(|source| source.as_ref().map(lane)).collect();
                let (output, zero) = (self.view(layer + 1), self.network.zeros[layer + 1]);
                (Some(layer), output.rows(), Step::Pick(Pick::new(kernels, lanes, output, zero, words)))
            }
            Task::Leak(layer) => {
                let Constants::Conv(codes) = &self.network.constants[layer] else {
                    unreachable!("only convolutions leak")
                };
                let (view, lanes) = (self.view(layer + 1), &self.layout.lanes[layer + 1]);
                let leak = Map::new(kernels, view, view, &codes.leak, lanes, words);
                (Some(layer), view.rows(), Step::Map(leak))
            }
        };
        Planned { layer, rows, step }
    }

    fn layer(&self, index: usize, piece: usize) -> Step {
        let (kernels, words, output) = (self.kernels, self.words, self.view(index + 1));
        let layer = &self.network.spec.net.layers[index];
        match &layer.op {
            Op::Conv(conv) => return Step::Conv(Box::new(self.conv(index, conv))),
            Op::PixelShuffle { factor } => {
                let (input, channels) = (self.view(layer.inputs[0]), self.network.shapes[index + 1].channels);
                return Step::Shuffle(Shuffle::new(input, output, channels, *factor, words));
            }
            _ => {}
        }
        let Piece { planes, sources } = &self.layout.pieces[index][piece];
        let output = output.part(planes.clone());
        let input = |number: usize| {
            let (value, first) = sources[number];
            self.view(value).part(first..first + planes.len())
        };
        let moved = |how: Resize| Step::Move(Move::new(kernels, input(0), output, how, words));
        match (&layer.op, &self.network.constants[index]) {
            (Op::Add { .. }, Constants::Add(sums)) => {
                let zeros = [layer.inputs[0], layer.inputs[1], index + 1].map(|value| self.network.zeros[value]);
                Step::Add(Add::new(kernels, [input(0), input(1)], output, sums, zeros, words))
            }
            (Op::Norm { .. }, Constants::Norm(specs)) => {
                let lanes = &self.layout.lanes[index + 1][planes.start * PACK..planes.end * PACK];
                Step::Map(Map::new(kernels, input(0), output, specs, lanes, words))
            }
            (Op::Interpolate { .. }, Constants::Interpolate(rule)) => {
                let zero = self.network.zeros[index + 1];
                Step::Interpolate(Interpolate::new(kernels, input(0), output, *rule, zero, words))
            }
            (Op::MaxPool { size }, _) => moved(Resize::MaxPool(*size)),
            (Op::Upsample { factor }, _) => moved(Resize::Repeat(*factor)),
            (Op::PadChannels { .. }, _) if sources.is_empty() => {
                Step::Blank(Blank::new(kernels, output, self.network.zeros[index + 1], words))
            }
            (Op::PadChannels { .. }, _) => moved(Resize::Repeat([1; 3])),
            (other, _) => unreachable!("{other:?} was refused when the file was read"),
        }
    }

    fn conv(&self, index: usize, conv: &ConvLayer) -> Conv {
        let value = self.network.spec.net.layers[index].inputs[0];
        let Constants::Conv(codes) = &self.network.constants[index] else {
            unreachable!("a convolution has its constants")
        };
        let mut weights: Vec<i8> = codes.weights.iter().map(|&byte| byte as i8).collect();
        let (mut kernel, mut pads) = (conv.kernel, conv.pads());
        if self.layout.unfolded && value == 0 {
            (kernel[2], pads[2]) = (1, 0);
            weights = unfold(&weights, kernel[0] * kernel[1]);
        }
        let widened = self.kernels.pixel_bytes > PACK;
        let mut before = 0;
        let input: Vec<Part> = self.layout.parts[value]
            .iter()
            .map(|&part| {
                let view = self.view(part);
                // The copies lie one behind another and begin where the buffers do.
                let copied = before + view.origin - self.origin(part);
                before += self.layout.words(part);
                Part { view, origin: if widened { copied } else { view.origin } }
            })
            .collect();
        let spec = ConvSpec {
            input: &input,
            space: if widened { self.scratch(index) } else { 0 },
            lanes: &self.layout.lanes[value],
            output: self.view(index + 1),
            kernel,
            stride: conv.stride,
            dilation: conv.dilation,
            pads,
            groups: conv.groups,
            weights: &weights,
            channels: conv.out_channels,
            input_zero: self.network.zeros[value],
            output_zero: self.network.zeros[index + 1],
            tables: &codes.tables,
        };
        Conv::new(self.kernels, &spec, self.words)
    }

    fn labels(&self) -> Labels {
        let (value, factor) = self.layout.logits;
        Labels::new(self.kernels, self.view(value), self.network.shapes[value].channels, factor, self.words)
    }
}

/// Weights `[out, 1, rows, 3]` of an unfolded image: `[out, 3, rows]`, the columns in the order of the lanes.
fn unfold(weights: &[i8], rows: usize) -> Vec<i8> {
    let kernels = weights.chunks_exact(3 * rows);
    kernels
        .flat_map(|kernel| [1, 0, 2].into_iter().flat_map(|column| kernel.iter().skip(column).step_by(3)))
        .copied()
        .collect()
}
