//! One optimiser step, and all the state that the next one depends on.
//!
//! A [`Trainer`] is a pure function of its settings, its state and the two batches: dropout is seeded by the step, batches
//! are made by step number elsewhere. That is what makes a resumed training equal an uninterrupted one, bit for bit.

use std::{
    rc::Rc,
    sync::{Mutex, MutexGuard, PoisonError},
};

use clap::ValueEnum;
use contract::{Modality, ModelSpec, NetError};
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor, autocast, no_grad};

use crate::{
    adam::Adam,
    augment::Augment,
    loss::Pixels,
    net::{Network, Norms, Role, Variable, axes, channels_last},
    objective::{Objective, Terms},
    quirk::Quirk,
    ranks::Ranks,
    running::Running,
    sampler::Batch,
    schedule::Schedule,
    teacher::Teachers,
    topology::Topology,
};

/// Everything but data and device that decides the outcome of a training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// What is shared.
    pub topology: Topology,
    /// Whose norms the shared layers have, where that is not what the topology has anyway.
    #[serde(default)]
    pub norms: Option<Norms>,
    /// The model.
    pub spec: ModelSpec,
    /// Optimiser steps in all.
    pub steps: u64,
    /// Slices per step and modality.
    pub batch: usize,
    /// Peak learning rate.
    pub rate: f64,
    /// Its course.
    pub schedule: Schedule,
    /// Of weights, sampling, augmentation and dropout.
    pub seed: u64,
    /// The loss.
    pub objective: Objective,
    /// In which respects it does as the released code, in order.
    #[serde(default)]
    pub quirks: Vec<Quirk>,
    /// Digests of the files of the teachers.
    #[serde(default)]
    pub teachers: Vec<String>,
    /// Parts of a batch over which batch norms take their statistics, each part its own. A training on several ranks has at
    /// least one each; that it is written down makes the outcome that of any number of ranks.
    #[serde(default = "one")]
    pub groups: usize,
    /// Random variations of the slices.
    pub augment: Augment,
    /// Cases per modality that are held out, if anybody said so.
    pub held_out: Option<usize>,
    /// Cases per modality that train, if not all that are not held out.
    #[serde(default)]
    pub cases: Option<u32>,
}

const fn one() -> usize {
    1
}

/// Number format of a step's convolutions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Amp {
    /// All in f32.
    Off,
    /// f32 whose multiplications keep 10 bits of the fraction (CUDA, Ampere and later).
    Tf32,
    /// Automatic mixed precision: bf16 where libtorch finds it safe (CUDA). Losses and norms stay f32.
    Bf16,
}

impl Amp {
    /// Name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Tf32 => "tf32",
            Self::Bf16 => "bf16",
        }
    }
}

/// Networks in training.
#[derive(Debug)]
pub struct Trainer {
    settings: Settings,
    device: Device,
    amp: Amp,
    networks: Vec<Network>,
    adam: Adam,
    teachers: Teachers,
    ranks: Rc<Ranks>,
    step: u64,
    /// One number on the device: the first step, from 1, whose loss or gradient was not finite; 0 while there is none.
    bad: Tensor,
}

impl Trainer {
    /// Fresh networks.
    pub fn new(settings: Settings, device: Device, amp: Amp) -> Result<Self, NetError> {
        let norms = settings.norms.unwrap_or(settings.topology.norms());
        let mut networks = settings.topology.networks(&settings.spec.net, norms, settings.seed, device)?;
        settings.quirks.iter().for_each(|quirk| quirk.prepare(&mut networks));
        let adam = Adam::new(&variables(&networks));
        let bad = Tensor::zeros([], (Kind::Int64, device));
        let (teachers, ranks) = (Teachers::default(), Rc::default());
        Ok(Self { settings, device, amp, networks, adam, teachers, ranks, step: 0, bad })
    }

    /// As one of several processes, among which [`Ranks::check`] can split the batch.
    #[must_use]
    pub fn among(self, ranks: Rc<Ranks>) -> Self {
        Self { ranks, ..self }
    }

    /// The processes of this training.
    pub fn ranks(&self) -> &Ranks {
        &self.ranks
    }

    /// With teachers, whose digests stand in the settings.
    #[must_use]
    pub fn taught_by(self, teachers: Teachers) -> Self {
        Self { teachers, ..self }
    }

