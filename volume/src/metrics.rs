//! How well two label maps agree: Dice, and surface distances in mm.
//!
//! A surface is the voxels of a class that have a 6-neighbour outside of it; what lies beyond the volume is outside.
//! Distances run between voxel centres through an exact Euclidean distance transform (Felzenszwalb and Huttenlocher,
//! "Distance Transforms of Sampled Functions", 2012), so a volume costs time in proportion to its voxels.
//! Conventions are those of `medpy.metric.binary` 0.5.2: both directions are pooled before the mean and the percentile.

/// Agreement of one class in two label maps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Agreement {
    /// 2 |A and B| / (|A| + |B|); `None` where the class is in neither.
    pub dice: Option<f64>,
    /// 95th percentile of the surface distances of both directions together, mm, interpolated linearly between ranks;
    /// `None` unless the class is in both.
    pub hd95_mm: Option<f64>,
    /// Mean of the surface distances of both directions together, mm; `None` unless the class is in both.
    pub assd_mm: Option<f64>,
}

/// Compares `class` in two canonical label maps of `shape` `[z, y, x]` and `spacing_mm` x, y, z.
///
/// # Panics
/// If a label map is not one value per voxel.
pub fn compare(a: &[u8], b: &[u8], class: u8, shape: [usize; 3], spacing_mm: [f64; 3]) -> Agreement {
    let distances = surface_distances(a, b, class, shape, spacing_mm);
    let (hd95_mm, assd_mm) = match distances {
        Some(mut all) => {
            all.sort_by(f64::total_cmp);
            (Some(percentile(&all, 0.95)), Some(all.iter().sum::<f64>() / all.len() as f64))
        }
        None => (None, None),
    };
    Agreement { dice: dice(a, b, class), hd95_mm, assd_mm }
}

/// Dice of `class`; `None` where it is in neither, which is no agreement and no failure.
///
/// # Panics
/// If the label maps differ in length.
pub fn dice(a: &[u8], b: &[u8], class: u8) -> Option<f64> {
    assert_eq!(a.len(), b.len(), "voxels of two label maps");
    let count = |map: &[u8]| map.iter().filter(|&&value| value == class).count();
    let both = a.iter().zip(b).filter(|&(&a, &b)| a == class && b == class).count();
    let sum = count(a) + count(b);
    (sum > 0).then(|| 2. * both as f64 / sum as f64)
}

/// Distance of every surface voxel of each map to the nearest one of the other, mm; `None` unless both have a surface.
fn surface_distances(a: &[u8], b: &[u8], class: u8, shape: [usize; 3], spacing_mm: [f64; 3]) -> Option<Vec<f64>> {
    let voxels = shape.iter().product::<usize>();
    assert_eq!((a.len(), b.len()), (voxels, voxels), "one label per voxel of {shape:?}");
    let surfaces = [a, b].map(|map| surface(map, class, shape));
    if surfaces.iter().any(Vec::is_empty) {
        return None;
    }
    // Both surfaces lie in this box, so no distance needs anything outside of it.
    let bounds = Bounds::of(surfaces.iter().flatten().copied());
    let mut all = Vec::with_capacity(surfaces[0].len() + surfaces[1].len());
    for (from, to) in [(0, 1), (1, 0)] {
        let squared = squared_distances(&surfaces[to], &bounds, spacing_mm);
        all.extend(surfaces[from].iter().map(|&voxel| squared[bounds.index(voxel)].sqrt()));
    }
    Some(all)
}

/// Surface voxels of a class as `[z, y, x]`.
fn surface(map: &[u8], class: u8, [depth, height, width]: [usize; 3]) -> Vec<[usize; 3]> {
    let strides = [height * width, width, 1];
    let mut surface = Vec::new();
    for (index, _) in map.iter().enumerate().filter(|&(_, &value)| value == class) {
        let voxel = [index / strides[0], index / width % height, index % width];
        let outside = (0..3).any(|axis| {
            let last = [depth, height, width][axis] - 1;
            let (at, stride) = (voxel[axis], strides[axis]);
            at == 0 || at == last || map[index - stride] != class || map[index + stride] != class
        });
        if outside {
            surface.push(voxel);
        }
    }
    surface
}

/// The smallest box of voxels around both surfaces.
struct Bounds {
    low: [usize; 3],
    size: [usize; 3],
}

impl Bounds {
    fn of(voxels: impl Iterator<Item = [usize; 3]>) -> Self {
        let (mut low, mut high) = ([usize::MAX; 3], [0; 3]);
        for voxel in voxels {
            low = [0, 1, 2].map(|axis| low[axis].min(voxel[axis]));
            high = [0, 1, 2].map(|axis| high[axis].max(voxel[axis]));
        }
        Self { low, size: [0, 1, 2].map(|axis| high[axis] - low[axis] + 1) }
    }

