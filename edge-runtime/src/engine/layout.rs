//! Which values lie in memory, with what gaps, from when to when, and in what order things are done: all that a plan
//! needs before places are known.

use std::ops::Range;

use contract::net::{Activation, Conv, Layer, Op, Padding, Shape};

use super::{load::Network, lower::Unfit, plan::Buffer};
use crate::kernels::{Kernels, PACK, View};

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

/// Value, plane and byte of its words where a channel lies.
pub type Source = (usize, usize, usize);

/// Planes of a layer's output and the planes that they are made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Of the output.
    pub planes: Range<usize>,
    /// Value and first plane, one per input; none for channels of zeros.
    pub sources: Vec<(usize, usize)>,
}

/// Where values live and what is done when.
pub struct Layout {
    /// Of each value, the values that it is made of: itself, or for joins their inputs' in order. A join is no memory: its
    /// readers find the planes where they are.
    pub parts: Vec<Vec<usize>>,
    /// The value in whose memory each value lies: itself, or what a sum or a norm makes of it in place.
    pub homes: Vec<usize>,
    /// Channel of each lane of each value's planes.
    pub lanes: Vec<Vec<Option<usize>>>,
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

/// Planes of one value and what is around them.
#[derive(Clone, Copy, Debug)]
pub struct Geometry {
    planes: usize,
    size: [usize; 3],
    pub pads: [usize; 3],
    /// The value itself stands around it, so that every row needs gaps of its own on both sides. Zeros behind a row serve as
    /// those before the next.
    pub mirrored: bool,
    /// Words behind the end that a last quad may read.
    tail: usize,
    pub zero: i8,
}

impl Geometry {
    /// All of it, gaps and tail included.
    pub fn words(&self) -> usize {
        let view = self.view(0);
        let before = if self.mirrored { 0 } else { view.origin };
        before + self.planes * view.plane + self.tail
    }

