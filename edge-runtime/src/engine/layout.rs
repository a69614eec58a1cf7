//! In what order things are done, and which values must lie in memory from when to when: all that a plan needs before places
//! are known.

use std::ops::Range;

use contract::net::{Activation, Op};

use super::{
    load::Network,
    lower::Unfit,
    plan::Buffer,
    planes::{Geometry, Lanes, Piece, Source, geometry, homes, lanes, logits, parts, picks, pieces, unfolds},
};
use crate::kernels::{Kernels, PACK};

/// One thing to do, before places are known.
#[derive(Clone, Copy, Debug)]
pub enum Task {
    /// The image.
    Intake,
    /// Surroundings of this value with zeros.
    Fill(usize),
    /// Surroundings of this value with the value itself.
    Mirror(usize),
    /// Input of this layer, its part of this number, into this layer's scratch.
    Widen(usize, usize),
    /// This layer; where it works plane by plane, its piece of this number.
    Layer(usize, usize),
    /// The leak of this layer's convolution.
    Leak(usize),
    /// Input of this layer into the lanes of its output.
    Pick(usize),
}

/// Where values live and what is done when.
pub struct Layout {
    /// Of each value, the values that it is made of: itself, or for joins their inputs' in order. A join is no memory: its
    /// readers find the planes where they are.
    pub parts: Vec<Vec<usize>>,
    /// The value in whose memory each value lies: itself, or what a sum or a norm makes of it in place.
    pub homes: Vec<usize>,
    /// Channel of each lane of each value's planes.
    pub lanes: Vec<Lanes>,
    /// A word of the image holds a pixel and its neighbours: three channels to the convolutions that read it.
    pub unfolded: bool,
    /// Of each layer that works plane by plane.
    pub pieces: Vec<Vec<Piece>>,
    /// Of each lane of a layer's output, where an input's channels lie in other lanes than the output's.
    pub picks: Vec<Option<Vec<Option<Source>>>>,
    /// Of each value that is no join.
    pub geometry: Vec<Option<Geometry>>,
    /// Pixels of all parts that the scratch of a layer holds, where its kernels want a widened copy.
    scratch: Vec<usize>,
    /// Per value, then per layer's scratch.
    pub buffers: Vec<Buffer>,
    pub tasks: Vec<Task>,
    /// Tasks that are done together, some rows at a time: a convolution, and what is done with its codes one by one while they
    /// are in the first cache.
    pub groups: Vec<Range<usize>>,
    /// Every value with memory of its own in bytes of its channels: what must be alive.
    pub values: Vec<Buffer>,
    /// The value that the labels are taken from, and how often each is repeated.
    pub logits: (usize, [usize; 3]),
}

/// First and last task of a life.
type Life = Option<(usize, usize)>;

fn extend(life: &mut Life, at: usize) {
    *life = Some(life.map_or((at, at), |(first, last)| (first.min(at), last.max(at))));
}

impl Layout {
    /// Of a network that `kernels` are to run.
    pub fn new(network: &Network<'_>, kernels: Kernels) -> Result<Self, Unfit> {
        let unfolded = unfolds(network);
        let (lanes, parts) = (lanes(network, unfolded), parts(network));
        let mut geometry = geometry(network, &lanes, &parts, unfolded)?;
        let logits = logits(network);
        let homes = homes(network, &lanes, &parts, logits.0);
        for value in 0..homes.len() {
            geometry[value] = geometry[homes[value]];
        }
        let layers = 0..network.spec.net.layers.len();
        let pieces = layers.clone().map(|index| pieces(network, &lanes, &parts, index));
        let mut this = Self {
            pieces: pieces.collect::<Result<_, _>>()?,
            picks: layers.map(|index| picks(network, &lanes, &parts, index)).collect(),
            parts,
            homes,
            lanes,
            unfolded,
            geometry,
            scratch: vec![0; network.spec.net.layers.len()],
            buffers: vec![],
            tasks: vec![],
            groups: vec![],
            values: vec![],
            logits,
        };
        let joined = this.parts[this.logits.0].len() > 1;
        if joined {
            let layer = network.spec.net.layers[this.logits.0 - 1].name.clone();
            return Err(Unfit::Shape { layer, reason: "labels are taken from a join" });
        }
        this.schedule(network, kernels);
        Ok(this)
    }

