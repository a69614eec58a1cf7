//! Which concept of SNOMED CT an organ is.

use contract::LabelMap;
use sha2::{Digest, Sha256};

use crate::dataset::Code;

/// Names of organs with the concepts of PS3.16 (context groups 4, 7151 and 12305), and the side of paired ones (244).
const ORGANS: [(&str, &str, &str, Option<Side>); 26] = [
    ("liver", "10200004", "Liver", None),
    ("right kidney", "64033007", "Kidney", Some(Side::Right)),
    ("left kidney", "64033007", "Kidney", Some(Side::Left)),
    ("spleen", "78961009", "Spleen", None),
    ("left ventricular myocardium", "49848007", "Left Ventricle Myocardium", None),
    ("left atrium", "82471001", "Left atrium", None),
    ("left ventricle", "87878005", "Left ventricle", None),
    ("ascending aorta", "54247002", "Ascending aorta", None),
    ("right atrium", "73829009", "Right atrium", None),
    ("right ventricle", "53085002", "Right ventricle", None),
    ("heart", "80891009", "Heart", None),
    ("aorta", "15825003", "Aorta", None),
    ("descending aorta", "281130003", "Descending aorta", None),
    ("pulmonary artery", "81040000", "Pulmonary artery", None),
    ("inferior vena cava", "64131007", "Inferior vena cava", None),
    ("portal vein", "32764006", "Portal vein", None),
    ("stomach", "69695003", "Stomach", None),
    ("pancreas", "15776009", "Pancreas", None),
    ("gallbladder", "28231008", "Gallbladder", None),
    ("right adrenal gland", "23451007", "Adrenal gland", Some(Side::Right)),
    ("left adrenal gland", "23451007", "Adrenal gland", Some(Side::Left)),
    ("duodenum", "38848004", "Duodenum", None),
    ("esophagus", "32849002", "Esophagus", None),
    ("right lung", "39607008", "Lung", Some(Side::Right)),
    ("left lung", "39607008", "Lung", Some(Side::Left)),
    ("urinary bladder", "89837001", "Bladder", None),
];

/// The scheme of organs that are not listed: its codes stand for names.
pub const PRIVATE: &str = "99GANTRY";

/// What every organ is.
pub const STRUCTURE: Code = Code { value: "91723000", scheme: "SCT", meaning: "Anatomical Structure" };
/// What the background of a label map is: its category and its type.
pub const BACKGROUND: [Code; 2] = [
    Code { value: "309825002", scheme: "SCT", meaning: "Spatial and Relational Concept" },
    Code { value: "125040", scheme: "DCM", meaning: "Background" },
];

/// Of the patient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Right.
    Right,
    /// Left.
    Left,
}

impl Side {
    /// As a modifier of a type.
    pub const fn code(self) -> Code<'static> {
        match self {
            Self::Right => Code { value: "24028007", scheme: "SCT", meaning: "Right" },
            Self::Left => Code { value: "7771000", scheme: "SCT", meaning: "Left" },
        }
    }
}

/// The concept of an organ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Organ {
    value: String,
    scheme: &'static str,
    meaning: String,
    /// Of a paired organ.
    pub side: Option<Side>,
}

impl Organ {
    /// The concept of a name, spelled in any way that label maps take for the same. An organ that is not listed gets a code
    /// of a private scheme, which claims nothing but the name: readers show it, and none takes it for another organ.
    pub fn new(name: &str) -> Self {
        let listed = LabelMap::new(&ORGANS.map(|(name, ..)| (name, [0; 3])));
        match listed.index_of(name).and_then(|index| usize::from(index).checked_sub(1)) {
            Some(row) => {
                let (_, value, meaning, side) = ORGANS[row];
                Self { value: value.to_owned(), scheme: "SCT", meaning: meaning.to_owned(), side }
            }
            None => {
                let digest = Sha256::digest(name.to_lowercase());
                let value = digest.iter().take(8).map(|byte| format!("{byte:02X}")).collect();
                Self { value, scheme: PRIVATE, meaning: name.to_owned(), side: None }
            }
        }
    }

    /// Its type.
    pub fn code(&self) -> Code<'_> {
        Code { value: &self.value, scheme: self.scheme, meaning: &self.meaning }
    }

    /// Whether it is of the private scheme.
    pub fn is_private(&self) -> bool {
        self.scheme == PRIVATE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_organ_of_our_label_maps_has_a_concept_of_its_own() {
        for labels in [LabelMap::abdomen(), LabelMap::heart()] {
            let organs: Vec<Organ> = labels.organs().map(|(_, label)| Organ::new(&label.name)).collect();
            for (index, organ) in organs.iter().enumerate() {
                assert!(!organ.is_private(), "{organ:?}");
                assert!(!organs[..index].contains(organ), "{organ:?}");
            }
        }
    }

    #[test]
    fn sides_are_the_patients_and_spelling_does_not_matter() {
        let right = Organ::new("right kidney");
        assert_eq!((right.code().value, right.side), ("64033007", Some(Side::Right)));
        assert_eq!(Organ::new("Kidney_Left").side, Some(Side::Left));
        assert_eq!(Organ::new("Kidney-Right"), right);
    }

    #[test]
    fn an_unknown_organ_claims_nothing_but_its_name() {
        let organ = Organ::new("Left kidney cyst");
        assert_eq!((organ.code().scheme, organ.code().meaning, organ.side), (PRIVATE, "Left kidney cyst", None));
        assert!(organ.code().value.len() <= 16);
        assert_ne!(organ.code().value, Organ::new("right kidney cyst").code().value);
        assert!(Organ::new("background").is_private(), "background is no organ");
    }
}
