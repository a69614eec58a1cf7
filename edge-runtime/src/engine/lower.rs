//! A network to steps over one arena: which values lie where, for how long, and what computes them.
//!
//! Every value gets a home: a buffer of its own, or some planes of the join that it is an input of, so that joining copies
//! nothing. A buffer has gaps around its rows as wide as the widest padding among the convolutions that read it.

use contract::net::{Conv as ConvLayer, Op, Shape};

use super::{
    load::Network,
    plan::{self, Buffer},
    step::{Planned, Program, Step},
};
use crate::kernels::{Arena, Conv, ConvSpec, Fill, Intake, Kernels, Labels, Move, PACK, Resize, View, Widen};

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

/// Decides everything. `Err` holds the bytes that the arena would need, if those are more than `max_bytes`.
pub fn lower(network: &Network<'_>, kernels: Kernels, max_bytes: usize) -> Result<Lowered, usize> {
    let layout = Layout::new(network, kernels);
    let (origins, words) = plan::place(&layout.buffers);
    if words.saturating_mul(4) > max_bytes.min(MAX_ARENA_BYTES) {
        return Err(words.saturating_mul(4));
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

/// One thing to do, before places are known.
#[derive(Clone, Copy, Debug)]
enum Task {
    Intake,
    /// Surroundings of this buffer.
    Fill(usize),
    /// Input of this layer into this buffer.
    Widen(usize, usize),
    /// This layer, reading the widened copy if there is one.
    Layer(usize, Option<usize>),
    /// A join's input of this number that lies elsewhere.
    Copy(usize, usize),
}

/// Planes of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Home {
    buffer: usize,
    first_plane: usize,
}

/// Homes, lives and tasks.
struct Layout {
    homes: Vec<Home>,
    /// Channel of each lane of each value's planes.
    lanes: Vec<Vec<Option<usize>>>,
    buffers: Vec<Buffer>,
    /// Per buffer: planes, size and gaps.
    geometry: Vec<Geometry>,
    tasks: Vec<Task>,
    /// Every value by itself, in bytes of its channels: what must be alive.
    values: Vec<Buffer>,
    /// The value that the labels are taken from, and how often each is repeated.
    logits: (usize, [usize; 3]),
}

#[derive(Clone, Copy, Debug)]
struct Geometry {
    planes: usize,
    size: [usize; 3],
    pads: [usize; 3],
    /// Words behind the end that a last quad may read.
    tail: usize,
    zero: i8,
}

impl Geometry {
    fn words(&self) -> usize {
        let view = self.view(0);
        view.origin + self.planes * view.plane + self.tail
    }

    fn view(&self, origin: usize) -> View {
        let ([d, h, w], [pz, py, px]) = (self.size, self.pads);
        let row = w + px;
        let slab = (h + py) * row;
        let before = pz * slab + py * row + px;
        View { origin: origin + before, planes: self.planes, size: self.size, row, slab, plane: (d + pz) * slab }
    }
}

impl Layout {
    fn new(network: &Network<'_>, kernels: Kernels) -> Self {
        let net = &network.spec.net;
        let logits = logits(network);
        let lanes = lanes(network);
        let (homes, mut geometry) = homes(network, &lanes);
        for layer in &net.layers {
            let Op::Conv(conv) = &layer.op else { continue };
            let geometry = &mut geometry[homes[layer.inputs[0]].buffer];
            for (pad, needed) in geometry.pads.iter_mut().zip(conv.pads()) {
                *pad = (*pad).max(needed);
            }
            geometry.tail = geometry.tail.max(4 * conv.stride[2]);
        }
        let mut this = Self { homes, lanes, buffers: vec![], geometry, tasks: vec![], values: vec![], logits };
        this.schedule(network, kernels);
        this
    }

    /// Lists the tasks and notes when each buffer and value is first written and last read.
    fn schedule(&mut self, network: &Network<'_>, kernels: Kernels) {
        let net = &network.spec.net;
        let mut lives: Vec<Option<(usize, usize)>> = vec![None; self.geometry.len()];
        let mut values: Vec<(usize, usize)> = vec![(0, 0); self.homes.len()];
        self.produce(0, Task::Intake, &mut lives, &mut values);
        for (index, layer) in net.layers.iter().enumerate() {
            if index + 1 > self.logits.0 {
                // Only the up-sampling behind the head, which the labels do.
                break;
            }
            let reads = |at: usize,
                         lives: &mut Vec<Option<(usize, usize)>>,
                         values: &mut Vec<(usize, usize)>,
                         homes: &[Home]| {
                for &input in &layer.inputs {
                    extend(&mut lives[homes[input].buffer], at);
                    values[input].1 = at;
                }
            };
            match &layer.op {
                Op::Conv(_) if kernels.pixel_bytes > PACK => {
                    let input = &self.geometry[self.homes[layer.inputs[0]].buffer];
                    let wide = Geometry { pads: [0; 3], size: [1, 1, 2 * input.words()], planes: 1, ..*input };
                    self.geometry.push(wide);
                    lives.push(None);
                    let scratch = self.geometry.len() - 1;
                    extend(&mut lives[scratch], self.tasks.len());
                    self.tasks.push(Task::Widen(index, scratch));
                    reads(self.tasks.len() - 1, &mut lives, &mut values, &self.homes);
                    self.produce(index + 1, Task::Layer(index, Some(scratch)), &mut lives, &mut values);
                    extend(&mut lives[scratch], self.tasks.len() - 1);
                }
                Op::Concat => {
                    values[index + 1] = (self.tasks.len(), self.tasks.len());
                    for (position, &input) in layer.inputs.iter().enumerate() {
                        if !self.lies_in_join(network, index, position) {
                            self.produce(index + 1, Task::Copy(index, position), &mut lives, &mut values);
                        }
                        values[input].1 = values[input].1.max(self.tasks.len() - 1);
                        extend(&mut lives[self.homes[input].buffer], self.tasks.len() - 1);
                    }
                }
                _ => {
                    self.produce(index + 1, Task::Layer(index, None), &mut lives, &mut values);
                    reads(self.tasks.len() - 1, &mut lives, &mut values, &self.homes);
                }
            }
        }
        // Logits are read when all is done.
        extend(&mut lives[self.homes[self.logits.0].buffer], self.tasks.len());
        values[self.logits.0].1 = self.tasks.len();
        let life = |(first, last): (usize, usize)| first..=last;
        self.buffers = std::iter::zip(&self.geometry, lives)
            .map(|(geometry, lived)| Buffer { words: geometry.words(), life: life(lived.unwrap_or((0, 0))) })
            .collect();
        let joined: Vec<bool> =
            std::iter::once(false).chain(net.layers.iter().map(|layer| matches!(layer.op, Op::Concat))).collect();
        // A join is its inputs, which live until it was last read.
        for (index, layer) in net.layers.iter().enumerate().rev().filter(|(index, _)| joined[index + 1]) {
            for &input in &layer.inputs {
                values[input].1 = values[input].1.max(values[index + 1].1);
            }
        }
        let made = values.iter().enumerate().take(self.logits.0 + 1).filter(|(value, _)| !joined[*value]);
        self.values =
            made.map(|(value, &lived)| Buffer { words: network.shapes[value].elements(), life: life(lived) }).collect();
    }

    /// Adds the task that makes (part of) a value, and the filling of its surroundings if nobody has done that yet.
    fn produce(
        &mut self,
        value: usize,
        task: Task,
        lives: &mut [Option<(usize, usize)>],
        values: &mut [(usize, usize)],
    ) {
        let buffer = self.homes[value].buffer;
        if lives[buffer].is_none() && self.geometry[buffer].pads != [0; 3] {
            extend(&mut lives[buffer], self.tasks.len());
            self.tasks.push(Task::Fill(buffer));
        }
        extend(&mut lives[buffer], self.tasks.len());
        values[value] = (self.tasks.len(), self.tasks.len());
        self.tasks.push(task);
    }

    /// Whether input `position` of join `index` has its home where the join wants it.
    fn lies_in_join(&self, network: &Network<'_>, index: usize, position: usize) -> bool {
        let inputs = &network.spec.net.layers[index].inputs;
        let before: usize = inputs[..position].iter().map(|&input| self.lanes[input].len() / PACK).sum();
        let home = self.homes[index + 1];
        self.homes[inputs[position]] == Home { first_plane: home.first_plane + before, ..home }
    }
}

fn extend(life: &mut Option<(usize, usize)>, at: usize) {
    *life = Some(life.map_or((at, at), |(first, last)| (first.min(at), last.max(at))));
}

/// Nearest-neighbour up-sampling behind the head only repeats labels.
fn logits(network: &Network<'_>) -> (usize, [usize; 3]) {
    let (layers, last) = (&network.spec.net.layers, network.shapes.len() - 1);
    match &layers[last - 1].op {
        Op::Upsample { factor } if last > 1 => (layers[last - 1].inputs[0], *factor),
        _ => (last, [1; 3]),
    }
}

/// Channel of each lane of every value: joins keep the empty lanes of their inputs.
fn lanes(network: &Network<'_>) -> Vec<Vec<Option<usize>>> {
    let own = |shape: &Shape| -> Vec<Option<usize>> {
        (0..shape.channels.next_multiple_of(PACK)).map(|lane| (lane < shape.channels).then_some(lane)).collect()
    };
    let mut lanes: Vec<Vec<Option<usize>>> = vec![own(&network.shapes[0])];
    for (layer, shape) in network.spec.net.layers.iter().zip(&network.shapes[1..]) {
        let next = match &layer.op {
            Op::Conv(_) => own(shape),
            Op::Concat => {
                let (mut joined, mut before) = (vec![], 0);
                for &input in &layer.inputs {
                    joined.extend(lanes[input].iter().map(|lane| lane.map(|channel| channel + before)));
                    before += network.shapes[input].channels;
                }
                joined
            }
            _ => lanes[layer.inputs[0]].clone(),
        };
        lanes.push(next);
    }
    lanes
}

/// A home for every value, joins first so that their inputs can move in.
fn homes(network: &Network<'_>, lanes: &[Vec<Option<usize>>]) -> (Vec<Home>, Vec<Geometry>) {
    let layers = &network.spec.net.layers;
    let mut homes: Vec<Option<Home>> = vec![None; lanes.len()];
    let mut geometry = vec![];
    // From the last value to the first: a join is met before its inputs.
    for value in (0..lanes.len()).rev() {
        let home = *homes[value].get_or_insert_with(|| {
            let (planes, shape) = (lanes[value].len() / PACK, network.shapes[value]);
            geometry.push(Geometry { planes, size: shape.size, pads: [0; 3], tail: 4, zero: network.zeros[value] });
            Home { buffer: geometry.len() - 1, first_plane: 0 }
        });
        let Some(layer) = value.checked_sub(1).map(|index| &layers[index]) else { continue };
        if !matches!(layer.op, Op::Concat) {
            continue;
        }
        let mut first_plane = home.first_plane;
        for &input in &layer.inputs {
            homes[input].get_or_insert(Home { buffer: home.buffer, first_plane });
            first_plane += lanes[input].len() / PACK;
        }
    }
    (homes.into_iter().map(|home| home.expect("every value was visited")).collect(), geometry)
}

/// Places are known: makes the steps.
struct Build<'a> {
    network: &'a Network<'a>,
    kernels: Kernels,
    layout: &'a Layout,
    origins: Vec<usize>,
    words: usize,
}

