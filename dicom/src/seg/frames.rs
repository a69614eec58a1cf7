//! Which frames are stored, their pixels, and what is said of each.

use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;

use super::{Form, Slice};
use crate::{
    MakeFault, Plane,
    dataset::{Code, decimals, of, put, put_item, put_items},
    derived::source_image,
    image::{items, number},
};

/// How the frames came from their sources.
const SEGMENTATION: Code = Code { value: "113076", scheme: "DCM", meaning: "Segmentation" };
/// Steps between slices may differ by this part of a step where one number stands for all.
const EVEN: f64 = 1e-3;

/// A stored frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Its organ; all organs in a label map.
    pub segment: Option<u8>,
    /// Which of the given slices.
    pub slice: usize,
}

/// Frames with a pixel of their organ, by organ and then as the slices were given; if there is none, the first organ's.
pub fn stored(slices: &[Slice], form: Form) -> Vec<Frame> {
    let classes = |slice: &Slice| {
        let mut found = [false; 256];
        slice.labels.iter().for_each(|&label| found[usize::from(label)] = true);
        found
    };
    let found: Vec<[bool; 256]> = slices.iter().map(classes).collect();
    let with = |wanted: &dyn Fn(&[bool; 256]) -> bool, segment: Option<u8>| -> Vec<Frame> {
        let slices = found.iter().enumerate().filter(|(_, found)| wanted(found));
        slices.map(|(slice, _)| Frame { segment, slice }).collect()
    };
    let frames: Vec<Frame> = match form {
        Form::Binary => (1..=u8::MAX).flat_map(|organ| with(&|found| found[usize::from(organ)], Some(organ))).collect(),
        Form::LabelMap => with(&|found| found[1..].contains(&true), None),
    };
    if frames.is_empty() {
        return with(&|_| true, (form == Form::Binary).then_some(1));
    }
    frames
}

/// Pixels of all frames. Bits fill bytes from the lowest up and run on from frame to frame (PS3.5 8.1.1, 8.2).
pub fn bytes(slices: &[Slice], frames: &[Frame], form: Form) -> Vec<u8> {
    let labels = frames.iter().flat_map(|frame| slices[frame.slice].labels.iter().map(|&label| (frame.segment, label)));
    match form {
        Form::LabelMap => labels.map(|(_, label)| label).collect(),
        Form::Binary => {
            let pixels: usize = frames.iter().map(|frame| slices[frame.slice].labels.len()).sum();
            let mut bytes = vec![0; pixels.div_ceil(8)];
            for (pixel, (segment, label)) in labels.enumerate() {
                bytes[pixel / 8] |= u8::from(segment == Some(label)) << (pixel % 8);
            }
            bytes
        }
    }
}

/// Where the slices lie, as functional groups say it (PS3.3 C.7.6.16.2).
pub struct Places {
    /// The rank of each slice along the normal of the first, from 1.
    ranks: Vec<u32>,
    /// All slices have the spacing of the first.
    one_spacing: bool,
    /// All slices have the orientation of the first.
    one_orientation: bool,
    /// Nominal thickness of the header's slice.
    thickness_mm: Option<f64>,
    /// Distance of the planes of an even stack.
    step_mm: Option<f64>,
}

impl Places {
    /// Ranks the slices.
    pub fn new(header: &InMemDicomObject, slices: &[Slice]) -> Result<Self, MakeFault> {
        let first = slices[0].plane;
        let normal = first.normal();
        let key = |index: usize| {
            let Plane { first_mm: [x, y, z], along, down, .. } = slices[index].plane;
            [[slices[index].plane.height_mm(normal), x, y], [z, along[0], along[1]], [along[2], down[0], down[1]]]
        };
        let compare = |a: usize, b: usize| {
            let pairs = key(a).into_iter().flatten().zip(key(b).into_iter().flatten());
            pairs.map(|(a, b)| a.total_cmp(&b)).find(|order| order.is_ne())
        };
        let mut order: Vec<usize> = (0..slices.len()).collect();
        order.sort_by(|&a, &b| compare(a, b).unwrap_or(a.cmp(&b)));
        if let Some(pair) = order.windows(2).find(|pair| compare(pair[0], pair[1]).is_none()) {
            return Err(MakeFault::Place { first: pair[0], second: pair[1] });
        }
        let mut ranks = vec![0; slices.len()];
        order.iter().zip(1..).for_each(|(&index, rank)| ranks[index] = rank);
        let same = |of: &dyn Fn(Plane) -> [f64; 8]| slices.iter().all(|slice| of(slice.plane) == of(first));
        let one_orientation = same(&|Plane { along: [a, b, c], down: [d, e, f], .. }| [a, b, c, d, e, f, 0., 0.]);
        let heights: Vec<f64> = order.iter().map(|&index| slices[index].plane.height_mm(normal)).collect();
        Ok(Self {
            ranks,
            one_spacing: same(&|Plane { spacing_mm: [a, b], .. }| [a, b, 0., 0., 0., 0., 0., 0.]),
            one_orientation,
            thickness_mm: thickness_mm(header),
            step_mm: step_mm(&heights).filter(|_| one_orientation),
        })
    }

