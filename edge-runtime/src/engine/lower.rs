//! A network to steps over one arena: places for its layout, kernels for its layers.
//!
//! Every value has its planes, with gaps around the rows as wide as the widest padding among the convolutions that read
//! it. A join has none: its readers find the planes of its inputs where they are, so joining copies nothing.

use contract::net::{Conv as ConvLayer, Op};

use super::{
    layout::{Geometry, Layout, Task},
    load::{Constants, Network},
    plan,
    step::{Planned, Program, Step},
};
use crate::kernels::{
    Add, Arena, Conv, ConvSpec, Fill, Intake, Kernels, Labels, Move, PACK, Part, Resize, View, Widen,
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
    /// A sum of joins, or labels of one: only convolutions, pools and up-samplings read values of several parts.
    Join {
        /// The layer.
        layer: String,
    },
}

/// Decides everything; refuses arenas of more than `max_bytes`.
pub fn lower(network: &Network<'_>, kernels: Kernels, max_bytes: usize) -> Result<Lowered, Unfit> {
    let (layers, layout) = (&network.spec.net.layers, Layout::new(network, kernels));
    let join = |value: usize| layout.parts[value].len() > 1;
    let unfit = |index: usize| match layers[index].op {
        Op::Add { .. } => layers[index].inputs.iter().any(|&input| join(input)),
        _ => index + 1 == layout.logits.0 && join(index + 1),
    };
    if let Some(index) = (0..layers.len()).find(|&index| unfit(index)) {
        return Err(Unfit::Join { layer: layers[index].name.clone() });
    }
    let (origins, words) = plan::place(&layout.buffers);
    if words.saturating_mul(4) > max_bytes.min(MAX_ARENA_BYTES) {
        return Err(Unfit::Arena(words.saturating_mul(4)));
    }
    let build = Build { network, kernels, layout: &layout, origins, words };
    let steps: Vec<Planned> = layout.tasks.iter().map(|task| build.step(task)).collect();
    let sum = |bytes: fn(&Conv) -> usize| {
        let convs = steps.iter().filter_map(|planned| match &planned.step {
            Step::Conv(conv) => Some(bytes(conv)),
            _ => None,
        });
        convs.sum::<usize>()
    };
    let memory = Memory {
        arena_bytes: 4 * words,
        alive_bytes: plan::most_alive(&layout.values),
        weight_bytes: sum(Conv::weight_bytes),
        table_bytes: sum(Conv::table_bytes),
    };
    let labels = build.labels();
    Ok(Lowered { program: Program { steps, labels, arena: Arena::new(words) }, memory })
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

    fn view(&self, value: usize) -> View {
        self.geometry(value).view(self.origins[value])
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
                (None, output.rows(), Step::Intake(Intake::new(kernels, output, channels, words)))
            }
            Task::Fill(value) => {
                let Geometry { pads, zero, .. } = self.geometry(value);
                (value.checked_sub(1), 1, Step::Fill(Fill::new(kernels, self.view(value), pads, zero, words)))
            }
            Task::Widen(layer, part) => {
                let parts = &self.layout.parts[layers[layer].inputs[0]];
                let (from, pixels) = (self.origins[parts[part]], self.layout.words(parts[part]));
                let before: usize = parts[..part].iter().map(|&value| self.layout.words(value)).sum();
                let to = self.scratch(layer) + 2 * before;
                (Some(layer), 1, Step::Widen(Widen::new(kernels, from..from + pixels, to, words)))
            }
            Task::Layer(layer, part) => {
                let output = self.view(layer + 1);
                let step = match &layers[layer].op {
                    Op::Conv(conv) => Step::Conv(Box::new(self.conv(layer, conv))),
                    Op::Add { .. } => Step::Add(self.add(layer)),
                    Op::MaxPool { size } => Step::Move(self.resize(layer, part, Resize::MaxPool(*size))),
                    Op::Upsample { factor } => Step::Move(self.resize(layer, part, Resize::Repeat(*factor))),
                    other => unreachable!("{other:?} was refused when the file was read"),
                };
                (Some(layer), output.rows(), step)
            }
        };
        Planned { layer, rows, step }
    }

    /// Pools or repeats one part of a value into its planes of the output.
    fn resize(&self, layer: usize, part: usize, how: Resize) -> Move {
        let parts = &self.layout.parts[self.network.spec.net.layers[layer].inputs[0]];
        let planes =
            |values: &[usize]| values.iter().map(|&value| self.layout.lanes[value].len() / PACK).sum::<usize>();
        let output = self.view(layer + 1).part(planes(&parts[..part])..planes(&parts[..=part]));
        Move::new(self.kernels, self.view(parts[part]), output, how, self.words)
    }

    fn conv(&self, index: usize, conv: &ConvLayer) -> Conv {
        let value = self.network.spec.net.layers[index].inputs[0];
        let Constants::Conv(codes) = &self.network.constants[index] else {
            unreachable!("a convolution has its constants")
        };
        let weights: Vec<i8> = codes.weights.iter().map(|&byte| byte as i8).collect();
        let widened = self.kernels.pixel_bytes > PACK;
        let mut before = 0;
        let input: Vec<Part> = self.layout.parts[value]
            .iter()
            .map(|&part| {
                let view = self.view(part);
                // The copies lie one behind another and begin where the buffers do.
                let copied = before + view.origin - self.origins[part];
                before += self.layout.words(part);
                Part { view, origin: if widened { copied } else { view.origin } }
            })
            .collect();
        let spec = ConvSpec {
            input: &input,
            space: if widened { self.scratch(index) } else { 0 },
            lanes: &self.layout.lanes[value],
            output: self.view(index + 1),
            kernel: conv.kernel,
            stride: conv.stride,
            dilation: conv.dilation,
            pads: conv.pads(),
            groups: conv.groups,
            weights: &weights,
            channels: conv.out_channels,
            input_zero: self.network.zeros[value],
            output_zero: self.network.zeros[index + 1],
            tables: &codes.tables,
        };
        Conv::new(self.kernels, &spec, self.words)
    }

    fn add(&self, index: usize) -> Add {
        let Constants::Add(sums) = &self.network.constants[index] else { unreachable!("a sum has its constants") };
        let inputs = &self.network.spec.net.layers[index].inputs;
        let values = [inputs[0], inputs[1], index + 1];
        let [a, b, output] = values.map(|value| self.view(value));
        let zeros = values.map(|value| self.network.zeros[value]);
        Add::new(self.kernels, [a, b], output, sums, zeros, self.words)
    }

    fn labels(&self) -> Labels {
        let (value, factor) = self.layout.logits;
        Labels::new(self.kernels, self.view(value), self.network.shapes[value].channels, factor, self.words)
    }
}
