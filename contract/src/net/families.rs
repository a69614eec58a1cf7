//! The networks Gantry knows: three of the `compact` kind for devices, and the paper's two (Dou et al. 2020), exact in every layer.

use alloc::{
    format,
    string::{String, ToString},
    vec,
    vec::Vec,
};

use super::{Activation, Conv, Deconv, Layer, Net, NormKind, Op, Padding, Shape, Spatial};

/// TensorFlow's default slope, which the paper's networks use.
const PAPER_SLOPE: Activation = Activation::LeakyRelu(0.2);

/// Appends layers and hands out value numbers.
struct Builder {
    layers: Vec<Layer>,
}

impl Builder {
    fn push(&mut self, name: &str, inputs: &[usize], op: Op) -> usize {
        self.layers.push(Layer { name: name.to_string(), inputs: inputs.to_vec(), op });
        self.layers.len()
    }

    fn conv(&mut self, name: &str, input: usize, conv: Conv) -> usize {
        self.push(name, &[input], Op::Conv(conv))
    }

    fn finish(self, name: String, spatial: Spatial, input: Shape) -> Net {
        Net { name, spatial, norm: NormKind::Batch, input, layers: self.layers }
    }
}

impl Net {
    /// The edge default: a 2D U-shaped network of conv, norm and ReLU whose every operation runs well in int8.
    ///
    /// Five levels of `base * [1, 2, 3, 4, 4]` channels. The way up is a 1x1 convolution at the lower resolution,
    /// nearest-neighbour up-sampling and a 3x3 convolution over the joined skip: no transposed convolution.
    /// `height` and `width` must be multiples of 16.
    pub fn compact(slices: usize, classes: usize, base: usize, height: usize, width: usize) -> Net {
        let widths = [base, 2 * base, 3 * base, 4 * base, 4 * base];
        let mut b = Builder { layers: vec![] };
        let mut skips = vec![];
        let mut value = 0;
        for (level, &channels) in widths.iter().enumerate() {
            let n = level + 1;
            if level > 0 {
                value = b.push(&format!("pool{n}"), &[value], Op::MaxPool { size: [1, 2, 2] });
            }
            value = b.conv(&format!("enc{n}a"), value, Conv::plane(channels, 3));
            value = b.conv(&format!("enc{n}b"), value, Conv::plane(channels, 3));
            skips.push(value);
        }
        for level in (0..widths.len() - 1).rev() {
            let (n, channels) = (level + 1, widths[level]);
            value = b.conv(&format!("narrow{n}"), value, Conv::plane(channels, 1));
            value = b.push(&format!("up{n}"), &[value], Op::Upsample { factor: [1, 2, 2] });
            value = b.push(&format!("join{n}"), &[value, skips[level]], Op::Concat);
            value = b.conv(&format!("dec{n}a"), value, Conv::plane(channels, 3));
            value = b.conv(&format!("dec{n}b"), value, Conv::plane(channels, 3));
        }
        let head = Conv { bias: true, norm: false, activation: Activation::None, ..Conv::plane(classes, 1) };
        b.conv("head", value, head);
        b.finish(format!("compact-{base}"), Spatial::D2, Shape::plane(slices, height, width))
    }