    /// What was asked for.
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Steps made.
    pub const fn steps_made(&self) -> u64 {
        self.step
    }

    /// Learning rate of the next step.
    pub fn rate(&self) -> f64 {
        self.settings.schedule.rate(self.settings.rate, self.step, self.settings.steps)
    }

    /// One network, or for individual training one per modality.
    pub fn networks(&self) -> &[Network] {
        &self.networks
    }

    /// The network that segments a modality.
    pub fn network(&self, modality: Modality) -> &Network {
        let knows = |network: &&Network| network.modalities().contains(&modality);
        self.networks.iter().find(knows).expect("every topology has both modalities")
    }

    /// One joint step on a CT and an MR batch. The terms are computed anyway; they are read, which makes a GPU wait,
    /// only when `read` asks for them.
    pub fn step(&mut self, batches: [&Batch; 2], read: bool) -> Option<Terms> {
        let _alone = self.draw_alone(self.step);
        let several = self.ranks.count() > 1;
        let before: Vec<Running> = self.networks.iter().filter(|_| several).map(Running::of).collect();
        let parts = batches.map(|batch| self.part(batch));
        let pixels = [0, 1].map(|index| {
            let logits = self.logits(Modality::ALL[index], &parts[index].0);
            Pixels::new(&self.ranks.gather(logits), &self.labels(batches[index]))
        });
        let taught = [0, 1].map(|index| {
            self.teachers.logits(&parts[index].0, Modality::ALL[index]).map(|logits| self.ranks.gather(logits))
        });
        let objective = self.settings.objective;
        let mut losses = objective.losses(&pixels, &taught, self.settings.topology.distils(), self.step);
        // Of kernels the optimiser takes care; of everything, and of gammas rather than their raw form, the loss does.
        let everything = self.settings.quirks.contains(&Quirk::L2Everything);
        let decay = if everything { 0. } else { objective.l2 };
        if everything {
            // Every rank adds the same, and gradients are summed over the ranks.
            losses.total += half_square(&self.networks) * (2. * objective.l2 / self.ranks.count() as f64);
        }
        losses.total.backward();
        self.join(&before);
        let terms = read.then(|| losses.read(self.penalty()));
        let rate = self.rate();
        self.watch(&losses.total);
        self.adam.step(&variables(&self.networks), self.step, rate, decay);
        self.step += 1;
        terms
    }

    /// Remembers the first step whose loss or gradient is not finite, without waiting for the device.
    fn watch(&mut self, total: &Tensor) {
        no_grad(|| {
            let gradients = self.adam.gradients(&variables(&self.networks)).sum(Kind::Float);
            let fine = (total.detach() + gradients).isfinite().logical_or(&self.bad.gt(0));
            self.bad = self.bad.where_self(&fine, &self.bad.full_like(self.step as i64 + 1));
        });
    }

    /// The first step, from 1, whose loss or gradient was not finite; waits for the device.
    pub fn first_bad(&self) -> Option<u64> {
        u64::try_from(self.bad.int64_value(&[])).ok().filter(|&step| step > 0)
    }

