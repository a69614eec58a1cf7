//! `checkpoint.safetensors`: a trained network as exporter and evaluation read it.
//!
//! Exactly the tensors of [`contract::names`], and [`CheckpointMeta`] as JSON under [`CHECKPOINT_KEY`].

use std::path::{Path, PathBuf};

use contract::{
    ModelSpec, NetError,
    manifest::{CHECKPOINT_KEY, CheckpointMeta, Provenance, SpecError, check_version},
};
use tch::Device;

use crate::{
    net::Network,
    store::{self, Store, StoreError},
};

/// Why a checkpoint cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The file or its tensors.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Another program's file.
    #[error("{}: no '{CHECKPOINT_KEY}' in the metadata: expected a checkpoint that gantry-train wrote", path.display())]
    NoMeta {
        /// File.
        path: PathBuf,
    },
    /// Metadata that cannot be read.
    #[error("{}: the metadata '{CHECKPOINT_KEY}' is broken: {error}", path.display())]
    Meta {
        /// File.
        path: PathBuf,
        /// Why.
        error: serde_json::Error,
    },
    /// Metadata that cannot be followed.
    #[error("{}: {error}", path.display())]
    Spec {
        /// File.
        path: PathBuf,
        /// Why.
        error: SpecError,
    },
    /// Layers that are no network.
    #[error(transparent)]
    Net(#[from] NetError),
}

/// Writes a network; `spec` is that of the training, of which the network may hold one modality only.
pub fn save(path: &Path, network: &Network, spec: &ModelSpec, provenance: &Provenance) -> Result<(), StoreError> {
    let spec = ModelSpec { modalities: network.modalities().to_vec(), ..spec.clone() };
    let meta = CheckpointMeta { contract: contract::VERSION, spec, provenance: provenance.clone() };
    let text = serde_json::to_string(&meta).expect("metadata of plain numbers and strings is JSON");
    store::write(path, &network.tensors(), CHECKPOINT_KEY, text)
}

/// Reads a network for inference; names, shapes and values are checked one by one.
pub fn load(path: &Path, device: Device) -> Result<(Network, CheckpointMeta), CheckpointError> {
    let mut store = Store::read(path)?;
    let text = store.text(CHECKPOINT_KEY).ok_or_else(|| CheckpointError::NoMeta { path: path.into() })?;
    let meta: CheckpointMeta =
        serde_json::from_str(text).map_err(|error| CheckpointError::Meta { path: path.into(), error })?;
    let spec_error = |error| CheckpointError::Spec { path: path.into(), error };
    check_version(meta.contract).map_err(spec_error)?;
    meta.spec.check().map_err(spec_error)?;
    let network = Network::from_tensors(&meta.spec.net, &meta.spec.modalities, device, |name, shape| {
        store.take(name, shape).map_err(CheckpointError::from)
    })?;
    store.finish()?;
    Ok((network, meta))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        test_support::{batch, settings},
        topology::Topology,
        trainer::{Amp, Trainer},
    };
    use contract::Modality;

    fn trained(topology: Topology) -> Trainer {
        let mut trainer = Trainer::new(settings(topology), Device::Cpu, Amp::Off).unwrap();
        for step in 0..3 {
            trainer.step([&batch(Modality::Ct, step), &batch(Modality::Mr, step)], false);
        }
        trainer
    }

    /// The file holds every name of the contract and answers as the network in memory does, bit for bit.
    #[test]
    fn a_checkpoint_answers_as_the_network_it_was_made_from() {
        let folder = tempfile::tempdir().unwrap();
        for topology in Topology::ALL {
            let trainer = trained(topology);
            for network in trainer.networks() {
                let (first, second) = (folder.path().join("a.safetensors"), folder.path().join("b.safetensors"));
                save(&first, network, &trainer.settings().spec, &Provenance::default()).unwrap();
                let (loaded, meta) = load(&first, Device::Cpu).unwrap();
                assert_eq!(meta.spec.modalities, network.modalities());
                for &modality in network.modalities() {
                    let image = crate::trainer::image(&meta.spec, &batch(modality, 9).images, 2, Device::Cpu);
                    let answer = |network: &Network| network.forward(&image, modality, false);
                    assert!(answer(network).equal(&answer(&loaded)));
                }
                save(&second, &loaded, &meta.spec, &Provenance::default()).unwrap();
                assert_eq!(std::fs::read(&first).unwrap(), std::fs::read(&second).unwrap());
            }
        }
    }

    /// The tensors of a file, and something done to them.
    type Tensors = Vec<(String, tch::Tensor)>;
    type Change<'a> = &'a dyn Fn(&mut Tensors);

    #[test]
    fn every_wrong_tensor_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("broken.safetensors");
        let trainer = trained(Topology::Ummkd);
        let network = &trainer.networks()[0];
        save(&path, network, &trainer.settings().spec, &Provenance::default()).unwrap();
        let text = Store::read(&path).unwrap().text(CHECKPOINT_KEY).unwrap().to_string();
        let refused = |change: Change<'_>, text: &str| {
            let mut tensors = network.tensors();
            change(&mut tensors);
            store::write(&path, &tensors, CHECKPOINT_KEY, text.to_string()).unwrap();
            load(&path, Device::Cpu).unwrap_err().to_string()
        };
        let position = |tensors: &Tensors| tensors.iter().position(|(name, _)| name == "enc1b.norm.mr.beta").unwrap();
        let cases: [(Change<'_>, &str); 4] = [
            (&|t| drop(t.remove(position(t))), "'enc1b.norm.mr.beta' of shape [2] is missing"),
            (&|t| t.push(("extra".into(), t[0].1.copy())), "'extra' belongs to no layer"),
            (&|t| t[0].1 = t[0].1.flatten(0, -1), "has shape [18], expected [2, 1, 3, 3]"),
            (&|t| t[0].1 = t[0].1.full_like(f64::NAN), "holds NaN"),
        ];
        for (change, words) in cases {
            let message = refused(change, &text);
            assert!(message.contains(words) && message.contains("broken.safetensors"), "{message}");
        }
        let version = text.replacen("\"contract\":1", "\"contract\":99", 1);
        assert!(refused(&|_| {}, &version).contains("version 99"));
        assert!(refused(&|_| {}, "{}").contains("is broken"));
        std::fs::write(&path, b"not tensors").unwrap();
        assert!(load(&path, Device::Cpu).unwrap_err().to_string().contains("not a whole safetensors file"));
    }
}