    /// With its first gap at word `origin`.
    pub fn view(&self, origin: usize) -> View {
        let ([d, h, w], [pz, py, px]) = (self.size, self.pads);
        let sides = if self.mirrored { 2 } else { 1 };
        let row = w + sides * px;
        let slab = (h + sides * py) * row;
        let before = pz * slab + py * row + px;
        View {
            origin: origin + before,
            planes: self.planes,
            size: self.size,
            row,
            slab,
            plane: (d + sides * pz) * slab,
        }
    }
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

/// Nearest-neighbour up-sampling behind the head only repeats labels.
fn logits(network: &Network<'_>) -> (usize, [usize; 3]) {
    let (layers, last) = (&network.spec.net.layers, network.shapes.len() - 1);
    match &layers[last - 1].op {
        Op::Upsample { factor } if last > 1 => (layers[last - 1].inputs[0], *factor),
        _ => (last, [1; 3]),
    }
}

/// Whether the image has one channel, and only convolutions read it that look at each pixel and its neighbours: then a word
/// can hold all three.
fn unfolds(network: &Network<'_>) -> bool {
    let fits = |layer: &Layer| match &layer.op {
        Op::Conv(conv) => conv.padding == Padding::Zero && conv.kernel[2] == 3 && conv.dilation[2] == 1,
        _ => false,
    };
    network.shapes[0].channels == 1
        && network.spec.net.layers.iter().filter(|layer| layer.inputs.contains(&0)).all(fits)
}

/// What a convolution needs around a value.
fn pads(conv: &Conv, input: usize, unfolded: bool) -> [usize; 3] {
    let [depth, height, width] = conv.pads();
    [depth, height, if unfolded && input == 0 { 0 } else { width }]
}

/// Channels in order, the last plane filled up.
fn own(shape: &Shape) -> Vec<Option<usize>> {
    (0..shape.channels.next_multiple_of(PACK)).map(|lane| (lane < shape.channels).then_some(lane)).collect()
}

/// Channel of each lane of every value: joins keep the empty lanes of their inputs.
fn lanes(network: &Network<'_>, unfolded: bool) -> Vec<Vec<Option<usize>>> {
    let image = if unfolded { vec![Some(0), Some(1), Some(2), None] } else { own(&network.shapes[0]) };
    let mut lanes: Vec<Vec<Option<usize>>> = vec![image];
    for (layer, shape) in network.spec.net.layers.iter().zip(&network.shapes[1..]) {
        let next = match &layer.op {
            Op::Conv(_) | Op::PadChannels { .. } | Op::PixelShuffle { .. } => own(shape),
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

/// A sum or a norm works in the memory of the value that nobody else reads.
fn homes(network: &Network<'_>, lanes: &[Vec<Option<usize>>], parts: &[Vec<usize>], logits: usize) -> Vec<usize> {
    let layers = &network.spec.net.layers;
    let reads = |value: usize| {
        let all = layers.iter().flat_map(|layer| &layer.inputs).flat_map(|&input| &parts[input]);
        all.filter(|&&read| read == value).count() + usize::from(value == logits)
    };
    let mut homes: Vec<usize> = (0..parts.len()).collect();
    for (index, layer) in layers.iter().enumerate().rev() {
        if !matches!(layer.op, Op::Add { .. } | Op::Norm { .. }) {
            continue;
        }
        let free = |&&value: &&usize| value > 0 && parts[value] == [value] && reads(value) == 1;
        // A picked input takes the output's memory.
        if layer.inputs.iter().any(|&value| lanes[value] != lanes[index + 1]) {
            continue;
        }
        // The later value was made just before.
        let input = layer.inputs.iter().filter(free).max();
        if let Some(&value) = input {
            homes[value] = homes[index + 1];
        }
    }
    homes
}

/// Planes of the output and where they come from, of layers that work plane by plane.
fn pieces(
    network: &Network<'_>,
    lanes: &[Vec<Option<usize>>],
    parts: &[Vec<usize>],
    index: usize,
) -> Result<Vec<Piece>, Unfit> {
    let layer = &network.spec.net.layers[index];
    let unfit = |reason| Unfit::Shape { layer: layer.name.clone(), reason };
    let planes = |value: usize| lanes[value].len() / PACK;
    // Of each plane of an input: the part and its plane.
    let planes_of = |value: usize| -> Vec<(usize, usize)> {
        parts[value].iter().flat_map(|&part| (0..planes(part)).map(move |plane| (part, plane))).collect()
    };
    let input = layer.inputs[0];
    let plain = parts[input].len() == 1 && lanes[input] == own(&network.shapes[input]);
    let sources: Vec<Vec<(usize, usize)>> = match &layer.op {
        Op::MaxPool { .. } | Op::Upsample { .. } | Op::Interpolate { .. } | Op::Norm { .. } => {
            planes_of(input).into_iter().map(|source| vec![source]).collect()
        }
        Op::Add { .. } => {
            // What has been picked lies in the output.
            let other = if same_lanes(network, lanes, index) { layer.inputs[1] } else { index + 1 };
            planes_of(input).into_iter().zip(planes_of(other)).map(|(a, b)| vec![a, b]).collect()
        }
        Op::PadChannels { front, .. } if same_lanes(network, lanes, index) => {
            let blank = vec![vec![]; front / PACK];
            let copied = planes_of(input).into_iter().map(|source| vec![source]);
            let mut sources: Vec<_> = blank.into_iter().chain(copied).collect();
            sources.resize(planes(index + 1), vec![]);
            sources
        }
        Op::PixelShuffle { .. } if !plain => return Err(unfit("shuffles a join")),
        _ => return Ok(vec![]),
    };
    let mut pieces: Vec<Piece> = vec![];
    for (plane, sources) in sources.into_iter().enumerate() {
        let follows = |piece: &&mut Piece| {
            let next: Vec<_> =
                piece.sources.iter().map(|&(value, first)| (value, first + piece.planes.len())).collect();
            next == sources
        };
        match pieces.last_mut().filter(follows) {
            Some(piece) => piece.planes.end = plane + 1,
            None => pieces.push(Piece { planes: plane..plane + 1, sources }),
        }
    }
    Ok(pieces)
}

/// Whether the channels of a sum's or a padding's inputs lie in the lanes that the output has for them.
fn same_lanes(network: &Network<'_>, lanes: &[Vec<Option<usize>>], index: usize) -> bool {
    let layer = &network.spec.net.layers[index];
    match layer.op {
        Op::Add { .. } => lanes[layer.inputs[1]] == lanes[index + 1],
        Op::PadChannels { front, back } => {
            let input = &network.shapes[layer.inputs[0]];
            let whole = |channels: usize| channels.is_multiple_of(PACK);
            lanes[layer.inputs[0]] == own(input) && whole(front) && (back == 0 || whole(input.channels))
        }
        _ => true,
    }
}

/// Where the channels of an input that lie in other lanes than the output's come from.
fn picks(
    network: &Network<'_>,
    lanes: &[Vec<Option<usize>>],
    parts: &[Vec<usize>],
    index: usize,
) -> Option<Vec<Option<Source>>> {
    let layer = &network.spec.net.layers[index];
    let (input, front) = match layer.op {
        Op::PadChannels { front, .. } => (layer.inputs[0], front),
        _ => (*layer.inputs.get(1)?, 0),
    };
    let source = |channel: usize| {
        let wanted = channel.checked_sub(front)?;
        let mut at = lanes[input].iter().position(|lane| *lane == Some(wanted))?;
        for &part in &parts[input] {
            match at.checked_sub(lanes[part].len()) {
                Some(behind) => at = behind,
                None => return Some((part, at / PACK, at % PACK)),
            }
        }
        None
    };
    let sources = || lanes[index + 1].iter().map(|lane| lane.and_then(source)).collect();
    (!same_lanes(network, lanes, index)).then(sources)
}

/// Gaps as wide as the widest padding of the convolutions that read a value; the same for values that one convolution
/// reads together, because it steps from row to row in all of them at once.
fn geometry(
    network: &Network<'_>,
    lanes: &[Vec<Option<usize>>],
    parts: &[Vec<usize>],
    unfolded: bool,
) -> Result<Vec<Option<Geometry>>, Unfit> {
    let own = |value: usize| {
        let (planes, size, zero) = (lanes[value].len() / PACK, network.shapes[value].size, network.zeros[value]);
        let geometry = Geometry { planes, size, pads: [0; 3], mirrored: false, tail: 4, zero };
        (parts[value] == [value]).then_some(geometry)
    };
    let mut geometry: Vec<Option<Geometry>> = (0..lanes.len()).map(own).collect();
    let convs = |layer: &'_ Layer| match &layer.op {
        Op::Conv(conv) => Some((layer.inputs[0], conv.clone())),
        _ => None,
    };
    let convs: Vec<(usize, Conv)> = network.spec.net.layers.iter().filter_map(convs).collect();
    loop {
        let mut grown = false;
        for (input, conv) in &convs {
            let pads = pads(conv, *input, unfolded);
            let start = (pads, pads != [0; 3] && conv.padding == Padding::Symmetric);
            let read = &parts[*input];
            let (pads, mirrored) =
                read.iter().filter_map(|&value| geometry[value]).fold(start, |(pads, mirrored), part| {
                    (std::array::from_fn(|axis| pads[axis].max(part.pads[axis])), mirrored || part.mirrored)
                });
            for &value in read {
                let Some(part) = &mut geometry[value] else { continue };
                grown |= part.pads != pads || part.mirrored != mirrored;
                (part.pads, part.mirrored, part.tail) = (pads, mirrored, part.tail.max(4 * conv.stride[2]));
            }
        }
        if !grown {
            break;
        }
    }
    for layer in &network.spec.net.layers {
        let Op::Conv(conv) = &layer.op else { continue };
        let mirrored = parts[layer.inputs[0]].iter().filter_map(|&value| geometry[value]).any(|part| part.mirrored);
        if mirrored && conv.padding == Padding::Zero && conv.pads() != [0; 3] {
            let reason = "reads zeros around a value around which another layer reads its mirror";
            return Err(Unfit::Shape { layer: layer.name.clone(), reason });
        }
    }
    Ok(geometry)
}