    fn index(&self, voxel: [usize; 3]) -> usize {
        let [z, y, x] = [0, 1, 2].map(|axis| voxel[axis] - self.low[axis]);
        (z * self.size[1] + y) * self.size[2] + x
    }
}

/// Squared distance of every voxel of the box to the nearest of `surface`, mm^2: one pass of parabolas per axis.
fn squared_distances(surface: &[[usize; 3]], bounds: &Bounds, spacing_mm: [f64; 3]) -> Vec<f64> {
    let [depth, height, width] = bounds.size;
    let mut squared = vec![f64::INFINITY; depth * height * width];
    for &voxel in surface {
        squared[bounds.index(voxel)] = 0.;
    }
    let strides = [height * width, width, 1];
    let mut envelope = Envelope::default();
    for axis in [2, 1, 0] {
        let (length, stride, step_mm) = (bounds.size[axis], strides[axis], spacing_mm[2 - axis]);
        for line in 0..squared.len() / length {
            // Lines along an axis start where its own index is 0.
            let start = line / stride * stride * length + line % stride;
            envelope.line(&mut squared[start..], length, stride, step_mm);
        }
    }
    squared
}

/// Lower envelope of parabolas, kept between lines to save allocations.
#[derive(Default)]
struct Envelope {
    values: Vec<f64>,
    /// Position of each parabola's lowest point, in voxels.
    apexes: Vec<usize>,
    /// Where each parabola begins to be the lowest, mm.
    begins: Vec<f64>,
}

impl Envelope {
    fn line(&mut self, data: &mut [f64], length: usize, stride: usize, step_mm: f64) {
        self.values.clear();
        self.values.extend((0..length).map(|index| data[index * stride]));
        self.build(step_mm);
        if self.apexes.is_empty() {
            return;
        }
        let mut current = 0;
        for index in 0..length {
            let at_mm = index as f64 * step_mm;
            while current + 1 < self.apexes.len() && self.begins[current + 1] < at_mm {
                current += 1;
            }
            let apex = self.apexes[current];
            let away_mm = at_mm - apex as f64 * step_mm;
            data[index * stride] = away_mm * away_mm + self.values[apex];
        }
    }

    fn build(&mut self, step_mm: f64) {
        self.apexes.clear();
        self.begins.clear();
        for (apex, &value) in self.values.iter().enumerate().filter(|(_, value)| value.is_finite()) {
            let at_mm = apex as f64 * step_mm;
            let mut begin = f64::NEG_INFINITY;
            while let Some(&last) = self.apexes.last() {
                let last_mm = last as f64 * step_mm;
                let rise = value + at_mm * at_mm - self.values[last] - last_mm * last_mm;
                begin = rise / (2. * (at_mm - last_mm));
                if begin > self.begins[self.begins.len() - 1] {
                    break;
                }
                self.apexes.pop();
                self.begins.pop();
                begin = f64::NEG_INFINITY;
            }
            self.apexes.push(apex);
            self.begins.push(begin);
        }
    }
}

