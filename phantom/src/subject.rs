//! A subject: one patient in one scanner, determined by a seed.

use contract::{LabelMap, Modality};

use crate::{abdomen, ct, grid::Grid, heart, mr, random::Draw, scene::Painted};

/// The part of the body that is made up; each is one arm of the matches in this file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anatomy {
    /// Liver, both kidneys and the spleen, with their neighbours.
    Abdomen,
    /// Myocardium and blood of the left ventricle, left atrium and ascending aorta, in the whole chest: CT angiography and
    /// balanced steady-state MRI. At rest.
    Heart,
}

impl Anatomy {
    /// Lower-case name, the first word of every file of a data set.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Abdomen => "abdomen",
            Self::Heart => "heart",
        }
    }

    /// The organs that [`Rendered::labels`] marks.
    pub fn labels(self) -> LabelMap {
        match self {
            Self::Abdomen => LabelMap::abdomen(),
            Self::Heart => LabelMap::heart(),
        }
    }
}

/// How finely a subject is scanned. A coarser grid covers the same patient, faster.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SubjectOptions {
    /// Pixels are this many times larger in plane, at least 1.
    pub coarser_pixels: f32,
    /// Slices are this many times thicker, at least 1.
    pub thicker_slices: f32,
}

impl Default for SubjectOptions {
    fn default() -> Self {
        Self { coarser_pixels: 1.0, thicker_slices: 1.0 }
    }
}

/// One patient in one scanner. Equal arguments give equal voxels on every machine.
#[derive(Clone, Copy, Debug)]
pub struct Subject {
    anatomy: Anatomy,
    modality: Modality,
    seed: u64,
    options: SubjectOptions,
}

/// A scan and its truth.
#[derive(Clone, Debug)]
pub struct Rendered {
    /// Raw pixels: HU for CT, arbitrary units for MRI. `dims[0]` varies fastest.
    pub raw: Vec<i16>,
    /// Label of every voxel's centre, in the order of `raw`.
    pub labels: Vec<u8>,
    /// Where the voxels lie.
    pub grid: Grid,
}

/// Independent streams of one subject's seed.
#[derive(Clone, Copy)]
enum Stream {
    Anatomy,
    Scan,
    Geometry,
    Noise,
}

impl Subject {
    /// A subject at the scanner's full resolution.
    pub const fn new(anatomy: Anatomy, modality: Modality, seed: u64) -> Self {
        Self::with_options(anatomy, modality, seed, SubjectOptions { coarser_pixels: 1.0, thicker_slices: 1.0 })
    }

    /// A subject on a coarser grid: the same patient as with any other options.
    pub const fn with_options(anatomy: Anatomy, modality: Modality, seed: u64, options: SubjectOptions) -> Self {
        Self { anatomy, modality, seed, options }
    }

    /// Makes the scan: seconds of one core at full resolution.
    pub fn render(&self) -> Rendered {
        let (couch, mut anatomy) = (self.modality == Modality::Ct, self.draw(Stream::Anatomy));
        let scene = match self.anatomy {
            Anatomy::Abdomen => abdomen::scene(&mut anatomy, couch),
            Anatomy::Heart => heart::scene(&mut anatomy, couch),
        };
        let grid = self.grid();
        let (mut scan, mut noise) = (self.draw(Stream::Scan), self.draw(Stream::Noise));
        let Painted { values, labels } = match self.modality {
            Modality::Ct => ct::Scan::new(self.anatomy, &mut scan).acquire(&scene, &grid, &mut noise),
            Modality::Mr => mr::Scan::new(self.anatomy, &mut scan).acquire(&scene, &grid, &mut noise),
        };
        // CT's smallest number is that of an empty 12-bit pixel.
        let least = if self.modality == Modality::Ct { -1024.0 } else { 0.0 };
        let raw = values.into_iter().map(|value| value.round().clamp(least, 32767.0) as i16).collect();
        Rendered { raw, labels, grid }
    }

    fn draw(&self, stream: Stream) -> Draw {
        Draw::new(self.seed, 16 * self.modality.index() as u64 + stream as u64)
    }

    /// Field of view, spacing and orientation, each typical of the modality: CT is square, thin and stored straight;
    /// MRI is rectangular, thick, slightly oblique and stored the other way round.
    fn grid(&self) -> Grid {
        let mut draw = self.draw(Stream::Geometry);
        let (dims, pixel, slice, codes, tilt) = match self.modality {
            Modality::Ct => {
                ([224, 224, 26 + draw.below(5) as usize], draw.uniform(1.6, 1.8), 5.0, ["LPS", "LAS", "RAS"], 0.0)
            }
            Modality::Mr => {
                let dims = [176, 144, 20 + draw.below(4) as usize];
                (dims, draw.uniform(2.1, 2.35), draw.uniform(6.4, 7.6), ["RPI", "PLI", "LPI"], 0.10)
            }
        };
        // Heart and arch, in thinner slices, and no more of the body than the field of view of a cardiac scan.
        let (dims, pixel, slice, middle) = match self.anatomy {
            Anatomy::Abdomen => (dims, pixel, slice, -2.0),
            Anatomy::Heart => ([dims[0], dims[1], dims[2] + 8], 0.94 * pixel, 0.9 * slice, 16.0),
        };
        let code = codes[draw.below(3) as usize];
        let angles = draw.near([0.0; 3], [tilt, 0.5 * tilt, tilt]);
        let centre = draw.near([0.0, 0.0, middle], [12.0, 8.0, 8.0]);
        let (coarser, thicker) = (self.options.coarser_pixels.max(1.0), self.options.thicker_slices.max(1.0));
        let pixels = |count: usize| (count as f32 / coarser).ceil() as usize;
        let slices = (dims[2] as f32 / thicker).ceil() as usize;
        let (across, down) = (pixels(dims[0]), pixels(dims[1]));
        let dims = if code.starts_with('P') { [down, across, slices] } else { [across, down, slices] };
        Grid::new(dims, [pixel * coarser, pixel * coarser, slice * thicker], code, angles, centre)
    }
}