    /// Puts the functional groups of all frames.
    pub fn put(&self, object: &mut InMemDicomObject, slices: &[Slice], frames: &[Frame]) {
        let mut shared = InMemDicomObject::new_empty();
        self.put_plane(&mut shared, slices[0].plane, true);
        put_item(object, tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE, shared);
        let groups = frames.iter().map(|frame| self.groups(frame, &slices[frame.slice]));
        put_items(object, tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE, groups.collect());
    }

    fn groups(&self, frame: &Frame, slice: &Slice) -> InMemDicomObject {
        let mut item = InMemDicomObject::new_empty();
        let rank = self.ranks[frame.slice];
        let content = match frame.segment {
            Some(segment) => of(tags::DIMENSION_INDEX_VALUES, [u32::from(segment), rank]),
            None => of(tags::DIMENSION_INDEX_VALUES, rank),
        };
        put_item(&mut item, tags::FRAME_CONTENT_SEQUENCE, content);
        let position = of(tags::IMAGE_POSITION_PATIENT, decimals(&slice.plane.first_mm));
        put_item(&mut item, tags::PLANE_POSITION_SEQUENCE, position);
        self.put_plane(&mut item, slice.plane, false);
        if let Some(segment) = frame.segment {
            let number = of(tags::REFERENCED_SEGMENT_NUMBER, u16::from(segment));
            put_item(&mut item, tags::SEGMENT_IDENTIFICATION_SEQUENCE, number);
        }
        let mut source = source_image(slice.source);
        put(&mut source, tags::SPATIAL_LOCATIONS_PRESERVED, "YES");
        let mut derivation = InMemDicomObject::new_empty();
        put_item(&mut derivation, tags::SOURCE_IMAGE_SEQUENCE, source);
        put_item(&mut derivation, tags::DERIVATION_CODE_SEQUENCE, SEGMENTATION.item());
        put_item(&mut item, tags::DERIVATION_IMAGE_SEQUENCE, derivation);
        item
    }

    /// Puts what all frames share, or what they do not.
    fn put_plane(&self, item: &mut InMemDicomObject, plane: Plane, shared: bool) {
        if self.one_spacing == shared {
            let [column_mm, row_mm] = plane.spacing_mm;
            let mut measures = of(tags::PIXEL_SPACING, decimals(&[row_mm, column_mm]));
            for (tag, length_mm) in
                [(tags::SLICE_THICKNESS, self.thickness_mm), (tags::SPACING_BETWEEN_SLICES, self.step_mm)]
            {
                if let Some(length_mm) = length_mm {
                    put(&mut measures, tag, decimals(&[length_mm]));
                }
            }
            put_item(item, tags::PIXEL_MEASURES_SEQUENCE, measures);
        }
        if self.one_orientation == shared {
            let ([a, b, c], [d, e, f]) = (plane.along, plane.down);
            let orientation = of(tags::IMAGE_ORIENTATION_PATIENT, decimals(&[a, b, c, d, e, f]));
            put_item(item, tags::PLANE_ORIENTATION_SEQUENCE, orientation);
        }
    }
}

/// The nominal thickness that a header says, of its own or of its frames.
fn thickness_mm(header: &InMemDicomObject) -> Option<f64> {
    let groups = [tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE, tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE];
    let measures = groups.iter().filter_map(|&group| {
        let first = items(header, group)?.first()?;
        items(first, tags::PIXEL_MEASURES_SEQUENCE)?.first()
    });
    let found = std::iter::once(header).chain(measures).find_map(|object| number(object, tags::SLICE_THICKNESS));
    found.filter(|mm| mm.is_finite() && *mm > 0.)
}

/// The step of planes at even heights.
fn step_mm(heights: &[f64]) -> Option<f64> {
    let steps = heights.len().checked_sub(1).filter(|&steps| steps > 0)?;
    let mean = (heights[steps] - heights[0]) / steps as f64;
    let even = heights.windows(2).all(|pair| (pair[1] - pair[0] - mean).abs() <= EVEN * mean);
    (even && mean > 0.).then_some(mean)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn even_steps_are_one_number_and_others_none() {
        assert_eq!(step_mm(&[-1., 1., 3.]), Some(2.));
        assert_eq!(step_mm(&[0., 1., 3.]), None);
        assert_eq!(step_mm(&[0., 0.]), None);
        assert_eq!(step_mm(&[5.]), None);
    }
}
