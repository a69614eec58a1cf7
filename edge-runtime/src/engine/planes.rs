//! What the planes of each value hold, what is around them, and which planes a layer makes from which.

use std::ops::Range;

use contract::net::{Conv, Layer, Op, Padding, Shape};

use super::{load::Network, lower::Unfit};
use crate::kernels::{PACK, View};

/// Channel of each lane of a value's planes; `None` for lanes that hold nothing.
pub type Lanes = Vec<Option<usize>>;

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

/// Nearest-neighbour up-sampling behind the head only repeats labels.
pub fn logits(network: &Network<'_>) -> (usize, [usize; 3]) {
    let (layers, last) = (&network.spec.net.layers, network.shapes.len() - 1);
    match &layers[last - 1].op {
        Op::Upsample { factor } if last > 1 => (layers[last - 1].inputs[0], *factor),
        _ => (last, [1; 3]),
    }
}

/// Whether the image has one channel, and only convolutions read it that look at each pixel and its neighbours: then a word
/// can hold all three.
pub fn unfolds(network: &Network<'_>) -> bool {
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
fn own(shape: &Shape) -> Lanes {
    (0..shape.channels.next_multiple_of(PACK)).map(|lane| (lane < shape.channels).then_some(lane)).collect()
}

/// Channel of each lane of every value: joins keep the empty lanes of their inputs.
pub fn lanes(network: &Network<'_>, unfolded: bool) -> Vec<Lanes> {
    let image = if unfolded { vec![Some(0), Some(1), Some(2), None] } else { own(&network.shapes[0]) };
    let mut lanes = vec![image];
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

/// The values that each value is made of.
pub fn parts(network: &Network<'_>) -> Vec<Vec<usize>> {
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
pub fn homes(network: &Network<'_>, lanes: &[Lanes], parts: &[Vec<usize>], logits: usize) -> Vec<usize> {
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
pub fn pieces(network: &Network<'_>, lanes: &[Lanes], parts: &[Vec<usize>], index: usize) -> Result<Vec<Piece>, Unfit> {
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
fn same_lanes(network: &Network<'_>, lanes: &[Lanes], index: usize) -> bool {
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
pub fn picks(
    network: &Network<'_>,
    lanes: &[Lanes],
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
pub fn geometry(
    network: &Network<'_>,
    lanes: &[Lanes],
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
