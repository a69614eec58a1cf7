//! Which values lie in memory, with what gaps, from when to when, and in what order things are done: all that a plan
//! needs before places are known.

use contract::net::{Op, Shape};

use super::{load::Network, plan::Buffer};
use crate::kernels::{Kernels, PACK, View};

/// One thing to do, before places are known.
#[derive(Clone, Copy, Debug)]
pub enum Task {
    /// The image.
    Intake,
    /// Surroundings of this value.
    Fill(usize),
    /// Input of this layer, its part of this number, into this layer's scratch.
    Widen(usize, usize),
    /// This layer; of pools and the like, the part of this number.
    Layer(usize, usize),
}

/// Where values live and what is done when.
pub struct Layout {
    /// Of each value, the values that it is made of: itself, or for joins their inputs' in order. A join is no memory: its
    /// readers find the planes where they are.
    pub parts: Vec<Vec<usize>>,
    /// Channel of each lane of each value's planes.
    pub lanes: Vec<Vec<Option<usize>>>,
    /// Of each value that is no join.
    pub geometry: Vec<Option<Geometry>>,
    /// Pixels of all parts that the scratch of a layer holds, where its kernels want a widened copy.
    scratch: Vec<usize>,
    /// Per value, then per layer's scratch.
    pub buffers: Vec<Buffer>,
    pub tasks: Vec<Task>,
    /// Every value in bytes of its channels: what must be alive.
    pub values: Vec<Buffer>,
    /// The value that the labels are taken from, and how often each is repeated.
    pub logits: (usize, [usize; 3]),
}

/// Planes of one value and what is around them.
#[derive(Clone, Copy, Debug)]
pub struct Geometry {
    planes: usize,
    size: [usize; 3],
    pub pads: [usize; 3],
    /// Words behind the end that a last quad may read.
    tail: usize,
    pub zero: i8,
}

impl Geometry {
    /// All of it, gaps and tail included.
    pub fn words(&self) -> usize {
        let view = self.view(0);
        view.origin + self.planes * view.plane + self.tail
    }

    /// With its first gap at word `origin`.
    pub fn view(&self, origin: usize) -> View {
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
    /// Of a network that `kernels` are to run.
    pub fn new(network: &Network<'_>, kernels: Kernels) -> Self {
        let (lanes, parts) = (lanes(network), parts(network));
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

    /// Words of a value; a join has none.
    pub fn words(&self, value: usize) -> usize {
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
