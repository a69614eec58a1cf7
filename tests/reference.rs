//! The whole network as nested loops: the meaning that every faster program is compared with.
//!
//! One walk over the layers of a `Net` per number format: [`float`] works on a checkpoint's weights in double precision with
//! norms unfolded, [`int8`] on a model file's codes with the one rounding rule. What only moves values is shared here.

pub mod float;
pub mod int8;

use contract::net::{Activation, Padding, Shape};
use sha2::{Digest, Sha256};

/// One value of the network, `[c, d, h, w]` in row-major order; depth is 1 in 2D.
#[derive(Clone, Debug, PartialEq)]
pub struct Values<T> {
    /// Channels and size.
    pub shape: Shape,
    /// As many as the shape has elements.
    pub data: Vec<T>,
}

impl<T: Copy + PartialOrd> Values<T> {
    /// # Panics
    /// If `data` is not as long as the shape says.
    pub fn new(shape: Shape, data: Vec<T>) -> Self {
        assert_eq!(data.len(), shape.elements(), "elements of {shape:?}");
        Self { shape, data }
    }

    /// Fills a shape from a function of channel and position.
    fn build(shape: Shape, mut element: impl FnMut(usize, [usize; 3]) -> T) -> Self {
        let mut data = Vec::with_capacity(shape.elements());
        let [depth, height, width] = shape.size;
        for c in 0..shape.channels {
            for z in 0..depth {
                for y in 0..height {
                    for x in 0..width {
                        data.push(element(c, [z, y, x]));
                    }
                }
            }
        }
        Self { shape, data }
    }

    fn at(&self, channel: usize, [z, y, x]: [usize; 3]) -> T {
        let [depth, height, width] = self.shape.size;
        self.data[((channel * depth + z) * height + y) * width + x]
    }

    fn max_pool(&self, block: [usize; 3]) -> Self {
        let size = std::array::from_fn(|axis| self.shape.size[axis] / block[axis]);
        Self::build(Shape { size, ..self.shape }, |c, position| {
            let mut largest = self.at(c, std::array::from_fn(|axis| position[axis] * block[axis]));
            for dz in 0..block[0] {
                for dy in 0..block[1] {
                    for dx in 0..block[2] {
                        let step = [dz, dy, dx];
                        let value = self.at(c, std::array::from_fn(|axis| position[axis] * block[axis] + step[axis]));
                        largest = if value > largest { value } else { largest };
                    }
                }
            }
            largest
        })
    }

    fn upsample(&self, factor: [usize; 3]) -> Self {
        let size = std::array::from_fn(|axis| self.shape.size[axis] * factor[axis]);
        Self::build(Shape { size, ..self.shape }, |c, position| {
            self.at(c, std::array::from_fn(|axis| position[axis] / factor[axis]))
        })
    }

    /// What an output of linear up-sampling by `factor` is: the corners that it lies between and how much of each.
    fn corners(&self, factor: [usize; 3], position: [usize; 3]) -> Vec<([usize; 3], f64)> {
        let mut corners = vec![([0; 3], 1.)];
        for axis in 0..3 {
            let at = (position[axis] as f64 + 0.5) / factor[axis] as f64 - 0.5;
            let last = self.shape.size[axis] as f64 - 1.;
            let (below, share) = (at.floor(), at - at.floor());
            let ends = [(below, 1. - share), (below + 1., share)];
            let split = |(corner, weight): ([usize; 3], f64)| {
                ends.map(|(end, share)| {
                    let mut corner = corner;
                    corner[axis] = end.clamp(0., last) as usize;
                    (corner, weight * share)
                })
            };
            corners = corners.into_iter().flat_map(split).collect();
        }
        corners
    }

    /// Linear up-sampling, half-pixel centres; `number` is what an element counts as, `element` what a sum becomes.
    fn interpolate(&self, factor: [usize; 3], number: impl Fn(T) -> f64, element: impl Fn(f64) -> T) -> Self {
        let size = std::array::from_fn(|axis| self.shape.size[axis] * factor[axis]);
        Self::build(Shape { size, ..self.shape }, |c, position| {
            let corners = self.corners(factor, position);
            element(corners.into_iter().map(|(corner, weight)| weight * number(self.at(c, corner))).sum())
        })
    }

    fn pixel_shuffle(&self, factor: usize) -> Self {
        let [depth, height, width] = self.shape.size;
        let channels = self.shape.channels / (factor * factor);
        Self::build(Shape { channels, size: [depth, height * factor, width * factor] }, |c, [z, y, x]| {
            self.at(c * factor * factor + y % factor * factor + x % factor, [z, y / factor, x / factor])
        })
    }

