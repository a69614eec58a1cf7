//! What CT and MRI do to each other in a network: the two matrices q of the distillation, how far their rows are apart,
//! and the angle between what the two modalities' losses ask of the shared kernels.
//!
//! Measured in the mode of training (norms with the batch's statistics, dropout on), because that is what the distillation
//! sees, and on the same batches each time, so that two moments can be compared. It leaves no trace: running statistics
//! are put back, gradients are handed out rather than gathered, and the generator is seeded before every step anyway.

use contract::{LabelMap, Modality};
use tch::{Kind, Tensor};

use crate::{
    loss::{Absent, Kd, Pixels, disagreement},
    net::{Network, Role},
    running::Running,
    sampler::{Batch, Sampler},
    trainer::Trainer,
};

/// Batches that are looked at before one is chosen.
const CANDIDATES: u64 = 8;

/// One moment of a training.
#[derive(Clone, Debug, PartialEq)]
pub struct Diagnosis {
    /// Per modality, the rows of q `[true class][class]`; `None` for a class that the batch does not hold.
    pub q: [Vec<Option<Vec<f64>>>; 2],
    /// Symmetric KL divergence between the rows of a class, nats; `None` if a batch does not hold the class.
    pub kl: Vec<Option<f64>>,
    /// Cosine of the angle between the gradients of the two segmentation losses with respect to the kernels that both
    /// modalities use; `None` if there are none.
    pub cosine: Option<f64>,
}

/// The batches of a modality that all diagnoses of a training use: of a few from beyond its last step, the one that shows
/// most classes.
pub fn probe(sampler: &Sampler, labels: &LabelMap) -> Batch {
    let shown = |batch: &Batch| (0..labels.classes()).filter(|&class| batch.labels.contains(&(class as u8))).count();
    let mut best = sampler.batch(u64::MAX);
    for candidate in 1..CANDIDATES {
        if shown(&best) == labels.classes() {
            break;
        }
        let other = sampler.batch(u64::MAX - candidate);
        if shown(&other) > shown(&best) {
            best = other;
        }
    }
    best
}

impl Trainer {
    /// Diagnoses the networks on this rank's part of a CT and an MR batch.
    pub fn diagnose(&self, batches: [&Batch; 2]) -> Diagnosis {
        let _alone = self.draw_alone(u64::MAX);
        let objective = self.settings().objective;
        let (mut pixels, mut gradients) = (vec![], vec![]);
        for (modality, batch) in Modality::ALL.into_iter().zip(batches) {
            let network = self.network(modality);
            let running = Running::of(network);
            let (image, labels) = self.part(batch);
            let found = Pixels::new(&self.logits(modality, &image), &labels);
            gradients.push(kernel_gradients(&self.networks()[0], &objective.segmentation(&found)));
            running.put_back(network);
            pixels.push(found);
        }
        let apart = disagreement(&pixels[0], &pixels[1], Kd::SymmetricKl, objective.temperature, Absent::Masked);
        let present = [0, 1].map(|index| numbers(pixels[index].counts()));
        let both = |class: usize| present[0][class] > 0. && present[1][class] > 0.;
        let kl = numbers(&apart).into_iter().enumerate().map(|(class, kl)| both(class).then_some(kl)).collect();
        Diagnosis {
            q: [0, 1].map(|index| rows(&pixels[index], &present[index], objective.temperature)),
            kl,
            cosine: gradients.split_first().and_then(|(ct, rest)| cosine(ct, &rest[0])),
        }
    }
}

fn rows(pixels: &Pixels, present: &[f64], temperature: f64) -> Vec<Option<Vec<f64>>> {
    let q = pixels.log_q(temperature).exp();
    (0..).zip(present).map(|(class, &count)| (count > 0.).then(|| numbers(&q.get(class)))).collect()
}

/// Undefined for a kernel that the loss does not depend on.
fn kernel_gradients(network: &Network, loss: &Tensor) -> Vec<Tensor> {
    let variables = network.variables();
    let kernels: Vec<&Tensor> =
        variables.iter().filter(|variable| variable.role == Role::Kernel).map(|variable| variable.tensor).collect();
    Tensor::run_backward(&[loss], &kernels, false, false)
}

