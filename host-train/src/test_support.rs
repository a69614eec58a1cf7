//! A network small enough to train in milliseconds, and batches that need no files.

use contract::{Grid, Intensity, LabelMap, Modality, ModelSpec, Net};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{
    augment::Augment, objective::Objective, sampler::Batch, schedule::Schedule, topology::Topology, trainer::Settings,
};

/// `compact-2` on 32 x 32 pixels, two slices a batch.
pub fn settings(topology: Topology) -> Settings {
    let grid = Grid { height: 32, width: 32, spacing_mm: 4. };
    Settings {
        topology,
        norms: None,
        spec: ModelSpec {
            net: Net::compact(1, 5, 2, 32, 32),
            labels: LabelMap::abdomen(),
            grid,
            intensity: Intensity::default(),
            modalities: Modality::ALL.to_vec(),
        },
        steps: 12,
        batch: 2,
        rate: 1e-2,
        schedule: Schedule::Cosine,
        seed: 1,
        objective: Objective::default(),
        quirks: vec![],
        teachers: vec![],
        groups: 1,
        augment: Augment::none(),
        held_out: None,
        cases: None,
    }
}

/// Squares of a class each; how bright a class is depends on the modality.
pub fn batch(modality: Modality, step: u64) -> Batch {
    let mut random = ChaCha8Rng::seed_from_u64(step * 2 + modality.index() as u64);
    let labels: Vec<u8> = (0..2)
        .flat_map(|_| {
            let shift = random.random_range(0..16);
            (0..32 * 32).map(move |i| (((i / 32 + shift) / 16 * 2 + i % 32 / 16) % 5) as u8).collect::<Vec<_>>()
        })
        .collect();
    let bright = |class: u8| if modality == Modality::Ct { f32::from(class) } else { 4. - f32::from(class) };
    let images = labels.iter().map(|&class| bright(class) / 2. - 1. + random.random_range(-0.2..0.2)).collect();
    Batch { images, labels, n: 2 }
}
