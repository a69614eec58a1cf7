//! A finished network, or one per modality, whose answers a training imitates pixel by pixel: the classical baseline to
//! the distillation between modalities.
//!
//! Teachers are frozen: norms use their running statistics, dropout is off, nothing is remembered. They are known by the
//! digest of their file, so that a resumed training cannot change its teacher.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use contract::{Modality, ModelSpec};
use sha2::{Digest, Sha256};
use tch::{Device, Tensor, no_grad};

use crate::{
    checkpoint::{self, CheckpointError},
    net::Network,
};

/// Why a checkpoint cannot teach.
#[derive(Debug, thiserror::Error)]
pub enum TeacherError {
    /// The file cannot be read.
    #[error("{}: {error}", path.display())]
    Io {
        /// File.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Not a checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A network of another kind.
    #[error("{}: the teacher's {what} is {found}, expected {expected} as in the network to train", path.display())]
    Differs {
        /// File.
        path: PathBuf,
        /// What must agree.
        what: &'static str,
        /// In the file.
        found: String,
        /// Of the training.
        expected: String,
    },
    /// Two teachers for one modality.
    #[error("{}: a second teacher for {modality}, expected at most one per modality", path.display())]
    Twice {
        /// File.
        path: PathBuf,
        /// Taught by an earlier file.
        modality: Modality,
    },
}

/// At most one network per modality.
#[derive(Debug, Default)]
pub struct Teachers(Vec<Network>);

impl Teachers {
    /// Reads checkpoints that see what the network to train sees, and answers with the digest of each file (SHA-256).
    pub fn load(paths: &[PathBuf], spec: &ModelSpec, device: Device) -> Result<(Self, Vec<String>), TeacherError> {
        let (mut networks, mut digests): (Vec<Network>, _) = (vec![], vec![]);
        for path in paths {
            let bytes = fs::read(path).map_err(|error| TeacherError::Io { path: path.clone(), error })?;
            digests.push(format!("{:x}", Sha256::digest(&bytes)));
            let (network, meta) = checkpoint::load(path, device)?;
            agree(path, &meta.spec, spec)?;
            let known = |modality: &&Modality| networks.iter().any(|other| other.modalities().contains(modality));
            if let Some(&modality) = network.modalities().iter().find(known) {
                return Err(TeacherError::Twice { path: path.clone(), modality });
            }
            networks.push(network);
        }
        Ok((Self(networks), digests))
    }