    /// A 2D residual network for devices: three times half the size, then a dilated block that sees far, and the head on an
    /// eighth of the pixels with nearest-neighbour up-sampling behind it, so that labels can be chosen before they are spread.
    ///
    /// `base * [1, 2, 4, 8]` channels. A block is conv, norm, ReLU, conv, norm, plus its input (behind a 1x1 convolution with
    /// a norm where the channels change), ReLU. `height` and `width` must be multiples of 8.
    pub fn compact_dilated(slices: usize, classes: usize, base: usize, height: usize, width: usize) -> Net {
        let mut b = Builder { layers: vec![] };
        let mut value = b.conv("stem", 0, Conv::plane(base, 3));
        value = block(&mut b, "block1", value, None, base, 1);
        for (n, channels) in [(2, 2 * base), (3, 4 * base), (4, 8 * base)] {
            value = b.push(&format!("pool{n}"), &[value], Op::MaxPool { size: [1, 2, 2] });
            let shortcut = Conv { activation: Activation::None, ..Conv::plane(channels, 1) };
            value = block(&mut b, &format!("block{n}"), value, Some(shortcut), channels, 1);
        }
        value = block(&mut b, "dilated", value, None, 8 * base, 2);
        let head = Conv { bias: true, norm: false, activation: Activation::None, ..Conv::plane(classes, 1) };
        value = b.conv("head", value, head);
        b.push("up", &[value], Op::Upsample { factor: [1, 8, 8] });
        b.finish(format!("compact-dilated-{base}"), Spatial::D2, Shape::plane(slices, height, width))
    }

    /// [`Net::compact`] in 3D, of four levels of `base * [1, 2, 4, 8]` channels, for one channel of `depth` x `height` x `width`
    /// voxels, all multiples of 8.
    pub fn compact3d(classes: usize, base: usize, depth: usize, height: usize, width: usize) -> Net {
        let widths = [base, 2 * base, 4 * base, 8 * base];
        let unit = |channels: usize| Conv { kernel: [3; 3], ..Conv::plane(channels, 3) };
        let mut b = Builder { layers: vec![] };
        let mut skips = vec![];
        let mut value = 0;
        for (level, &channels) in widths.iter().enumerate() {
            let n = level + 1;
            if level > 0 {
                value = b.push(&format!("pool{n}"), &[value], Op::MaxPool { size: [2; 3] });
            }
            value = b.conv(&format!("enc{n}a"), value, unit(channels));
            value = b.conv(&format!("enc{n}b"), value, unit(channels));
            skips.push(value);
        }
        for level in (0..widths.len() - 1).rev() {
            let (n, channels) = (level + 1, widths[level]);
            value = b.conv(&format!("narrow{n}"), value, Conv::plane(channels, 1));
            value = b.push(&format!("up{n}"), &[value], Op::Upsample { factor: [2; 3] });
            value = b.push(&format!("join{n}"), &[value, skips[level]], Op::Concat);
            value = b.conv(&format!("dec{n}a"), value, unit(channels));
            value = b.conv(&format!("dec{n}b"), value, unit(channels));
        }
        let head = Conv { bias: true, norm: false, activation: Activation::None, ..Conv::plane(classes, 1) };
        b.conv("head", value, head);
        b.finish(format!("compact3d-{base}"), Spatial::D3, Shape { channels: 1, size: [depth, height, width] })
    }

    /// The paper's 2D dilated residual network (facts from the authors' released code): pre-activation blocks, zero-padded
    /// shortcuts, x8 sub-pixel up-sampling, 5x5 head, no biases; three neighbouring slices in, 5 classes in the paper.
    ///
    /// `base * [1, 2, 4, 8, 16, 32]` channels, of which the paper has `base` = 16; 4 `base` channels per 8 x 8 block and class
    /// before the sub-pixels. `height` and `width` must be multiples of 8.
    pub fn dilated2d(classes: usize, base: usize, height: usize, width: usize) -> Net {
        let plain = |channels| Conv {
            out_channels: channels,
            norm: false,
            activation: Activation::None,
            ..Conv::plane(channels, 3)
        };
        let mut b = Builder { layers: vec![] };
        let mut value = b.conv("g1.stem", 0, plain(base));
        let pool = Op::MaxPool { size: [1, 2, 2] };
        value = residual(&mut b, "g1.rb1", value, base, base, 1);
        value = b.push("g1.pool", &[value], pool.clone());
        value = residual(&mut b, "g2.rb1", value, base, 2 * base, 1);
        value = b.push("g2.pool", &[value], pool.clone());
        value = residual(&mut b, "g3.rb1", value, 2 * base, 4 * base, 1);
        value = residual(&mut b, "g3.rb2", value, 4 * base, 4 * base, 1);
        value = b.push("g3.pool", &[value], pool);
        let groups = [(4, 4, 8, 1), (5, 8, 16, 1), (6, 16, 16, 1), (7, 16, 32, 1), (8, 32, 32, 2)];
        for (group, input, output, dilation) in groups {
            let (input, output) = (input * base, output * base);
            value = residual(&mut b, &format!("g{group}.rb1"), value, input, output, dilation);
            value = residual(&mut b, &format!("g{group}.rb2"), value, output, output, dilation);
        }
        value = pre_activated_pair(&mut b, "g9", value, 32 * base, 32 * base, 1);
        let shuffled = 8 * 8 * classes * base.div_ceil(2);
        let wide = Conv { padding: Padding::Symmetric, norm: true, activation: PAPER_SLOPE, ..plain(shuffled) };
        value = b.conv("g10", value, wide);
        value = b.push("g10.shuffle", &[value], Op::PixelShuffle { factor: 8 });
        b.conv("head", value, Conv { kernel: [1, 5, 5], padding: Padding::Symmetric, ..plain(classes) });
        b.finish(format!("dilated2d-{base}"), Spatial::D2, Shape::plane(3, height, width))
    }