impl Build<'_> {
    fn buffer(&self, buffer: usize) -> View {
        self.layout.geometry[buffer].view(self.origins[buffer])
    }

    fn view(&self, value: usize) -> View {
        let home = self.layout.homes[value];
        let planes = self.layout.lanes[value].len() / PACK;
        self.buffer(home.buffer).part(home.first_plane..home.first_plane + planes)
    }

    fn step(&self, task: &Task) -> Planned {
        let (kernels, words) = (self.kernels, self.words);
        let layers = &self.network.spec.net.layers;
        let moved = |input: usize, output: View, how| {
            let rows = output.rows();
            (rows, Step::Move(Move::new(kernels, self.view(input), output, how, words)))
        };
        let (layer, (rows, step)) = match *task {
            Task::Intake => {
                let output = self.view(0);
                let channels = self.network.shapes[0].channels;
                (None, (output.rows(), Step::Intake(Intake::new(kernels, output, channels, words))))
            }
            Task::Fill(buffer) => {
                let Geometry { pads, zero, .. } = self.layout.geometry[buffer];
                let fill = Fill::new(kernels, self.buffer(buffer), pads, zero, words);
                let maker = self.layout.homes.iter().position(|home| home.buffer == buffer);
                (maker.and_then(|value| value.checked_sub(1)), (1, Step::Fill(fill)))
            }
            Task::Widen(layer, scratch) => {
                let buffer = self.layout.homes[layers[layer].inputs[0]].buffer;
                let from = self.origins[buffer]..self.origins[buffer] + self.layout.geometry[buffer].words();
                (Some(layer), (1, Step::Widen(Widen::new(kernels, from, self.origins[scratch], words))))
            }
            Task::Copy(layer, position) => {
                let inputs = &layers[layer].inputs;
                let first = inputs[..position].iter().map(|&input| self.layout.lanes[input].len() / PACK).sum();
                let input = inputs[position];
                let planes = self.layout.lanes[input].len() / PACK;
                let output = self.view(layer + 1).part(first..first + planes);
                (Some(layer), moved(input, output, Resize::Repeat([1; 3])))
            }
            Task::Layer(layer, scratch) => {
                let (input, output) = (layers[layer].inputs[0], self.view(layer + 1));
                let done = match &layers[layer].op {
                    Op::Conv(conv) => (output.rows(), Step::Conv(Box::new(self.conv(layer, conv, scratch)))),
                    Op::MaxPool { size } => moved(input, output, Resize::MaxPool(*size)),
                    Op::Upsample { factor } => moved(input, output, Resize::Repeat(*factor)),
                    other => unreachable!("{other:?} was refused when the file was read"),
                };
                (Some(layer), done)
            }
        };
        Planned { layer, rows, step }
    }

    fn conv(&self, index: usize, conv: &ConvLayer, scratch: Option<usize>) -> Conv {
        let value = self.network.spec.net.layers[index].inputs[0];
        let codes = self.network.convs[index].as_ref().expect("the constants of a convolution");
        let weights: Vec<i8> = codes.weights.iter().map(|&byte| byte as i8).collect();
        let spec = ConvSpec {
            input: self.view(value),
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
        // The copy begins where the buffer does.
        let widened = scratch.map(|scratch| (self.origins[scratch], self.origins[self.layout.homes[value].buffer]));
        Conv::new(self.kernels, &spec, widened, self.words)
    }

    fn labels(&self) -> Labels {
        let (value, factor) = self.layout.logits;
        Labels::new(self.kernels, self.view(value), self.network.shapes[value].channels, factor, self.words)
    }
}