fn cosine(a: &[Tensor], b: &[Tensor]) -> Option<f64> {
    let product = |a: &Tensor, b: &Tensor| (a * b).sum(Kind::Double).double_value(&[]);
    let (mut dot, mut squares) = (0., [0., 0.]);
    for (a, b) in a.iter().zip(b).filter(|(a, b)| a.defined() && b.defined()) {
        dot += product(a, b);
        squares[0] += product(a, a);
        squares[1] += product(b, b);
    }
    let length = (squares[0] * squares[1]).sqrt();
    (length > 0. && length.is_finite()).then(|| dot / length)
}

/// A vector in plain memory.
fn numbers(tensor: &Tensor) -> Vec<f64> {
    let tensor = tensor.detach().to_device(tch::Device::Cpu).to_kind(Kind::Double).contiguous();
    let mut values = vec![0.; tensor.numel()];
    tensor.copy_data(&mut values, tensor.numel());
    values
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        test_support::{batch, settings},
        topology::Topology,
        trainer::Amp,
    };
    use tch::Device;

    fn trainer(topology: Topology) -> Trainer {
        let mut settings = settings(topology);
        if let contract::net::Op::Conv(conv) = &mut settings.spec.net.layers[1].op {
            conv.dropout = 0.25;
        }
        Trainer::new(settings, Device::Cpu, Amp::Off).unwrap()
    }

    fn batches(step: u64) -> [Batch; 2] {
        Modality::ALL.map(|modality| batch(modality, step))
    }

    /// Twelve steps with a diagnosis before each are, bit for bit, twelve steps without.
    #[test]
    fn a_diagnosis_leaves_no_trace() {
        for topology in [Topology::Individual, Topology::Joint, Topology::Ummkd] {
            let (mut watched, mut alone) = (trainer(topology), trainer(topology));
            for step in 0..12 {
                let probe = batches(99);
                let first = watched.diagnose(probe.each_ref());
                assert_eq!(first, watched.diagnose(probe.each_ref()), "the same network, the same diagnosis");
                for trainer in [&mut watched, &mut alone] {
                    trainer.step(batches(step).each_ref(), false);
                }
            }
            for ((name, a), (_, b)) in watched.state().iter().zip(alone.state()) {
                assert!(a.equal(&b), "{topology:?}: {name}");
            }
        }
    }

    #[test]
    fn rows_are_distributions_and_individual_networks_share_no_kernel() {
        for (topology, shared) in
            [(Topology::Individual, false), (Topology::Joint, true), (Topology::Ummkd, true), (Topology::XShape, true)]
        {
            let found = trainer(topology).diagnose(batches(3).each_ref());
            for row in found.q.iter().flatten().flatten() {
                assert!((row.iter().sum::<f64>() - 1.).abs() < 1e-5, "{row:?}");
            }
            assert_eq!(found.cosine.is_some(), shared);
            assert!(found.cosine.is_none_or(|cosine| cosine.abs() <= 1. + 1e-9));
            // The mean over classes is the loss that training reports.
            let mean = found.kl.iter().flatten().sum::<f64>() / 5.;
            let seen = trainer(topology).diagnose(batches(3).each_ref());
            assert_eq!(found, seen);
            assert!(mean > 0.);
        }
    }

    /// The same batch under both names, in a network that shares everything: equal rows, no divergence, one direction.
    #[test]
    fn equal_modalities_agree() {
        let mut settings = settings(Topology::Joint);
        settings.objective.temperature = 1.;
        let trainer = Trainer::new(settings, Device::Cpu, Amp::Off).unwrap();
        let mut same = batch(Modality::Ct, 5);
        same.labels.iter_mut().filter(|label| **label == 2).for_each(|label| *label = 1);
        let found = trainer.diagnose([&same, &same]);
        assert_eq!(found.q[0], found.q[1]);
        assert_eq!((found.kl[2], found.q[0][2].is_none()), (None, true), "a class that no batch holds");
        assert!(found.kl.iter().flatten().all(|&kl| kl == 0.) && found.kl.iter().flatten().count() == 4);
        assert!((found.cosine.unwrap() - 1.).abs() < 1e-9);
    }

    #[test]
    fn opposite_gradients_have_a_cosine_of_minus_one() {
        let (a, b) = (Tensor::from_slice(&[1f32, 2.]), Tensor::from_slice(&[-2f32, -4.]));
        let of = |tensors: [&Tensor; 2]| tensors.map(Tensor::shallow_clone);
        assert!((cosine(&of([&a, &a]), &of([&b, &b])).unwrap() + 1.).abs() < 1e-12);
        assert_eq!(cosine(&[a.zeros_like()], &[b]), None);
    }
}