    /// The paper's 3D U-Net (facts from the authors' released code) for patches of `depth` (z) x `height` x `width` voxels
    /// of one channel; the paper has 8 x 256 x 256 and 5 classes. All three are multiples of 8.
    ///
    /// `base * [1, 2, 4, 8, 16]` channels, of which the paper has `base` = 16. As published, the transposed convolutions
    /// `deconv3` and `deconv2` have kernel 1 and stride 2 along z, which leaves every second slice of their outputs zero; here
    /// the kernel is 2, the least that reaches every slice. [`Net::unet3d_hollow`] is the published form.
    pub fn unet3d(classes: usize, base: usize, depth: usize, height: usize, width: usize) -> Net {
        unet3d(format!("unet3d-{base}"), 2, classes, base, [depth, height, width])
    }

    /// [`Net::unet3d`] with the published kernels, which leave every second slice of `deconv3` and `deconv2` zero.
    pub fn unet3d_hollow(classes: usize, base: usize, depth: usize, height: usize, width: usize) -> Net {
        unet3d(format!("unet3d-hollow-{base}"), 1, classes, base, [depth, height, width])
    }
}

/// The paper's 3D U-Net, whose two deeper transposed convolutions have `up_kz` taps along z.
fn unet3d(name: String, up_kz: usize, classes: usize, base: usize, size: [usize; 3]) -> Net {
    let mut b = Builder { layers: vec![] };
    let unit =
        |channels: usize, kz: usize| Conv { kernel: [kz, 3, 3], activation: PAPER_SLOPE, ..Conv::plane(channels, 3) };
    let mut value = 0;
    let mut skips = vec![];
    for (level, (first, second, kz)) in [(1, 2, 3), (2, 4, 3), (4, 8, 1), (8, 16, 1)].into_iter().enumerate() {
        let n = level + 1;
        if level > 0 {
            value = b.push(&format!("pool{n}"), &[value], Op::MaxPool { size: [2; 3] });
        }
        value = b.conv(&format!("encoder{n}_1"), value, unit(first * base, kz));
        value = b.conv(&format!("encoder{n}_2"), value, unit(second * base, kz));
        skips.push(value);
    }
    for (n, channels, up_kz, kz, width) in [(3, 8, up_kz, 1, 8), (2, 8, up_kz, 3, 4), (1, 4, 3, 3, 2)] {
        let deconv = Deconv {
            out_channels: channels * base,
            kernel: [up_kz, 3, 3],
            stride: [2; 3],
            norm: true,
            activation: PAPER_SLOPE,
        };
        value = b.push(&format!("deconv{n}"), &[value], Op::Deconv(deconv));
        value = b.push(&format!("join{n}"), &[value, skips[n - 1]], Op::Concat);
        value = b.conv(&format!("decoder{n}_1"), value, unit(width * base, kz));
        value = b.conv(&format!("decoder{n}_2"), value, unit(width * base, kz));
    }
    let head = Conv { bias: true, norm: false, activation: Activation::None, ..Conv::plane(classes, 1) };
    b.conv("head", value, head);
    b.finish(name, Spatial::D3, Shape { channels: 1, size })
}