    /// Logits `[n, classes, (d,) h, w]` of the images that the network to train sees; `None` without a teacher.
    pub fn logits(&self, image: &Tensor, modality: Modality) -> Option<Tensor> {
        let network = self.0.iter().find(|network| network.modalities().contains(&modality))?;
        // The middle slices, where the teacher sees fewer.
        let (seen, channels) = (image.size()[1], network.net().input.channels as i64);
        let image = image.narrow(1, (seen - channels) / 2, channels);
        Some(no_grad(|| network.forward(&image, modality, false)))
    }
}

/// The same pixels, values and classes, and no slice that the student's batches lack.
fn agree(path: &Path, teacher: &ModelSpec, student: &ModelSpec) -> Result<(), TeacherError> {
    let slices = teacher.slices() <= student.slices() && (student.slices() - teacher.slices()).is_multiple_of(2);
    let names = |spec: &ModelSpec| {
        let all: Vec<&str> = spec.labels.organs().map(|(_, label)| label.name.as_str()).collect();
        all.join(", ")
    };
    let grid = |spec: &ModelSpec| {
        let ([depth, height, width], mm) = (spec.net.input.size, spec.grid.spacing_mm);
        format!("{depth} x {height} x {width} pixels of {mm} mm")
    };
    let intensity = |spec: &ModelSpec| format!("{:?}", spec.intensity);
    let count = |spec: &ModelSpec| format!("{} slices per image", spec.slices());
    let pairs = [
        ("grid", teacher.grid == student.grid && teacher.net.input.size == student.net.input.size, grid as fn(_) -> _),
        ("classes", names(teacher) == names(student), names),
        ("intensity rule", teacher.intensity == student.intensity, intensity),
        ("input", slices, count),
    ];
    match pairs.into_iter().find(|&(_, same, _)| !same) {
        None => Ok(()),
        Some((what, _, of)) => {
            Err(TeacherError::Differs { path: path.into(), what, found: of(teacher), expected: of(student) })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        net::Norms,
        test_support::{batch, settings},
        topology::Topology,
        trainer::{Amp, Settings, Trainer, image},
    };
    use contract::{Net, manifest::Provenance};

    fn saved(folder: &Path, name: &str, spec: &ModelSpec, modalities: &[Modality]) -> PathBuf {
        let path = folder.join(name);
        let network = Network::new(&spec.net, modalities, Norms::PerModality, 3, Device::Cpu).unwrap();
        checkpoint::save(&path, &network, spec, &Provenance::default()).unwrap();
        path
    }

    fn wide(net: Net) -> ModelSpec {
        ModelSpec { net, ..settings(Topology::Ummkd).spec }
    }

    /// A larger teacher of one modality: its loss falls, the other modality has none, and the teacher stays what it was.
    #[test]
    fn a_student_approaches_its_teacher() {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = Settings { steps: 40, ..settings(Topology::JointMsn) };
        settings.objective.teacher = 1.;
        let path = saved(folder.path(), "large.safetensors", &wide(Net::compact(1, 5, 4, 32, 32)), &[Modality::Mr]);
        let (teachers, digests) = Teachers::load(std::slice::from_ref(&path), &settings.spec, Device::Cpu).unwrap();
        assert_eq!((digests.len(), digests[0].len()), (1, 64));
        let mut trainer = Trainer::new(settings.clone(), Device::Cpu, Amp::Off).unwrap().taught_by(teachers);
        let seen = image(&settings.spec, &batch(Modality::Mr, 1).images, 2, Device::Cpu);
        let (teachers, _) = Teachers::load(&[path], &settings.spec, Device::Cpu).unwrap();
        let before = teachers.logits(&seen, Modality::Mr).unwrap();
        let terms: Vec<_> = (0..40)
            .map(|_| trainer.step([&batch(Modality::Ct, 1), &batch(Modality::Mr, 1)], true).unwrap().teacher)
            .collect();
        assert!(terms.iter().all(|[ct, mr]| ct.is_none() && mr.is_some()));
        let [first, last] = [terms[0][1].unwrap(), terms[39][1].unwrap()];
        assert!(last < 0.5 * first, "{first} to {last}");
        assert!(teachers.logits(&seen, Modality::Mr).unwrap().equal(&before));
    }

    #[test]
    fn a_teacher_that_sees_something_else_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let spec = settings(Topology::Ummkd).spec;
        let both = saved(folder.path(), "both.safetensors", &spec, &Modality::ALL);
        let ct = saved(folder.path(), "ct.safetensors", &spec, &[Modality::Ct]);
        let refused = |paths: &[PathBuf], spec: &ModelSpec| {
            let error = Teachers::load(paths, spec, Device::Cpu).unwrap_err().to_string();
            assert!(error.contains("safetensors"), "{error}");
            error
        };
        assert!(refused(&[both.clone(), ct], &spec).contains("a second teacher for ct"));
        let mut coarse = spec.clone();
        coarse.grid.spacing_mm = 8.;
        assert!(
            refused(std::slice::from_ref(&both), &coarse)
                .contains("32 pixels of 4 mm, expected 1 x 32 x 32 pixels of 8")
        );
        let three = saved(folder.path(), "three.safetensors", &wide(Net::compact(3, 5, 2, 32, 32)), &Modality::ALL);
        assert!(refused(&[three], &spec).contains("3 slices per image, expected 1"));
        // Fewer slices are the middle ones.
        let (teachers, _) = Teachers::load(&[both], &wide(Net::compact(3, 5, 2, 32, 32)), Device::Cpu).unwrap();
        let middle = image(&spec, &batch(Modality::Ct, 0).images, 2, Device::Cpu);
        let three = Tensor::cat(&[middle.ones_like(), middle.shallow_clone(), middle.zeros_like()], 1);
        let [a, b] = [&middle, &three].map(|image| teachers.logits(image, Modality::Ct).unwrap());
        assert!((a - b).abs().max().double_value(&[]) < 1e-5);
    }
}
