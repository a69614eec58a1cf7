//! Label maps: which stored number is which class of the model.
//!
//! Data sets number their organs as they like, so a [`LabelTable`] stands between. What it does not list is an error
//! unless it says otherwise: a label map of another convention would otherwise train a plausible wrong network.

use std::{collections::BTreeMap, path::Path};

use contract::LabelMap;

use super::voxels::Stored;
use crate::{Fault, Geometry, VolumeError};

/// What a stored number means that the table does not list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unlisted {
    /// The file is refused.
    #[default]
    Refuse,
    /// Class 0.
    Background,
}

/// Stored numbers to classes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelTable {
    classes: BTreeMap<u32, u8>,
    unlisted: Unlisted,
}

impl LabelTable {
    /// A table of `(stored number, class)` pairs; 0 is background unless listed otherwise.
    pub fn new(classes: impl IntoIterator<Item = (u32, u8)>, unlisted: Unlisted) -> Self {
        let mut table = BTreeMap::from([(0, 0)]);
        table.extend(classes);
        Self { classes: table, unlisted }
    }

    /// The numbers of `labels` themselves, as Gantry writes them.
    pub fn identity(labels: &LabelMap) -> Self {
        Self::new(labels.iter().map(|(class, _)| (u32::from(class), class)), Unlisted::Refuse)
    }

    /// Class of a stored value; `None` if it is refused.
    pub fn class(&self, value: f64) -> Option<u8> {
        if value.fract() != 0. || !(0. ..=f64::from(u32::MAX)).contains(&value) {
            return None;
        }
        match (self.classes.get(&(value as u32)), self.unlisted) {
            (Some(class), _) => Some(*class),
            (None, Unlisted::Background) => Some(0),
            (None, Unlisted::Refuse) => None,
        }
    }

    fn expected(&self) -> String {
        match self.unlisted {
            Unlisted::Background => "the whole numbers 0 to 4294967295".into(),
            Unlisted::Refuse => self.classes.keys().map(u32::to_string).collect::<Vec<_>>().join(", "),
        }
    }
}

/// One label map.
#[derive(Clone, Debug, PartialEq)]
pub struct Labels {
    /// Classes, canonical `[z][y][x]`.
    pub classes: Vec<u8>,
    /// The file's own grid.
    pub geometry: Geometry,
}

/// Reads a label map and translates its numbers.
pub fn read_labels(path: impl AsRef<Path>, table: &LabelTable) -> Result<Labels, VolumeError> {
    let path = path.as_ref();
    labels(path, table).map_err(|fault| VolumeError::new(path, fault))
}

fn labels(path: &Path, table: &LabelTable) -> Result<Labels, Fault> {
    let stored = Stored::read(path)?;
    let mut classes = Vec::with_capacity(stored.geometry.voxels());
    // Neighbours mostly share their label: one comparison instead of a search.
    let mut last = (f64::NAN, 0);
    stored.visit(|index, value| {
        if value != last.0 {
            let refused = || Fault::Label { voxel: stored.position(index), value, expected: table.expected() };
            last = (value, table.class(value).ok_or_else(refused)?);
        }
        classes.push(last.1);
        Ok(())
    })?;
    let geometry = stored.geometry;
    Ok(Labels { classes: geometry.to_canonical(&classes), geometry })
}