/// `relu(shortcut(x) + conv(relu(conv(x))))`, norms behind the convolutions.
fn block(b: &mut Builder, name: &str, input: usize, shortcut: Option<Conv>, channels: usize, dilation: usize) -> usize {
    let conv = Conv { dilation: [1, dilation, dilation], ..Conv::plane(channels, 3) };
    let straight = match shortcut {
        None => input,
        Some(shortcut) => b.conv(&format!("{name}.shortcut"), input, shortcut),
    };
    let value = b.conv(&format!("{name}.a"), input, conv.clone());
    let branch = b.conv(&format!("{name}.b"), value, Conv { activation: Activation::None, ..conv });
    b.push(&format!("{name}.sum"), &[straight, branch], Op::Add { activation: Activation::Relu })
}

/// `shortcut(x) + BLRC(BLRC(x))` of the paper's 2D network.
fn residual(b: &mut Builder, name: &str, input: usize, channels: usize, out: usize, dilation: usize) -> usize {
    let branch = pre_activated_pair(b, name, input, channels, out, dilation);
    let added = out - channels;
    let shortcut = match added {
        0 => input,
        _ => b.push(&format!("{name}.pad"), &[input], Op::PadChannels { front: added / 2, back: added - added / 2 }),
    };
    b.push(&format!("{name}.sum"), &[shortcut, branch], Op::Add { activation: Activation::None })
}

