//! A slice's way into the network: intensity rule and model grid, in the one order that all three products use.

use alloc::{vec, vec::Vec};

use crate::{Grid, GridError, Intensity, IntensityError, Lut, Modality, Plane, Resampler};

/// Turns raw slices of one geometry and modality into codes on the model's grid. All memory is taken when it is made.
#[derive(Clone, Debug)]
pub struct Intake {
    modality: Modality,
    intensity: Intensity,
    resampler: Resampler,
    lut: Lut,
    scratch: Vec<i16>,
    resampled: Vec<i16>,
}

impl Intake {
    /// Plans for slices of `plane`.
    pub fn new(modality: Modality, intensity: Intensity, plane: Plane, grid: Grid) -> Result<Self, GridError> {
        let resampler = Resampler::new(plane, grid)?;
        let scratch = vec![0; resampler.scratch_len()];
        Ok(Self {
            modality,
            intensity,
            resampler,
            lut: Lut::default(),
            scratch,
            resampled: vec![0; grid.height * grid.width],
        })
    }

    /// Codes of a raw slice, `[height, width]` of the model's grid. A refused slice is all dark (-128), which is how the
    /// slices beside it see it.
    ///
    /// # Panics
    /// If `raw` or `codes` is not as long as its grid says.
    #[inline(always)] // for callers that are compiled for a CPU's own instructions
    pub fn codes(&mut self, raw: &[i16], codes: &mut [i8]) -> Result<(), IntensityError> {
        let plane = self.resampler.plane();
        assert_eq!(raw.len(), plane.height * plane.width, "pixels of the slice");
        assert_eq!(codes.len(), self.resampled.len(), "pixels of the model's grid");
        codes.fill(i8::MIN);
        self.lut.fit(&self.intensity, self.modality, raw)?;
        self.resampler.forward(raw, self.lut.low(), &mut self.scratch, &mut self.resampled);
        self.lut.encode(&self.resampled, codes);
        Ok(())
    }

    /// Whose rule it is.
    pub const fn modality(&self) -> Modality {
        self.modality
    }

    /// The way back, for label maps.
    pub const fn resampler(&self) -> &Resampler {
        &self.resampler
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn air_surrounds_a_small_slice_and_the_window_holds() {
        let grid = Grid { height: 8, width: 8, spacing_mm: 2. };
        let plane = Plane { height: 4, width: 4, row_mm: 2., column_mm: 2. };
        let mut intake = Intake::new(Modality::Ct, Intensity::default(), plane, grid).unwrap();
        let mut raw = [240; 16];
        raw[0] = -1000;
        let mut codes = [0; 64];
        intake.codes(&raw, &mut codes).unwrap();
        assert_eq!(codes.iter().filter(|&&code| code == 127).count(), 15);
        assert_eq!(codes.iter().filter(|&&code| code == -128).count(), 49);
        assert_eq!(intake.codes(&[5; 16], &mut codes), Err(IntensityError::Constant { value: 5 }));
        assert_eq!(codes, [-128; 64]);
    }
}
