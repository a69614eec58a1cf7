//! A transposed convolution as one ordinary convolution, for number formats in which the standard has no transposed one.
//!
//! Along an axis of stride `s`, output `s * i + p` is a sum of `x[i - t] * w[p + s * t]` over whole `t`: for each of the `s`
//! phases `p` an ordinary convolution of the same input. The phases of all axes together are channels of one convolution,
//! which is followed by moving values alone: a reshape, a transpose, a reshape. Nothing is rounded that a transposed
//! convolution would not round, and each weight is a weight as before, so this is exact in every engine.
//!
//! The other way, zeros between the input's samples and the flipped kernel, is as exact and multiplies `s` times as much
//! along each axis, nearly all of it by zero. Here only the taps that a phase lacks (one of four for kernel 3 and stride 2)
//! are zeros. Kernels of fewer taps than the stride leave phases with no tap at all; those are 0 before the norm, as they
//! should be.

use contract::net::Deconv;

use crate::{
    onnx::{Graph, ints},
    quantise::QuantisedConv,
};

/// Weights `[in, out, taps]` as `[out, in, taps]`.
pub fn output_first(weights: &[f32], inputs: usize, outputs: usize) -> Vec<f32> {
    let taps = weights.len() / (inputs * outputs);
    let kernel = |output: usize, input: usize| &weights[(input * outputs + output) * taps..][..taps];
    (0..outputs).flat_map(|output| (0..inputs).flat_map(move |input| kernel(output, input))).copied().collect()
}

/// Kernel of the ordinary convolution, all of whose padding but its last sample lies before the input: `kernel - 1`.
pub fn kernel(deconv: &Deconv) -> [usize; 3] {
    core::array::from_fn(|axis| deconv.kernel[axis].div_ceil(deconv.stride[axis]))
}

/// The ordinary convolution: weights `[out * phases, in, taps of `[`kernel`]`]`, channel `out * phases + phase`, the phases in
/// the order of `[depth, height, width]`. `codes` has its weights output first.
pub fn expand(deconv: &Deconv, codes: &QuantisedConv) -> QuantisedConv {
    let (phases, taps) = (deconv.stride.iter().product::<usize>(), deconv.kernel.iter().product());
    let inputs = codes.weights.len() / (deconv.out_channels * taps);
    let mut weights = vec![];
    for output in 0..deconv.out_channels {
        for phase in positions(deconv.stride) {
            for input in 0..inputs {
                let source = &codes.weights[(output * inputs + input) * taps..][..taps];
                weights.extend(positions(kernel(deconv)).map(|tap| pick(deconv, source, phase, tap)));
            }
        }
    }
    let scales = codes.scales.iter().map(|row| repeat(row, phases)).collect();
    let biases = codes.biases.iter().map(|row| repeat(row, phases)).collect();
    QuantisedConv { weights, scales, biases }
}

/// Moves the phases `[1, out * phases, (d,) h, w]` to where they belong; `stride` and `size` are those of the axes that the
/// network has, the size before up-sampling.
pub fn interleave(graph: &mut Graph, stride: &[usize], size: &[usize], channels: usize, input: &str, name: &str) {
    let axes = stride.len();
    let shape = |graph: &mut Graph, part: &str, dims: &[usize]| {
        let dims: Vec<i64> = dims.iter().map(|&dim| dim as i64).collect();
        graph.i64s(&format!("{name}/{part}"), &[dims.len()], &dims)
    };
    let apart = shape(graph, "apart", &[&[channels], stride, size].concat());
    let joined: Vec<usize> = size.iter().zip(stride).map(|(size, stride)| size * stride).collect();
    let joined = shape(graph, "joined", &[&[1, channels][..], &joined].concat());
    // Each axis of the size, then the phases along it.
    let order: Vec<usize> = [0].into_iter().chain((1..=axes).flat_map(|axis| [axes + axis, axis])).collect();
    let split = graph.node("Reshape", &format!("{name}/split"), &[input, &apart], vec![]);
    let turned = graph.node("Transpose", &format!("{name}/turned"), &[&split], vec![ints("perm", &order)]);
    graph.node("Reshape", name, &[&turned, &joined], vec![]);
}

/// The weight that a phase multiplies with at a tap of its kernel, the last of which reads the input beside the output.
fn pick(deconv: &Deconv, source: &[i8], phase: [usize; 3], tap: [usize; 3]) -> i8 {
    let mut index = 0;
    for axis in 0..3 {
        let back = kernel(deconv)[axis] - 1 - tap[axis];
        let from = phase[axis] + deconv.stride[axis] * back;
        if from >= deconv.kernel[axis] {
            return 0;
        }
        index = index * deconv.kernel[axis] + from;
    }
    source[index]
}

fn positions(size: [usize; 3]) -> impl Iterator<Item = [usize; 3]> {
    let [depth, height, width] = size;
    (0..depth).flat_map(move |z| (0..height).flat_map(move |y| (0..width).map(move |x| [z, y, x])))
}

fn repeat<T: Copy>(row: &[T], times: usize) -> Vec<T> {
    row.iter().flat_map(|&value| core::iter::repeat_n(value, times)).collect()
}

#[cfg(test)]
mod tests {
    use contract::net::Activation;

    use super::*;

    fn deconv(kernel: [usize; 3], stride: [usize; 3]) -> Deconv {
        Deconv { out_channels: 2, kernel, stride, norm: true, activation: Activation::None }
    }

    /// By hand: output 2i is 3 x[i-1] + 1 x[i], output 2i + 1 is 2 x[i].
    #[test]
    fn three_taps_of_stride_two_are_two_phases_of_two_taps() {
        let codes = QuantisedConv {
            weights: vec![1, 2, 3, 4, 5, 6],
            scales: vec![vec![0.1, 0.2], vec![0.3, 0.4]],
            biases: vec![vec![7, 8], vec![9, 10]],
        };
        let wide = expand(&deconv([1, 1, 3], [1, 1, 2]), &codes);
        assert_eq!(wide.weights, [3, 1, 0, 2, 6, 4, 0, 5]);
        assert_eq!(wide.scales, [[0.1, 0.1, 0.2, 0.2], [0.3, 0.3, 0.4, 0.4]]);
        assert_eq!(wide.biases[1], [9, 9, 10, 10]);
    }

    #[test]
    fn one_tap_of_stride_two_leaves_a_phase_without_any() {
        let codes = QuantisedConv { weights: vec![5, -6], scales: vec![vec![0.1, 0.2]], biases: vec![vec![0, 0]] };
        assert_eq!(kernel(&deconv([1, 1, 1], [2, 1, 1])), [1; 3]);
        assert_eq!(expand(&deconv([1, 1, 1], [2, 1, 1]), &codes).weights, [5, 0, -6, 0]);
    }

    #[test]
    fn outputs_come_first() {
        assert_eq!(
            output_first(&[1., 2., 3., 4., 5., 6., 7., 8., 9., 10., 11., 12.], 2, 3).as_slice(),
            [1., 2., 7., 8., 3., 4., 9., 10., 5., 6., 11., 12.]
        );
    }
}