/// Twice norm, leaky ReLU, 3x3 convolution, dropout. The second norm stands right behind the first convolution, so it is
/// that convolution's own.
fn pre_activated_pair(
    b: &mut Builder,
    name: &str,
    input: usize,
    channels: usize,
    out: usize,
    dilation: usize,
) -> usize {
    debug_assert!(channels <= out);
    let conv =
        Conv { dilation: [1, dilation, dilation], dropout: 0.25, activation: PAPER_SLOPE, ..Conv::plane(out, 3) };
    let value = b.push(&format!("{name}.pre"), &[input], Op::Norm { activation: PAPER_SLOPE });
    let value = b.conv(&format!("{name}.a"), value, conv.clone());
    b.conv(&format!("{name}.b"), value, Conv { norm: false, activation: Activation::None, ..conv })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// facts of the paper's released code: 33 kernels, 31 norms, 41.5 GMAC per 256x256 slice.
    #[test]
    fn dilated2d_has_the_papers_counts() {
        let net = Net::dilated2d(5, 16, 256, 256);
        let counts = net.counts().unwrap();
        assert_eq!(counts.shared, 39_302_456);
        assert_eq!(counts.norm_per_modality, 20_192);
        assert_eq!(counts.macs / 100_000_000, 415);
        let convs = net.layers.iter().filter(|layer| matches!(layer.op, Op::Conv(_))).count();
        let norms = net.layers.iter().filter(|layer| layer.has_norm()).count();
        assert_eq!((convs, norms), (33, 31));
        assert_eq!(net.shapes().unwrap().last(), Some(&Shape::plane(5, 256, 256)));
    }

    /// facts of the paper's released code: 17 norms, 113.7 GMAC per patch.
    #[test]
    fn unet3d_has_the_papers_counts() {
        let net = Net::unet3d_hollow(5, 16, 8, 256, 256);
        let counts = net.counts().unwrap();
        assert_eq!(counts.shared, 2_198_613);
        assert_eq!(counts.norm_per_modality, 2_976);
        assert_eq!(net.layers.iter().filter(|layer| layer.has_norm()).count(), 17);
        assert_eq!(net.shapes().unwrap().last(), Some(&Shape { channels: 5, size: [8, 256, 256] }));
        assert_eq!(counts.macs / 100_000_000, 1137);
    }

    /// Dropout behind every convolution of the blocks, zeros on both sides of a shortcut, mirrored edges at the end.
    #[test]
    fn dilated2d_has_the_papers_details() {
        let net = Net::dilated2d(5, 16, 64, 64);
        let mut shortcuts = vec![];
        for layer in &net.layers {
            match &layer.op {
                Op::Conv(conv) => {
                    let plain = ["g1.stem", "g10", "head"].contains(&layer.name.as_str());
                    assert_eq!(conv.dropout, if plain { 0. } else { 0.25 }, "{}", layer.name);
                    let mirrored = ["g10", "head"].contains(&layer.name.as_str());
                    assert_eq!(conv.padding == Padding::Symmetric, mirrored, "{}", layer.name);
                    assert_eq!(conv.dilation[2], if layer.name.starts_with("g8") { 2 } else { 1 }, "{}", layer.name);
                    assert!(!conv.bias, "{}", layer.name);
                }
                Op::PadChannels { front, back } => shortcuts.push((*front, *back)),
                _ => {}
            }
        }
        assert_eq!(shortcuts, [(8, 8), (16, 16), (32, 32), (64, 64), (128, 128)]);
    }

    /// What was up-sampled stands in front of what was skipped; no dropout anywhere.
    #[test]
    fn unet3d_has_the_papers_details() {
        let net = Net::unet3d(5, 16, 8, 32, 32);
        let name = |value: usize| net.layers[value - 1].name.as_str();
        let joins = net.layers.iter().filter(|layer| matches!(layer.op, Op::Concat));
        let joins: Vec<_> = joins.map(|layer| [name(layer.inputs[0]), name(layer.inputs[1])]).collect();
        assert_eq!(joins, [["deconv3", "encoder3_2"], ["deconv2", "encoder2_2"], ["deconv1", "encoder1_2"]]);
        assert!(net.layers.iter().all(|layer| !matches!(&layer.op, Op::Conv(conv) if conv.dropout > 0.)));
    }

    /// One tap more along z in two layers of 16 * 8 outputs, whose inputs have 256 and 128 channels; half the base, a quarter
    /// of the weights between two wide layers.
    #[test]
    fn unet3d_reaches_every_slice_with_the_least_of_weights() {
        let counts = Net::unet3d(5, 16, 8, 256, 256).counts().unwrap();
        assert_eq!(counts.shared, 2_198_613 + 9 * 128 * (256 + 128));
        assert_eq!(counts.norm_per_modality, 2_976);
        let half = Net::unet3d(5, 8, 8, 256, 256).counts().unwrap();
        assert_eq!(half.norm_per_modality, 2_976 / 2);
        // The first layer has one input and the head 5 outputs, whatever the base; the head's biases stay.
        let ends = |base: usize| 27 * base + 2 * base * 5;
        assert_eq!((counts.shared - 5 - ends(16)) / 4, half.shared - 5 - ends(8));
    }

    /// Counted by hand for base 16, one slice, 5 classes.
    #[test]
    fn compact_is_small_and_keeps_the_size() {
        let net = Net::compact(1, 5, 16, 128, 160);
        assert_eq!(net.shapes().unwrap().last(), Some(&Shape::plane(5, 128, 160)));
        let encoder = 9 * (16 + 16 * 16 + 16 * 32 + 32 * 32 + 32 * 48 + 48 * 48 + 48 * 64 + 3 * 64 * 64);
        let narrow = 64 * 64 + 64 * 48 + 48 * 32 + 32 * 16;
        let decoder = 9 * 3 * (64 * 64 + 48 * 48 + 32 * 32 + 16 * 16);
        let counts = net.counts().unwrap();
        assert_eq!(counts.shared, encoder + narrow + decoder + 16 * 5 + 5);
        let channels = 2 * (16 + 32 + 48 + 64 + 64) + (64 + 48 + 32 + 16) + 2 * (64 + 48 + 32 + 16);
        assert_eq!(counts.norm_per_modality, 2 * channels);
        assert!(Net::compact(1, 5, 16, 120, 128).shapes().is_err(), "120 is no multiple of 16");
    }

    /// Counted by hand for base 16, three slices, 5 classes: 0.60 M weights, 1.34 GMAC.
    #[test]
    fn compact_dilated_is_small_and_keeps_the_size() {
        let net = Net::compact_dilated(3, 5, 16, 256, 256);
        assert_eq!(net.shapes().unwrap().last(), Some(&Shape::plane(5, 256, 256)));
        let block = |input: usize, output: usize, shortcut: bool| {
            9 * (input * output + output * output) + if shortcut { input * output } else { 0 }
        };
        // At the full size, a half, a quarter and an eighth of it.
        let full = 9 * 3 * 16 + block(16, 16, false);
        let [half, quarter] = [block(16, 32, true), block(32, 64, true)];
        let eighth = block(64, 128, true) + block(128, 128, false) + 128 * 5;
        let counts = net.counts().unwrap();
        assert_eq!(counts.shared, full + half + quarter + eighth + 5);
        assert_eq!(counts.shared / 1000, 601);
        let pixels = 256 * 256;
        let macs = full * pixels + half * pixels / 4 + quarter * pixels / 16 + eighth * pixels / 64;
        assert_eq!(counts.macs, macs as u64);
        assert_eq!(counts.macs / 10_000_000, 133);
        assert_eq!(counts.norm_per_modality, 2 * (3 * 16 + 3 * 32 + 3 * 64 + 3 * 128 + 2 * 128));
        assert!(Net::compact_dilated(1, 5, 16, 132, 128).shapes().is_err(), "132 is no multiple of 8");
    }

    /// Counted by hand for base 8 and 5 classes: 0.33 M weights, 7.9 GMAC.
    #[test]
    fn compact3d_is_small_and_keeps_the_size() {
        let net = Net::compact3d(5, 8, 64, 96, 96);
        assert_eq!(net.shapes().unwrap().last(), Some(&Shape { channels: 5, size: [64, 96, 96] }));
        // From the full size down to an eighth of each axis.
        let full = 27 * (8 + 8 * 8 + 16 * 8 + 8 * 8) + 8 * 5;
        let half = 27 * (8 * 16 + 16 * 16 + 32 * 16 + 16 * 16) + 16 * 8;
        let quarter = 27 * (16 * 32 + 32 * 32 + 64 * 32 + 32 * 32) + 32 * 16;
        let eighth = 27 * (32 * 64 + 64 * 64) + 64 * 32;
        let counts = net.counts().unwrap();
        assert_eq!(counts.shared, full + half + quarter + eighth + 5);
        assert_eq!(counts.shared / 1000, 331);
        let voxels = 64 * 96 * 96;
        let macs = full * voxels + half * voxels / 8 + quarter * voxels / 64 + eighth * voxels / 512;
        assert_eq!(counts.macs, macs as u64);
        assert_eq!(counts.macs / 100_000_000, 78);
        assert_eq!(counts.norm_per_modality, 2 * (5 * 8 + 5 * 16 + 5 * 32 + 2 * 64));
        assert!(Net::compact3d(5, 8, 60, 96, 96).shapes().is_err(), "60 is no multiple of 8");
    }

    #[test]
    fn networks_survive_json() {
        let devices = [Net::compact(3, 5, 12, 64, 64), Net::compact_dilated(3, 5, 12, 64, 64)];
        let volumes =
            [Net::compact3d(5, 8, 16, 32, 32), Net::unet3d(5, 16, 8, 32, 32), Net::unet3d_hollow(5, 4, 8, 32, 32)];
        for net in devices.into_iter().chain(volumes).chain([Net::dilated2d(5, 16, 64, 64)]) {
            let text = serde_json::to_string(&net).unwrap();
            assert_eq!(serde_json::from_str::<Net>(&text).unwrap(), net);
        }
    }
}
