//! What a voxel can be made of, and what CT and MRI measure there.
//! All numbers are typical values, rounded: the spread between subjects is wider than the last digit of any source.

/// A tissue, content or device. The discriminant is the index into a [`Palette`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tissue {
    Air,
    Couch,
    Lung,
    Fat,
    Skin,
    Muscle,
    Cortical,
    Marrow,
    Disc,
    Csf,
    Artery,
    Vein,
    LiverVessel,
    Liver,
    KidneyCortex,
    KidneyMedulla,
    Urine,
    Spleen,
    Pancreas,
    GutWall,
    GutContent,
    Stool,
    Bile,
    /// Of the left heart and the arteries, in an angiography and in a balanced steady state.
    LeftBlood,
    /// Of the right heart and the lungs' vessels.
    RightBlood,
    Myocardium,
}

/// Attenuation of a tissue: in the portal-venous phase, or of the heart in an angiography.
pub(crate) struct Attenuation {
    /// Without contrast medium, HU.
    pub(crate) native_hu: f32,
    /// What a full dose adds, HU.
    pub(crate) enhancement_hu: f32,
    /// Half range between subjects, HU.
    pub(crate) spread_hu: f32,
    /// Standard deviation within one subject, HU.
    pub(crate) texture_hu: f32,
}

/// Relaxation of a tissue at 1.5 T.
pub(crate) struct Relaxation {
    pub(crate) t1_ms: f32,
    pub(crate) t2_ms: f32,
    /// Protons that give signal, relative to water.
    pub(crate) density: f32,
    /// Standard deviation within one subject, relative to the signal.
    pub(crate) texture: f32,
    /// Whether a fat-saturation pulse removes it.
    pub(crate) fat: bool,
}

/// What one modality shows of a tissue in one subject: the mean, and how much the texture fields add.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Shade {
    pub(crate) mean: f32,
    pub(crate) texture: f32,
}

/// One shade per tissue, indexed by `Tissue as usize`.
pub(crate) type Palette = [Shade; Tissue::ALL.len()];

impl Tissue {
    /// Whether only a scan of the heart shows it.
    pub(crate) fn of_the_heart(self) -> bool {
        matches!(self, Self::LeftBlood | Self::RightBlood | Self::Myocardium)
    }

    pub(crate) const ALL: [Self; 26] = {
        use Tissue::*;
        [
            Air,
            Couch,
            Lung,
            Fat,
            Skin,
            Muscle,
            Cortical,
            Marrow,
            Disc,
            Csf,
            Artery,
            Vein,
            LiverVessel,
            Liver,
            KidneyCortex,
            KidneyMedulla,
            Urine,
            Spleen,
            Pancreas,
            GutWall,
            GutContent,
            Stool,
            Bile,
            LeftBlood,
            RightBlood,
            Myocardium,
        ]
    };

    pub(crate) fn attenuation(self) -> Attenuation {
        let (native_hu, enhancement_hu, spread_hu, texture_hu) = match self {
            Self::Air => (-1000.0, 0.0, 0.0, 0.0),
            Self::Couch => (-550.0, 0.0, 100.0, 20.0),
            Self::Lung => (-820.0, 15.0, 40.0, 45.0),
            Self::Fat => (-104.0, 2.0, 6.0, 9.0),
            Self::Skin => (10.0, 15.0, 10.0, 10.0),
            Self::Muscle => (50.0, 14.0, 6.0, 12.0),
            Self::Cortical => (520.0, 0.0, 90.0, 90.0),
            Self::Marrow => (165.0, 12.0, 50.0, 32.0),
            Self::Disc => (80.0, 5.0, 12.0, 8.0),
            Self::Csf => (14.0, 3.0, 5.0, 5.0),
            Self::Artery => (40.0, 110.0, 14.0, 3.0),
            Self::Vein => (40.0, 100.0, 18.0, 5.0),
            Self::LiverVessel => (40.0, 112.0, 10.0, 4.0),
            Self::Liver => (56.0, 52.0, 12.0, 5.0),
            Self::KidneyCortex => (33.0, 140.0, 14.0, 7.0),
            Self::KidneyMedulla => (31.0, 122.0, 16.0, 10.0),
            Self::Urine => (6.0, 10.0, 5.0, 4.0),
            Self::Spleen => (47.0, 72.0, 8.0, 4.0),
            Self::Pancreas => (40.0, 60.0, 10.0, 16.0),
            Self::GutWall => (38.0, 60.0, 12.0, 16.0),
            Self::GutContent => (25.0, 6.0, 22.0, 22.0),
            Self::Stool => (20.0, 0.0, 25.0, 75.0),
            Self::Bile => (9.0, 1.0, 7.0, 3.0),
            Self::LeftBlood => (40.0, 350.0, 22.0, 5.0),
            // The bolus has passed, more or less, and what follows is not yet mixed.
            Self::RightBlood => (40.0, 150.0, 70.0, 18.0),
            Self::Myocardium => (45.0, 60.0, 10.0, 7.0),
        };
        Attenuation { native_hu, enhancement_hu, spread_hu, texture_hu }
    }

    pub(crate) fn relaxation(self) -> Relaxation {
        let (t1_ms, t2_ms, density, texture) = match self {
            // No protons, or protons whose signal is gone before the echo.
            Self::Air | Self::Couch => (1000.0, 1.0, 0.0, 0.0),
            Self::Cortical => (300.0, 2.0, 0.10, 0.0),
            Self::Lung => (1100.0, 40.0, 0.15, 0.35),
            Self::Fat => (340.0, 60.0, 0.95, 0.12),
            Self::Skin => (900.0, 35.0, 0.70, 0.10),
            Self::Muscle => (870.0, 30.0, 0.80, 0.12),
            Self::Marrow => (550.0, 50.0, 0.45, 0.15),
            Self::Disc => (1000.0, 75.0, 0.70, 0.15),
            Self::Csf => (4000.0, 1500.0, 1.00, 0.05),
            // Flowing blood leaves the slice between pulse and echo: the density is what is left of it.
            Self::Artery => (1400.0, 200.0, 0.04, 0.30),
            Self::Vein => (1400.0, 180.0, 0.10, 0.40),
            Self::LiverVessel => (1400.0, 180.0, 0.12, 0.20),
            Self::Liver => (590.0, 46.0, 0.78, 0.05),
            Self::KidneyCortex => (970.0, 86.0, 0.80, 0.06),
            Self::KidneyMedulla => (1400.0, 92.0, 0.88, 0.08),
            Self::Urine => (3500.0, 800.0, 1.00, 0.03),
            Self::Spleen => (1050.0, 78.0, 0.80, 0.05),
            Self::Pancreas => (600.0, 52.0, 0.80, 0.16),
            Self::GutWall => (900.0, 62.0, 0.78, 0.15),
            Self::GutContent => (2000.0, 150.0, 0.75, 0.30),
            Self::Stool => (900.0, 70.0, 0.50, 0.45),
            Self::Bile => (2800.0, 500.0, 1.00, 0.03),
            Self::LeftBlood => (1450.0, 240.0, 0.95, 0.05),
            Self::RightBlood => (1450.0, 160.0, 0.95, 0.07),
            Self::Myocardium => (1000.0, 46.0, 0.80, 0.06),
        };
        Relaxation { t1_ms, t2_ms, density, texture, fat: self == Self::Fat }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_in_the_order_of_the_indices() {
        for (index, tissue) in Tissue::ALL.into_iter().enumerate() {
            assert_eq!(tissue as usize, index);
        }
    }
}