    /// Lists the tasks and notes when each value and each scratch is first written and last read.
    fn schedule(&mut self, network: &Network<'_>, kernels: Kernels) {
        let layers = &network.spec.net.layers;
        let count = self.geometry.len();
        let mut lives: Vec<Life> = vec![None; count + layers.len()];
        self.produce(0, &[Task::Intake], &mut lives);
        // An up-sampling behind the head is the labels'.
        for (index, layer) in layers.iter().enumerate().take(self.logits.0) {
            let parts = self.parts[layer.inputs[0]].clone();
            let first_read = self.tasks.len();
            match &layer.op {
                Op::Concat => continue,
                Op::Conv(conv) => {
                    let mut made = vec![Task::Layer(index, 0)];
                    made.extend(matches!(conv.activation, Activation::LeakyRelu(_)).then_some(Task::Leak(index)));
                    if kernels.pixel_bytes > PACK {
                        for part in 0..parts.len() {
                            extend(&mut lives[count + index], self.tasks.len());
                            self.tasks.push(Task::Widen(index, part));
                        }
                        self.scratch[index] = parts.iter().map(|&value| self.words(value)).sum();
                        extend(&mut lives[count + index], self.tasks.len() + made.len());
                    }
                    self.produce(index + 1, &made, &mut lives);
                }
                Op::PixelShuffle { .. } => self.produce(index + 1, &[Task::Layer(index, 0)], &mut lives),
                _ => {
                    let picked = self.picks[index].is_some().then_some(Task::Pick(index));
                    let pieces = (0..self.pieces[index].len()).map(|piece| Task::Layer(index, piece));
                    let made: Vec<Task> = picked.into_iter().chain(pieces).collect();
                    self.produce(index + 1, &made, &mut lives);
                }
            }
            for &value in layer.inputs.iter().flat_map(|&input| &self.parts[input]) {
                extend(&mut lives[self.homes[value]], first_read);
                extend(&mut lives[self.homes[value]], self.tasks.len() - 1);
            }
        }
        // Logits are read when all is done.
        extend(&mut lives[self.logits.0], self.tasks.len());
        self.groups = self.group(network);
        let life = |life: &Life| {
            // Until a group is done, some of its rows are still to be read.
            let group = |last: usize| self.groups.iter().find(|group| group.contains(&last));
            life.map(|(first, last)| first..=group(last).map_or(last, |group| group.end - 1))
        };
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

    /// Adds the tasks that make a value or, in place, what becomes it. Its surroundings are filled with zeros before anybody
    /// writes, or mirrored when it is complete.
    fn produce(&mut self, value: usize, tasks: &[Task], lives: &mut [Life]) {
        let home = self.homes[value];
        let gaps = self.geometry[home].filter(|geometry| geometry.pads != [0; 3]);
        let (filled, mirrored) = (gaps.is_some_and(|gaps| !gaps.mirrored), gaps.is_some_and(|gaps| gaps.mirrored));
        let before = (filled && lives[home].is_none()).then_some(Task::Fill(home));
        let after = (mirrored && value == home).then_some(Task::Mirror(home));
        for task in before.into_iter().chain(tasks.iter().copied()).chain(after) {
            extend(&mut lives[home], self.tasks.len());
            self.tasks.push(task);
        }
    }

    /// A convolution and the codewise tasks that follow it at once, row for row; any other task alone.
    fn group(&self, network: &Network<'_>) -> Vec<Range<usize>> {
        let rows = |layer: usize| {
            let [depth, height, _] = network.shapes[layer + 1].size;
            depth * height
        };
        let convolution = |task: &Task| match *task {
            Task::Layer(layer, _) if matches!(network.spec.net.layers[layer].op, Op::Conv(_)) => Some(rows(layer)),
            _ => None,
        };
        let codewise = |task: &Task| match *task {
            Task::Leak(layer) => Some(rows(layer)),
            Task::Layer(layer, _) => match network.spec.net.layers[layer].op {
                Op::Add { .. } | Op::Norm { .. } => Some(rows(layer)),
                _ => None,
            },
            _ => None,
        };
        let mut groups: Vec<Range<usize>> = vec![];
        for (index, task) in self.tasks.iter().enumerate() {
            let joins = |group: &&mut Range<usize>| {
                let (first, next) = (convolution(&self.tasks[group.start]), codewise(task));
                first.is_some() && first == next
            };
            match groups.last_mut().filter(joins) {
                Some(group) => group.end = index + 1,
                None => groups.push(index..index + 1),
            }
        }
        groups
    }

    /// Words of a value; a join has none.
    pub fn words(&self, value: usize) -> usize {
        self.geometry[value].map_or(0, |geometry| geometry.words())
    }
}
