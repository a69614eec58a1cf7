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
            Unlisted::Refuse => {
                format!("one of {}", self.classes.keys().map(u32::to_string).collect::<Vec<_>>().join(", "))
            }
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

/// Translates values one by one, and remembers those that the table does not have: all of them, because a person who adds
/// one to the table wants to know of the others.
#[derive(Debug)]
pub struct Classes<'a> {
    table: &'a LabelTable,
    classes: Vec<u8>,
    /// Neighbours mostly share their label: one comparison instead of a search.
    last: (f64, Option<u8>),
    /// By bits of the value: count and index of the first.
    outside: BTreeMap<u64, (u64, usize)>,
}

impl<'a> Classes<'a> {
    /// Room for `voxels` classes by `table`.
    pub fn new(table: &'a LabelTable, voxels: usize) -> Self {
        Self { table, classes: Vec::with_capacity(voxels), last: (f64::NAN, None), outside: BTreeMap::new() }
    }

    /// Translates the next value.
    pub fn push(&mut self, value: f64) {
        if value != self.last.0 {
            self.last = (value, self.table.class(value));
        }
        if self.last.1.is_none() {
            self.outside.entry(value.to_bits()).or_insert((0, self.classes.len())).0 += 1;
        }
        self.classes.push(self.last.1.unwrap_or(0));
    }

    /// The classes, if the table has them all; `position` of an index names the first voxel that it lacks.
    pub fn finish(self, position: impl Fn(usize) -> [usize; 3]) -> Result<Vec<u8>, Fault> {
        let mut outside: Vec<_> = self.outside.into_iter().collect();
        outside.sort_by_key(|&(_, (_, first))| first);
        let Some(&(_, (_, first))) = outside.first() else {
            return Ok(self.classes);
        };
        let found = outside.iter().map(|&(bits, (count, _))| (f64::from_bits(bits), count)).collect();
        Err(Fault::Label { voxel: position(first), found, expected: self.table.expected() })
    }
}

/// Reads a label map and translates its numbers.
pub fn read_labels(path: impl AsRef<Path>, table: &LabelTable) -> Result<Labels, VolumeError> {
    let path = path.as_ref();
    labels(path, table).map_err(|fault| VolumeError::new(path, fault))
}

fn labels(path: &Path, table: &LabelTable) -> Result<Labels, Fault> {
    let stored = Stored::read(path)?;
    let mut classes = Classes::new(table, stored.geometry.voxels());
    stored.visit(|_, value| {
        classes.push(value);
        Ok(())
    })?;
    let classes = classes.finish(|index| stored.position(index))?;
    let geometry = stored.geometry;
    Ok(Labels { classes: geometry.to_canonical(&classes), geometry })
}
