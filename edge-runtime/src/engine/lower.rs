//! A network to steps over one arena: which values lie where, for how long, and what computes them.
//!
//! Every value has its planes, with gaps around the rows as wide as the widest padding among the convolutions that read
//! it. A join has none: its readers find the planes of its inputs where they are, so joining copies nothing.

use contract::net::{Conv as ConvLayer, Op, Shape};

use super::{
    load::{Constants, Network},
    plan::{self, Buffer},
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
    let (layers, lanes, parts) = (&network.spec.net.layers, lanes(network), parts(network));
    let unfit = |index: usize| match layers[index].op {
        Op::Add { .. } => layers[index].inputs.iter().any(|&input| parts[input].len() > 1),
        _ => index + 1 == logits(network).0 && parts[index + 1].len() > 1,
    };
    if let Some(index) = (0..layers.len()).find(|&index| unfit(index)) {
        return Err(Unfit::Join { layer: layers[index].name.clone() });
    }
    let layout = Layout::new(network, lanes, kernels);
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

/// One thing to do, before places are known.
#[derive(Clone, Copy, Debug)]
enum Task {
    Intake,
    /// Surroundings of this value.
    Fill(usize),
    /// Input of this layer, its part of this number, into this layer's scratch.
    Widen(usize, usize),
    /// This layer; of pools and the like, the part of this number.
    Layer(usize, usize),
}

/// Where values live and what is done when.
struct Layout {
    /// Of each value, the values that it is made of: itself, or for joins their inputs' in order. A join is no memory: its
    /// readers find the planes where they are.
    parts: Vec<Vec<usize>>,
    /// Channel of each lane of each value's planes.
    lanes: Vec<Vec<Option<usize>>>,
    /// Of each value that is no join.
    geometry: Vec<Option<Geometry>>,
    /// Pixels of all parts that the scratch of a layer holds, where its kernels want a widened copy.
    scratch: Vec<usize>,
    /// Per value, then per layer's scratch.
    buffers: Vec<Buffer>,
    tasks: Vec<Task>,
    /// Every value in bytes of its channels: what must be alive.
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

/// First and last task of a life.
type Life = Option<(usize, usize)>;

fn extend(life: &mut Life, at: usize) {
    *life = Some(life.map_or((at, at), |(first, last)| (first.min(at), last.max(at))));
}

impl Layout {
    fn new(network: &Network<'_>, lanes: Vec<Vec<Option<usize>>>, kernels: Kernels) -> Self {
        let parts = parts(network);
        let geometry = geometry(network, &lanes, &parts);
        let mut this = Self {
            parts,
            lanes,
            geometry,
            scratch: vec![0; network.spec.net.layers.len()],
            buffers: vec![],
            tasks: vec![],
            values: vec![],
            logits: logits(network),
        };
        this.schedule(network, kernels);
        this
    }

    /// Lists the tasks and notes when each value and each scratch is first written and last read.
    fn schedule(&mut self, network: &Network<'_>, kernels: Kernels) {
        let layers = &network.spec.net.layers;
        let count = self.geometry.len();
        let mut lives: Vec<Life> = vec![None; count + layers.len()];
        self.produce(0, Task::Intake, &mut lives);
        // An up-sampling behind the head is the labels'.
        for (index, layer) in layers.iter().enumerate().take(self.logits.0) {
            let parts = self.parts[layer.inputs[0]].clone();
            let first_read = self.tasks.len();
            match &layer.op {
                Op::Concat => continue,
                Op::Conv(_) if kernels.pixel_bytes > PACK => {
                    for part in 0..parts.len() {
                        extend(&mut lives[count + index], self.tasks.len());
                        self.tasks.push(Task::Widen(index, part));
                    }
                    self.scratch[index] = parts.iter().map(|&value| self.words(value)).sum();
                    self.produce(index + 1, Task::Layer(index, 0), &mut lives);
                    extend(&mut lives[count + index], self.tasks.len() - 1);
                }
                Op::Conv(_) | Op::Add { .. } => self.produce(index + 1, Task::Layer(index, 0), &mut lives),
                _ => (0..parts.len()).for_each(|part| self.produce(index + 1, Task::Layer(index, part), &mut lives)),
            }
            for &value in layer.inputs.iter().flat_map(|&input| &self.parts[input]) {
                extend(&mut lives[value], first_read);
                extend(&mut lives[value], self.tasks.len() - 1);
            }
        }
        // Logits are read when all is done.
        extend(&mut lives[self.logits.0], self.tasks.len());
        let life = |life: &Life| life.map(|(first, last)| first..=last);
        let words = |buffer: usize| match buffer.checked_sub(count) {
            Some(layer) => 2 * self.scratch[layer],
            None => self.words(buffer),
        };
        let buffer = |(index, lived): (usize, &Life)| match life(lived) {
            Some(life) => Buffer { words: words(index), life },
            None => Buffer { words: 0, life: 0..=0 },
        };
        self.buffers = lives.iter().enumerate().map(buffer).collect();
        let value = |(value, lived): (usize, &Life)| {
            life(lived).map(|life| Buffer { words: network.shapes[value].elements(), life })
        };
        self.values = lives[..count].iter().enumerate().filter_map(value).collect();
    }

    /// Adds a task that makes (part of) a value, and the filling of its surroundings if nobody has done that yet.
    fn produce(&mut self, value: usize, task: Task, lives: &mut [Life]) {
        let padded = self.geometry[value].is_some_and(|geometry| geometry.pads != [0; 3]);
        if lives[value].is_none() && padded {
            extend(&mut lives[value], self.tasks.len());
            self.tasks.push(Task::Fill(value));
        }
        extend(&mut lives[value], self.tasks.len());
        self.tasks.push(task);
    }

    fn words(&self, value: usize) -> usize {
        self.geometry[value].map_or(0, |geometry| geometry.words())
    }
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

fn parts(network: &Network<'_>) -> Vec<Vec<usize>> {
    let mut parts = vec![vec![0]];
    for (index, layer) in network.spec.net.layers.iter().enumerate() {
        let next = match layer.op {
            Op::Concat => layer.inputs.iter().flat_map(|&input| parts[input].clone()).collect(),
            _ => vec![index + 1],
        };
        parts.push(next);
    }
    parts
}

/// Gaps as wide as the widest padding of the convolutions that read a value; the same for values that one convolution
/// reads together, because it steps from row to row in all of them at once.
fn geometry(network: &Network<'_>, lanes: &[Vec<Option<usize>>], parts: &[Vec<usize>]) -> Vec<Option<Geometry>> {
    let own = |value: usize| {
        let (planes, size, zero) = (lanes[value].len() / PACK, network.shapes[value].size, network.zeros[value]);
        (parts[value] == [value]).then_some(Geometry { planes, size, pads: [0; 3], tail: 4, zero })
    };
    let mut geometry: Vec<Option<Geometry>> = (0..lanes.len()).map(own).collect();
    loop {
        let mut grown = false;
        for layer in &network.spec.net.layers {
            let Op::Conv(conv) = &layer.op else { continue };
            let read = &parts[layer.inputs[0]];
            let pads = read
                .iter()
                .filter_map(|&value| geometry[value])
                .fold(conv.pads(), |pads, part| std::array::from_fn(|axis| pads[axis].max(part.pads[axis])));
            for &value in read {
                let Some(part) = &mut geometry[value] else { continue };
                grown |= part.pads != pads;
                (part.pads, part.tail) = (pads, part.tail.max(4 * conv.stride[2]));
            }
        }
        if !grown {
            return geometry;
        }
    }
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
