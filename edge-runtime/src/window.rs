//! The codes of the last slices: each slice of a volume passes the intensity rule once, however many images show it.

use contract::{Intake, IntensityError};

use crate::{EdgeError, Engine};

/// One slot per slice that an image can show; slice `z` lies in slot `z % slots`. All memory is taken when it is made.
#[derive(Debug)]
pub struct Window {
    intake: Intake,
    /// Pixels of a raw slice.
    area: usize,
    slots: Vec<Slot>,
}

/// The codes of one slice, and whether it may be segmented.
#[derive(Clone, Debug)]
struct Slot {
    slice: Option<usize>,
    codes: Vec<i8>,
    result: Result<(), IntensityError>,
}

impl Window {
    /// For images of as many slices as there are `slots`, of `model_area` pixels each.
    pub fn new(intake: Intake, slots: usize, model_area: usize) -> Self {
        let plane = intake.resampler().plane();
        let slot = Slot { slice: None, codes: vec![i8::MIN; model_area], result: Ok(()) };
        Self { intake, area: plane.height * plane.width, slots: vec![slot; slots] }
    }

    /// Pixels of a raw slice.
    pub const fn area(&self) -> usize {
        self.area
    }

    /// The way back, for label maps.
    pub const fn intake(&self) -> &Intake {
        &self.intake
    }

    /// Forgets the slices seen, before another volume of the same geometry.
    pub fn restart(&mut self) {
        self.slots.iter_mut().for_each(|slot| slot.slice = None);
    }

    /// Codes of slice `z` of `volume` (`[z][y][x]`), all dark if it must not be segmented, and whether it may be.
    pub fn codes(
        &mut self,
        engine: &Engine,
        volume: &[i16],
        z: usize,
    ) -> Result<(&[i8], Result<(), IntensityError>), EdgeError> {
        let slots = self.slots.len();
        let slot = &mut self.slots[z % slots];
        if slot.slice != Some(z) {
            let Some(raw) = volume.chunks_exact(self.area).nth(z) else {
                let expected = (z + 1) * self.area;
                return Err(EdgeError::Length { what: "the volume", found: volume.len(), expected });
            };
            slot.result = engine.codes(&mut self.intake, raw, &mut slot.codes);
            slot.slice = Some(z);
        }
        Ok((&slot.codes, slot.result))
    }
}
