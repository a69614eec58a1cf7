//! The same seed gives the same voxels: in every build, on every machine, however many threads there are.
//!
//! The digests below were made by this package. After an intended change of the phantom run
//! `cargo test -p phantom --test reproducible` and copy the digests from its message: nothing but the change itself
//! should have moved them.

use contract::Modality;
use phantom::{Anatomy, Rendered, Subject, SubjectOptions};
use sha2::{Digest, Sha256};

const SMALL: SubjectOptions = SubjectOptions { coarser_pixels: 3.0, thicker_slices: 3.0 };

const GOLDEN: [(Anatomy, Modality, &str); 4] = [
    (Anatomy::Abdomen, Modality::Ct, "00e8d843ac4fe6d4819fe7a884d6a2e3d19fe5963452586405845a759b60e7fc"),
    (Anatomy::Abdomen, Modality::Mr, "24c5edda1ff24b457b9195e87790acf477904f355137aefae2581fe70c5742e6"),
    (Anatomy::Heart, Modality::Ct, "5ad0d17dd9b48b4cf4ecaf5ec0aae90540ed41cef59998d6b07767eec8be2234"),
    (Anatomy::Heart, Modality::Mr, "9af825b22bc40235f26855c70688cd35326c131aad384a68a0cd1277c7b72ff9"),
];

/// SHA-256 of grid, voxels (little endian) and labels.
fn digest(rendered: &Rendered) -> String {
    let mut hash = Sha256::new();
    hash.update(format!("{:?}", rendered.grid.dims));
    for value in rendered.grid.lps.iter().flatten() {
        // Adding zero makes -0 and 0 one number.
        hash.update((value + 0.0).to_le_bytes());
    }
    for value in &rendered.raw {
        hash.update(value.to_le_bytes());
    }
    hash.update(&rendered.labels);
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn small(modality: Modality, seed: u64) -> Rendered {
    Subject::with_options(Anatomy::Abdomen, modality, seed, SMALL).render()
}

#[test]
fn digests_are_the_stored_ones() {
    let render = |anatomy, modality| Subject::with_options(anatomy, modality, 2026, SMALL).render();
    let found = GOLDEN.map(|(anatomy, modality, _)| (anatomy, modality, digest(&render(anatomy, modality))));
    let expected = GOLDEN.map(|(anatomy, modality, digest)| (anatomy, modality, digest.to_string()));
    assert_eq!(found, expected);
}

#[test]
fn threads_do_not_matter_and_seeds_do() {
    let threads: Vec<_> = (0..4).map(|n| std::thread::spawn(move || digest(&small(Modality::Mr, n / 2)))).collect();
    let digests: Vec<String> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    assert_eq!(digests[0], digests[1]);
    assert_eq!(digests[2], digests[3]);
    assert_ne!(digests[0], digests[2]);
}

/// A coarser grid shows the same patient: volumes agree within the partial volume of its voxels.
#[test]
fn options_change_the_grid_and_not_the_patient() {
    let fine = Subject::new(Anatomy::Abdomen, Modality::Ct, 5).render();
    let coarse = Subject::with_options(
        Anatomy::Abdomen,
        Modality::Ct,
        5,
        SubjectOptions { coarser_pixels: 2.0, thicker_slices: 1.0 },
    )
    .render();
    let liver = |r: &Rendered| {
        r.labels.iter().filter(|label| **label == 1).count() as f32 * r.grid.spacing_mm.iter().product::<f32>()
    };
    let ratio = liver(&fine) / liver(&coarse);
    assert!((0.98..1.02).contains(&ratio), "{ratio}");
}