    fn pad_channels(&self, front: usize, back: usize, zero: T) -> Self {
        let channels = front + self.shape.channels + back;
        Self::build(Shape { channels, ..self.shape }, |c, position| {
            if c < front || c >= front + self.shape.channels { zero } else { self.at(c - front, position) }
        })
    }

    fn concat(parts: &[&Self]) -> Self {
        let channels = parts.iter().map(|part| part.shape.channels).sum();
        let data = parts.iter().flat_map(|part| part.data.iter().copied()).collect();
        Self::new(Shape { channels, ..parts[0].shape }, data)
    }

    /// The class of each pixel; the lowest index wins a tie.
    pub fn labels(&self) -> Vec<u8> {
        let pixels = self.shape.pixels();
        let label = |pixel: usize| {
            let mut best = 0;
            for class in 1..self.shape.channels {
                if self.data[class * pixels + pixel] > self.data[best * pixels + pixel] {
                    best = class;
                }
            }
            best as u8
        };
        (0..pixels).map(label).collect()
    }
}

/// Where along an axis of `n` samples a tap reads; `None` is the zero around the image.
fn source(coordinate: isize, n: usize, padding: Padding) -> Option<usize> {
    let n = n as isize;
    match padding {
        _ if (0..n).contains(&coordinate) => Some(coordinate as usize),
        Padding::Zero => None,
        // ... x1 x0 | x0 x1 ... x(n-1) | x(n-1) x(n-2) ...: a wave of period 2n.
        Padding::Symmetric => {
            let phase = coordinate.rem_euclid(2 * n);
            Some(if phase < n { phase } else { 2 * n - 1 - phase } as usize)
        }
    }
}

fn activate(x: f64, activation: Activation) -> f64 {
    match activation {
        Activation::None => x,
        Activation::Relu => x.max(0.),
        Activation::LeakyRelu(slope) => x.max(f64::from(slope) * x),
    }
}

/// SHA-256 of codes or labels, hexadecimal, as in a manifest's golden digests.
pub fn sha256(bytes: impl IntoIterator<Item = u8>) -> String {
    let bytes: Vec<u8> = bytes.into_iter().collect();
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plane(channels: usize, height: usize, width: usize) -> Values<i8> {
        let shape = Shape::plane(channels, height, width);
        Values::new(shape, (0..shape.elements()).map(|i| i as i8).collect())
    }

    #[test]
    fn the_mirror_repeats_its_edge() {
        let read = |coordinate| source(coordinate, 3, Padding::Symmetric).unwrap();
        assert_eq!((-4..7).map(read).collect::<Vec<_>>(), [2, 2, 1, 0, 0, 1, 2, 2, 1, 0, 0]);
        assert_eq!((-1..4).map(|c| source(c, 3, Padding::Zero)).filter(Option::is_none).count(), 2);
    }

    #[test]
    fn moving_values_by_hand() {
        assert_eq!(plane(1, 2, 4).max_pool([1, 2, 2]).data, [5, 7]);
        assert_eq!(plane(1, 1, 2).upsample([1, 2, 2]).data, [0, 0, 1, 1, 0, 0, 1, 1]);
        let line = Values::new(Shape::plane(1, 1, 3), vec![0., 6., 18.]).interpolate([1, 2, 3], |x| x, |x| x);
        let expected = [0., 0., 2., 4., 6., 10., 14., 18., 18.];
        assert!(
            line.data.iter().zip(expected.into_iter().cycle()).all(|(found, expected)| (found - expected).abs() < 1e-9)
        );
        assert_eq!(line.data.len(), 18);
        // Channels p * 2 + q of each pixel become its 2x2 block.
        assert_eq!(plane(4, 1, 2).pixel_shuffle(2).data, [0, 2, 1, 3, 4, 6, 5, 7]);
        assert_eq!(plane(1, 1, 2).pad_channels(1, 2, -9).data, [-9, -9, 0, 1, -9, -9, -9, -9]);
        assert_eq!(Values::concat(&[&plane(1, 1, 2), &plane(2, 1, 2)]).data, [0, 1, 0, 1, 2, 3]);
    }

    #[test]
    fn the_lowest_class_wins_a_tie() {
        let logits = Values::new(Shape::plane(3, 1, 4), vec![1, 0, 5, -1, 1, 2, 4, -1, 0, 2, 5, -1]);
        assert_eq!(logits.labels(), [0, 1, 0, 0]);
    }

    /// The example of FIPS 180-4.
    #[test]
    fn digests_are_sha256_in_hexadecimal() {
        assert_eq!(sha256(*b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
