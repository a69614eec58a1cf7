//! Connected parts of label maps: what is left of an organ when specks are taken away.
//!
//! Voxels are connected that share a face, an edge or a corner (26 neighbours), whatever their spacing.

use contract::LabelMap;

/// A voxel that has not been visited belongs to no part yet.
const UNSEEN: u32 = 0;

/// Makes background of all but the largest connected part of every organ; returns the voxels taken away. Of equal parts the
/// one that is met first stays, in the order `[z][y][x]`.
///
/// # Panics
/// If `classes` is not one value per voxel of `shape` `[z, y, x]`.
pub fn keep_largest(classes: &mut [u8], shape: [usize; 3], labels: &LabelMap) -> usize {
    assert_eq!(classes.len(), shape.iter().product::<usize>(), "one label per voxel of {shape:?}");
    let (mut part_of, mut sizes) = (vec![UNSEEN; classes.len()], vec![0usize]);
    let mut largest = vec![UNSEEN; labels.classes()];
    for voxel in 0..classes.len() {
        let class = usize::from(classes[voxel]);
        if class == 0 || class >= largest.len() || part_of[voxel] != UNSEEN {
            continue;
        }
        let part = sizes.len() as u32;
        sizes.push(fill(classes, shape, &mut part_of, voxel, part));
        if sizes[part as usize] > sizes[largest[class] as usize] {
            largest[class] = part;
        }
    }
    let mut taken = 0;
    for (class, &part) in classes.iter_mut().zip(&part_of) {
        if part != UNSEEN && part != largest[usize::from(*class)] {
            *class = 0;
            taken += 1;
        }
    }
    taken
}

/// Gives all that is connected to a voxel its part number; returns how many voxels that are.
fn fill(classes: &[u8], shape: [usize; 3], part_of: &mut [u32], start: usize, part: u32) -> usize {
    let [_, height, width] = shape;
    let (mut waiting, mut size) = (vec![start], 0);
    part_of[start] = part;
    while let Some(voxel) = waiting.pop() {
        size += 1;
        let at = [voxel / (height * width), voxel / width % height, voxel % width];
        let near = |axis: usize| at[axis].saturating_sub(1)..(at[axis] + 2).min(shape[axis]);
        for z in near(0) {
            for y in near(1) {
                for x in near(2) {
                    let other = (z * height + y) * width + x;
                    if part_of[other] == UNSEEN && classes[other] == classes[start] {
                        part_of[other] = part;
                        waiting.push(other);
                    }
                }
            }
        }
    }
    size
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(classes: &[u8], shape: [usize; 3]) -> (Vec<u8>, usize) {
        let mut classes = classes.to_vec();
        let taken = keep_largest(&mut classes, shape, &LabelMap::abdomen());
        (classes, taken)
    }

    #[test]
    fn specks_go_and_organs_stay() {
        // A row of two organs: parts of 3 and 1 voxels of the first, 2 and 2 of the second.
        let row = [1, 1, 1, 0, 1, 2, 2, 0, 2, 2];
        assert_eq!(kept(&row, [1, 1, 10]), (vec![1, 1, 1, 0, 0, 2, 2, 0, 0, 0], 3));
        assert_eq!(kept(&[0; 6], [1, 2, 3]), (vec![0; 6], 0));
    }

    #[test]
    fn a_corner_connects_and_the_end_of_a_row_does_not() {
        let mut diagonal = [0; 27];
        for voxel in [0, 13, 26] {
            diagonal[voxel] = 1;
        }
        assert_eq!(kept(&diagonal, [3, 3, 3]).1, 0);
        // Last of row 0 and first of row 1, four columns apart.
        assert_eq!(kept(&[0, 0, 0, 1, 1, 0, 0, 0], [1, 2, 4]), (vec![0, 0, 0, 1, 0, 0, 0, 0], 1));
        assert_eq!(kept(&[0, 0, 0, 1, 1, 0, 0, 0], [2, 1, 4]).1, 1);
    }

    /// Against parts found by spreading the smallest number of a neighbourhood until nothing changes.
    #[test]
    fn parts_are_those_of_repeated_spreading() {
        for seed in 0..20u64 {
            let shape = [3 + seed as usize % 3, 5, 6];
            let voxels = shape.iter().product::<usize>();
            let classes: Vec<u8> =
                (0..voxels as u64).map(|i| ((((i + 1) * (seed + 3) * 2_654_435_761) >> 7) % 7) as u8 % 4).collect();
            let mut numbers: Vec<usize> = (0..voxels).collect();
            let at = |voxel: usize| [voxel / 30, voxel / 6 % 5, voxel % 6];
            let touch = |a: usize, b: usize| (0..3).all(|axis| at(a)[axis].abs_diff(at(b)[axis]) <= 1);
            loop {
                let before = numbers.clone();
                for a in 0..voxels {
                    for b in (0..voxels).filter(|&b| classes[a] == classes[b] && touch(a, b)) {
                        numbers[a] = numbers[a].min(before[b]);
                    }
                }
                if numbers == before {
                    break;
                }
            }
            let size = |voxel: usize| numbers.iter().filter(|&&number| number == numbers[voxel]).count();
            let expected: Vec<u8> = (0..voxels)
                .map(|voxel| {
                    // Smaller numbers were met first.
                    let beaten = (0..voxels).any(|other| {
                        classes[other] == classes[voxel]
                            && (size(other), numbers[voxel]) > (size(voxel), numbers[other])
                    });
                    if beaten { 0 } else { classes[voxel] }
                })
                .collect();
            assert_eq!(kept(&classes, shape).0, expected, "seed {seed}");
        }
    }
}
