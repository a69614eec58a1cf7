//! The power-on self-test: the network answers a fixed picture, and the answer must have the bits that the exporter
//! recorded. It finds a damaged weight, a miscompiled kernel and an engine that rounds by another rule.

use contract::{Modality, golden};
use sha2::{Digest, Sha256};

use crate::{EdgeError, Engine, Logits, Model, model::hex};

/// What one branch answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The branch.
    pub modality: Modality,
    /// SHA-256 of the logits, one byte per code (f32: four, little-endian), hexadecimal.
    pub logits_sha256: String,
    /// SHA-256 of the labels, one byte each, hexadecimal.
    pub labels_sha256: String,
    /// Digests of logits and labels in the manifest, if it has them.
    pub golden: Option<[String; 2]>,
}

impl Answer {
    /// Whether the bits are the recorded ones; `None` if none are recorded.
    pub fn pass(&self) -> Option<bool> {
        let [logits, labels] = self.golden.as_ref()?;
        Some(*logits == self.logits_sha256 && *labels == self.labels_sha256)
    }

    /// The refusal of an answer that did not pass. An f32 model records none, because last bits differ between machines.
    fn demand(&self, int8: bool) -> Result<(), EdgeError> {
        let Some([logits, labels]) = &self.golden else {
            return if int8 { Err(EdgeError::NoGolden { modality: self.modality }) } else { Ok(()) };
        };
        let pairs = [("logits", &self.logits_sha256, logits), ("labels", &self.labels_sha256, labels)];
        match pairs.into_iter().find(|(_, found, expected)| found != expected) {
            None => Ok(()),
            Some((what, found, expected)) => Err(EdgeError::SelfTest {
                modality: self.modality,
                what,
                found: found.clone(),
                expected: expected.clone(),
            }),
        }
    }
}

/// Runs every branch on the golden picture.
pub fn answers(model: &Model, engine: &mut Engine) -> Result<Vec<Answer>, EdgeError> {
    let spec = model.spec();
    let mut image = vec![0; engine.image_len()];
    let mut labels = vec![0; engine.labels_len()];
    let mut answer = |modality: Modality| {
        golden::codes(modality, spec.grid.height, spec.grid.width, &mut image);
        engine.run(&image, modality, &mut labels)?;
        let recorded = model.manifest.golden.iter().find(|golden| golden.modality == modality);
        Ok(Answer {
            modality,
            logits_sha256: logits_digest(engine.logits()),
            labels_sha256: hex(&Sha256::digest(&labels)),
            golden: recorded.map(|golden| [golden.logits_sha256.clone(), golden.labels_sha256.clone()]),
        })
    };
    spec.modalities.iter().map(|&modality| answer(modality)).collect()
}

/// Runs the self-test and refuses a model or machine that fails it.
pub fn demand(model: &Model, engine: &mut Engine) -> Result<(), EdgeError> {
    answers(model, engine)?.iter().try_for_each(|answer| answer.demand(model.is_int8()))
}

fn logits_digest(logits: Option<Logits<'_>>) -> String {
    let mut digest = Sha256::new();
    match logits {
        Some(Logits::Codes(codes)) => codes.chunks(4096).for_each(|chunk| {
            digest.update(chunk.iter().map(|&code| code as u8).collect::<Vec<_>>());
        }),
        Some(Logits::Reals(reals)) => reals.iter().for_each(|real| digest.update(real.to_le_bytes())),
        None => {}
    }
    hex(&digest.finalize())
}
