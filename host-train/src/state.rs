//! The state of a training, for an exact resume: variables as the optimiser sees them, moments, running statistics, the
//! step, the best scores. One file, so that no crash can leave two halves that do not belong together.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tch::{Device, no_grad};

use crate::{
    store::{self, Store, StoreError},
    trainer::{Amp, Settings, Trainer},
};

/// Key of the header's text.
const STATE_KEY: &str = "gantry.state";

/// What stands in the header.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Header {
    contract: u32,
    step: u64,
    /// Per network, the best mean Dice on validation.
    best: Vec<Option<f64>>,
    settings: Settings,
}

/// Why a training cannot be resumed.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The file or its tensors.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Not a state.
    #[error("{}: no readable '{STATE_KEY}' in the metadata: {reason}", path.display())]
    Header {
        /// File.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Another training.
    #[error("{}: the training was started with {field} = {found}, but now it is {asked}: a resumed training keeps its settings", path.display())]
    Settings {
        /// File.
        path: PathBuf,
        /// Where the two differ.
        field: String,
        /// In the file.
        found: String,
        /// On the command line.
        asked: String,
    },
    /// The layers do not fit.
    #[error(transparent)]
    Net(#[from] contract::NetError),
}

/// Writes the state.
pub fn save(path: &Path, trainer: &Trainer, best: &[Option<f64>]) -> Result<(), StoreError> {
    let header = Header {
        contract: contract::VERSION,
        step: trainer.steps_made(),
        best: best.to_vec(),
        settings: trainer.settings().clone(),
    };
    let text = serde_json::to_string(&header).expect("settings of plain numbers and strings are JSON");
    store::write(path, &trainer.state(), STATE_KEY, text)
}

/// Reads the state of a training with these settings, and its best scores.
pub fn load(
    path: &Path,
    settings: Settings,
    device: Device,
    amp: Amp,
) -> Result<(Trainer, Vec<Option<f64>>), StateError> {
    let mut store = Store::read(path)?;
    let broken = |reason: String| StateError::Header { path: path.into(), reason };
    let text = store.text(STATE_KEY).ok_or_else(|| broken("it is absent".into()))?;
    let header: Header = serde_json::from_str(text).map_err(|error| broken(error.to_string()))?;
    if header.contract != contract::VERSION {
        return Err(broken(format!("contract version {}, expected {}", header.contract, contract::VERSION)));
    }
    let value = |settings: &Settings| serde_json::to_value(settings).expect("settings are JSON");
    if let Some((field, found, asked)) = difference("", &value(&header.settings), &value(&settings)) {
        return Err(StateError::Settings { path: path.into(), field, found, asked });
    }
    let mut trainer = Trainer::new(settings, device, amp)?;
    for (name, mut tensor) in trainer.state() {
        let shape: Vec<usize> = tensor.size().iter().map(|&side| side as usize).collect();
        let saved = store.take(&name, &shape)?;
        // In place: the memory layout stays that of a fresh network, and with it the order of every sum.
        no_grad(|| tensor.copy_(&saved));
    }
    store.finish()?;
    trainer.set_steps_made(header.step);
    Ok((trainer, header.best))
}

/// The first place where two JSON values differ: path and both values.
fn difference(path: &str, found: &Value, asked: &Value) -> Option<(String, String, String)> {
    match (found, asked) {
        (Value::Object(a), Value::Object(b)) => a.keys().chain(b.keys()).find_map(|key| {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            let null = &Value::Null;
            difference(&path, a.get(key).unwrap_or(null), b.get(key).unwrap_or(null))
        }),
        _ if found == asked => None,
        _ => Some((path.to_string(), found.to_string(), asked.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        test_support::{batch, settings},
        topology::Topology,
    };
    use contract::Modality;

    fn train(trainer: &mut Trainer, until: u64) {
        while trainer.steps_made() < until {
            let step = trainer.steps_made();
            trainer.step([&batch(Modality::Ct, step), &batch(Modality::Mr, step)], false);
        }
    }

    /// Seven steps at once against three, a file, and four; with dropout, whose draws must not depend on the past.
    #[test]
    fn a_resumed_training_equals_an_uninterrupted_one_bit_for_bit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.safetensors");
        for topology in Topology::ALL {
            let mut settings = settings(topology);
            if let contract::net::Op::Conv(conv) = &mut settings.spec.net.layers[1].op {
                conv.dropout = 0.25;
            }
            let fresh = || Trainer::new(settings.clone(), Device::Cpu, Amp::Off).unwrap();
            let mut whole = fresh();
            train(&mut whole, 7);
            let mut half = fresh();
            train(&mut half, 3);
            save(&path, &half, &[Some(0.1 + 0.2), None]).unwrap();
            train(&mut half, 4); // Must leave no trace in what follows.
            let (mut resumed, best) = load(&path, settings.clone(), Device::Cpu, Amp::Off).unwrap();
            assert_eq!((resumed.steps_made(), best), (3, vec![Some(0.1 + 0.2), None]));
            train(&mut resumed, 7);
            for ((name, a), (_, b)) in whole.state().iter().zip(resumed.state()) {
                assert!(a.equal(&b), "{topology:?}: {name}");
            }
        }
    }

    #[test]
    fn other_settings_are_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.safetensors");
        let old = settings(Topology::Ummkd);
        save(&path, &Trainer::new(old.clone(), Device::Cpu, Amp::Off).unwrap(), &[None]).unwrap();
        let refused = |settings| load(&path, settings, Device::Cpu, Amp::Off).unwrap_err().to_string();
        let words = [
            (Settings { batch: 7, ..old.clone() }, "batch = 2, but now it is 7"),
            (Settings { topology: Topology::Joint, ..old.clone() }, "topology = \"ummkd\", but now it is \"joint\""),
        ];
        for (settings, words) in words {
            let message = refused(settings);
            assert!(message.contains(words), "{message}");
        }
        let mut other = old;
        other.objective.kd = 0.25;
        assert!(refused(other).contains("objective.kd = 0.5, but now it is 0.25"));
    }
}