/// Percentile of sorted values, linear between ranks (numpy's default).
fn percentile(sorted: &[f64], fraction: f64) -> f64 {
    let rank = fraction * (sorted.len() - 1) as f64;
    let (low, part) = (rank as usize, rank.fract());
    let high = (low + 1).min(sorted.len() - 1);
    sorted[low] + (sorted[high] - sorted[low]) * part
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Every surface voxel against every other one, by the definition.
    fn brute_force(a: &[u8], b: &[u8], shape: [usize; 3], spacing_mm: [f64; 3]) -> Option<Vec<f64>> {
        let inside = |map: &[u8], z: i64, y: i64, x: i64| {
            let voxel = [z, y, x];
            (0..3).all(|axis| (0..shape[axis] as i64).contains(&voxel[axis]))
                && map[(z as usize * shape[1] + y as usize) * shape[2] + x as usize] == 1
        };
        let surface = |map: &[u8]| {
            let mut found = Vec::new();
            for z in 0..shape[0] as i64 {
                for y in 0..shape[1] as i64 {
                    for x in 0..shape[2] as i64 {
                        let around = [(1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1)];
                        if inside(map, z, y, x)
                            && around.iter().any(|&(dz, dy, dx)| !inside(map, z + dz, y + dy, x + dx))
                        {
                            found.push([x, y, z].map(|index| index as f64));
                        }
                    }
                }
            }
            found
        };
        let (a, b) = (surface(a), surface(b));
        let nearest = |from: &[f64; 3], to: &[[f64; 3]]| {
            let distance = |other: &[f64; 3]| {
                (0..3).map(|axis| ((from[axis] - other[axis]) * spacing_mm[axis]).powi(2)).sum::<f64>().sqrt()
            };
            to.iter().map(distance).fold(f64::INFINITY, f64::min)
        };
        if a.is_empty() || b.is_empty() {
            return None;
        }
        Some(a.iter().map(|voxel| nearest(voxel, &b)).chain(b.iter().map(|voxel| nearest(voxel, &a))).collect())
    }

    proptest! {
        #[test]
        fn distances_are_those_of_the_definition(
            shape in [1usize..7, 1usize..7, 1usize..7],
            spacing_mm in [0.3f64..4., 0.3f64..4., 0.3f64..4.],
            density in 0u32..10,
            seed in any::<u64>(),
        ) {
            use rand::{Rng, SeedableRng};
            let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
            let mut map = || -> Vec<u8> {
                (0..shape.iter().product()).map(|_| u8::from(random.random_range(0..10) < density)).collect()
            };
            let (a, b) = (map(), map());
            let found = surface_distances(&a, &b, 1, shape, spacing_mm);
            let expected = brute_force(&a, &b, shape, spacing_mm);
            prop_assert_eq!(found.is_some(), expected.is_some());
            for (found, expected) in found.into_iter().flatten().zip(expected.into_iter().flatten()) {
                // Sums of three squares in another order.
                prop_assert!((found - expected).abs() <= 1e-12 * expected.max(1.), "{} {}", found, expected);
            }
        }
    }

    /// A box of class 1 from `low` to before `high`, `[z, y, x]`.
    fn cuboid(shape: [usize; 3], low: [usize; 3], high: [usize; 3]) -> Vec<u8> {
        let voxel = |index: usize| [index / (shape[1] * shape[2]), index / shape[2] % shape[1], index % shape[2]];
        let inside = |index| (0..3).all(|axis| (low[axis]..high[axis]).contains(&voxel(index)[axis]));
        (0..shape.iter().product()).map(|index| u8::from(inside(index))).collect()
    }

    #[test]
    fn a_shifted_plate_has_a_closed_form() {
        // One voxel thick, so all of it is surface; shifted by 3 slices of 2.5 mm: every distance is 7.5 mm.
        let shape = [8, 10, 12];
        let a = cuboid(shape, [1, 0, 0], [2, 10, 12]);
        let b = cuboid(shape, [4, 0, 0], [5, 10, 12]);
        let found = compare(&a, &b, 1, shape, [1., 1., 2.5]);
        assert_eq!(found, Agreement { dice: Some(0.), hd95_mm: Some(7.5), assd_mm: Some(7.5) });
    }

    #[test]
    fn a_box_shifted_along_x_has_a_closed_form() {
        // 4x4x4 boxes, shifted by one voxel of 2 mm in x. Of 56 surface voxels of each, the 16 of the leading or trailing
        // face are one step away from the other's, so are the inner 4 of the face that the other's interior covers.
        let shape = [6, 6, 8];
        let (a, b) = (cuboid(shape, [1, 1, 1], [5, 5, 5]), cuboid(shape, [1, 1, 2], [5, 5, 6]));
        let found = compare(&a, &b, 1, shape, [2., 5., 5.]);
        assert_eq!(found.dice, Some(0.75));
        assert_eq!(found.assd_mm, Some(2. * 20. / 56.));
        assert_eq!(found.hd95_mm, Some(2.));
        assert_eq!(
            compare(&a, &a, 1, shape, [2., 5., 5.]),
            Agreement { dice: Some(1.), hd95_mm: Some(0.), assd_mm: Some(0.) }
        );
    }

    #[test]
    fn absent_classes_are_told_apart() {
        let (nothing, something) = ([0, 0, 0, 0], [0, 0, 3, 0]);
        let compare = |a, b| compare(a, b, 3, [1, 2, 2], [1.; 3]);
        assert_eq!(compare(&nothing, &nothing), Agreement { dice: None, hd95_mm: None, assd_mm: None });
        assert_eq!(compare(&nothing, &something), Agreement { dice: Some(0.), hd95_mm: None, assd_mm: None });
    }

    #[test]
    fn the_percentile_is_linear_between_ranks() {
        let ten: Vec<f64> = (0..10).map(f64::from).collect();
        assert!((percentile(&ten, 0.95) - 8.55).abs() < 1e-12);
        assert_eq!(percentile(&[4.], 0.95), 4.);
    }
}
