//! Which class index is which organ, and its colour in every picture.

use alloc::{
    string::{String, ToString},
    vec,
    vec::Vec,
};

use serde::{Deserialize, Serialize};

/// One class of the segmentation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Label {
    /// Lower-case English name, e.g. `right kidney`. Right and left are the patient's.
    pub name: String,
    /// sRGB colour of overlays.
    pub color: [u8; 3],
}

/// The classes of a model: the position in the list is the value in a label map, 0 is background.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabelMap(Vec<Label>);

impl LabelMap {
    /// Background plus the named organs, in order.
    pub fn new(organs: &[(&str, [u8; 3])]) -> Self {
        let mut labels = vec![Label { name: "background".to_string(), color: [0, 0, 0] }];
        labels.extend(organs.iter().map(|(name, color)| Label { name: (*name).to_string(), color: *color }));
        Self(labels)
    }

    /// Liver 1, right kidney 2, left kidney 3, spleen 4: the order of the paper's abdominal task.
    pub fn abdomen() -> Self {
        Self::new(&[
            ("liver", [221, 130, 101]),
            ("right kidney", [240, 210, 60]),
            ("left kidney", [90, 200, 120]),
            ("spleen", [120, 150, 240]),
        ])
    }

    /// Left ventricular myocardium 1, then the blood of the left atrium 2, the left ventricle 3 and the ascending aorta 4:
    /// the order of the paper's cardiac task.
    pub fn heart() -> Self {
        Self::new(&[
            ("left ventricular myocardium", [230, 80, 150]),
            ("left atrium", [250, 150, 40]),
            ("left ventricle", [60, 200, 220]),
            ("ascending aorta", [170, 230, 60]),
        ])
    }

    /// Number of classes, background included.
    pub fn classes(&self) -> usize {
        self.0.len()
    }

    /// All labels; the position is the class index.
    pub fn iter(&self) -> impl Iterator<Item = (u8, &Label)> {
        self.0.iter().enumerate().map(|(index, label)| (index as u8, label))
    }

    /// All labels but background.
    pub fn organs(&self) -> impl Iterator<Item = (u8, &Label)> {
        self.iter().skip(1)
    }

    /// The label of a class index.
    pub fn get(&self, index: u8) -> Option<&Label> {
        self.0.get(usize::from(index))
    }

    /// The class index of a name; case, `_` and `-` do not matter, and neither does the order of two words
    /// (`kidney_right` is `right kidney`), because data sets spell both ways.
    pub fn index_of(&self, name: &str) -> Option<u8> {
        let wanted = words(name);
        self.iter().find(|(_, label)| words(&label.name) == wanted).map(|(index, _)| index)
    }

    /// The first two organs that differ only in their side, such as the kidneys: a mirrored image would show one as the
    /// other.
    pub fn sided(&self) -> Option<(&Label, &Label)> {
        let other = |label: &Label| self.index_of(&label.name.replace("right", "left"));
        let pair = |(index, label)| {
            other(label).filter(|&found| found != index).and_then(|found| Some((label, self.get(found)?)))
        };
        self.organs().find_map(pair)
    }
}

fn words(name: &str) -> Vec<String> {
    let mut words: Vec<String> =
        name.split([' ', '_', '-']).filter(|word| !word.is_empty()).map(str::to_ascii_lowercase).collect();
    words.sort();
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn organs_are_found_however_a_data_set_spells_them() {
        let labels = LabelMap::abdomen();
        assert_eq!(labels.classes(), 5);
        assert_eq!(labels.index_of("background"), Some(0));
        assert_eq!(labels.index_of("Right_Kidney"), Some(2));
        assert_eq!(labels.index_of("kidney-left"), Some(3));
        assert_eq!(labels.index_of("kidney"), None);
        assert_eq!(labels.get(4).map(|label| label.name.as_str()), Some("spleen"));
        assert_eq!(labels.get(5), None);
    }

    #[test]
    fn the_heart_has_the_papers_order() {
        let labels = LabelMap::heart();
        let names = ["background", "left ventricular myocardium", "left atrium", "left ventricle", "ascending aorta"];
        assert!(labels.iter().map(|(_, label)| label.name.as_str()).eq(names));
        assert_eq!(labels.index_of("aorta_ascending"), Some(4));
    }

    #[test]
    fn kidneys_have_sides_and_chambers_have_no_counterpart() {
        let abdomen = LabelMap::abdomen();
        let names = abdomen.sided().map(|(right, left)| (right.name.as_str(), left.name.as_str()));
        assert_eq!(names, Some(("right kidney", "left kidney")));
        assert_eq!(LabelMap::heart().sided(), None);
    }

    /// Far enough apart to be told apart in one overlay, and across the overlays of two tasks.
    #[test]
    fn colours_differ_within_and_between_tasks() {
        let colors: Vec<[u8; 3]> = [LabelMap::abdomen(), LabelMap::heart()]
            .iter()
            .flat_map(|labels| labels.organs().map(|(_, label)| label.color).collect::<Vec<_>>())
            .collect();
        for (index, a) in colors.iter().enumerate() {
            for b in &colors[..index] {
                let apart: i32 = (0..3).map(|c| (i32::from(a[c]) - i32::from(b[c])).abs()).sum();
                assert!(apart >= 60, "{a:?} and {b:?}");
            }
        }
    }
}