    /// Seeds libtorch's generator, from which dropout draws, by a step: it needs no saving then. The process has but one:
    /// nobody else draws while the answer lives.
    pub(crate) fn draw_alone(&self, step: u64) -> MutexGuard<'static, ()> {
        let alone = GENERATOR.lock().unwrap_or_else(PoisonError::into_inner);
        let rank = (self.ranks.rank() as u64).wrapping_mul(0xd1b5_4a32_d192_ed03);
        tch::manual_seed((self.settings.seed ^ step.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ rank) as i64);
        alone
    }

    /// Adds up the gradients of all ranks' parts, and takes the mean of how their running statistics have moved.
    fn join(&mut self, before: &[Running]) {
        let count = self.ranks.count();
        if count == 1 {
            return;
        }
        self.ranks.sum(self.adam.gradients(&variables(&self.networks)));
        for (network, before) in self.networks.iter().zip(before) {
            let mut moved = before.moved(network);
            self.ranks.sum(&mut moved);
            before.move_by(network, &(moved / count as f64));
        }
    }

    /// Images and labels of this rank's part of a batch.
    pub(crate) fn part(&self, batch: &Batch) -> (Tensor, Tensor) {
        let (count, rank) = (self.ranks.count(), self.ranks.rank());
        let n = batch.n / count;
        let (images, labels) = (batch.images.len() / count, batch.labels.len() / count);
        let image = image(&self.settings.spec, &batch.images[rank * images..][..images], n, self.device);
        (image, upload(&Tensor::from_slice(&batch.labels[rank * labels..][..labels]), self.device))
    }

    fn labels(&self, batch: &Batch) -> Tensor {
        upload(&Tensor::from_slice(&batch.labels), self.device)
    }

    /// Logits of this rank's part of a batch as the losses see them, group by group of the norms.
    pub(crate) fn logits(&self, modality: Modality, image: &Tensor) -> Tensor {
        let network = self.network(modality);
        let forward = |image: &Tensor| match self.amp {
            Amp::Off | Amp::Tf32 => network.forward(image, modality, true),
            Amp::Bf16 => autocast(true, || network.forward(image, modality, true)),
        };
        let groups = self.settings.groups / self.ranks.count();
        if groups <= 1 {
            return forward(image);
        }
        let before = Running::of(network);
        let (mut parts, mut moved) = (vec![], before.moved(network));
        for group in image.chunk(groups as i64, 0) {
            before.put_back(network);
            parts.push(forward(&group));
            moved += before.moved(network);
        }
        before.move_by(network, &(moved / groups as f64));
        Tensor::cat(&parts, 0)
    }

    /// The decay's part of the objective.
    fn penalty(&self) -> f64 {
        let l2 = self.settings.objective.l2;
        if self.settings.quirks.contains(&Quirk::L2Everything) {
            return 2. * l2 * no_grad(|| half_square(&self.networks)).double_value(&[]);
        }
        let kernels = variables(&self.networks).into_iter().filter(|variable| variable.role == Role::Kernel);
        l2 * kernels.map(|k| 0.5 * k.tensor.detach().square().sum(Kind::Double).double_value(&[])).sum::<f64>()
    }

    /// Every tensor that the next step depends on, with a unique name each.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        let mut state = vec![];
        let prefixed = self.networks.len() > 1;
        let mut moments = self.adam.moments().iter();
        for network in &self.networks {
            let prefix = if prefixed { format!("{}/", network.modalities()[0]) } else { String::new() };
            for Variable { name, tensor, .. } in network.variables() {
                let [mean, square] = moments.next().expect("two moments per variable");
                for (kind, tensor) in [("value", tensor), ("adam.mean", mean), ("adam.square", square)] {
                    state.push((format!("{prefix}{name}/{kind}"), tensor.shallow_clone()));
                }
            }
            let running = network.running().into_iter();
            state.extend(running.map(|(name, tensor)| (format!("{prefix}{name}"), tensor.shallow_clone())));
        }
        state
    }

    /// Says that [`Self::state`] was filled from a file written after `step` steps.
    pub(crate) fn set_steps_made(&mut self, step: u64) {
        self.step = step;
    }
}

/// libtorch has one generator for the whole process: who seeds it draws alone.
pub(crate) static GENERATOR: Mutex<()> = Mutex::new(());

fn variables(networks: &[Network]) -> Vec<Variable<'_>> {
    networks.iter().flat_map(Network::variables).collect()
}

/// Half the sum of squares of everything that is trained.
fn half_square(networks: &[Network]) -> Tensor {
    let squares: Vec<Tensor> =
        networks.iter().flat_map(Network::values).map(|value| value.square().sum(Kind::Float)).collect();
    Tensor::stack(&squares, 0).sum(Kind::Float) * 0.5
}

/// Reals `[n, slices, (depth,) h, w]` in plain memory as the network's input.
pub fn image(spec: &ModelSpec, reals: &[f32], n: usize, device: Device) -> Tensor {
    let (input, spatial) = (spec.net.input, spec.net.spatial);
    let shape = [vec![n as i64, input.channels as i64], axes(spatial, input.size)].concat();
    channels_last(&upload(&Tensor::from_slice(reals), device).view(shape.as_slice()))
}

/// Copies a tensor of plain memory to a device. To CUDA through pinned memory, so that this thread does not wait: libtorch
/// keeps the pinned memory until the copy is done.
fn upload(host: &Tensor, device: Device) -> Tensor {
    match device {
        Device::Cuda(_) => host.pin_memory(device).to_device_(device, host.kind(), true, false),
        _ => host.to_device(device),
    }
}
