//! How fast steps are, and whether another device takes the same ones: on random batches, so that neither data nor disk
//! have a part in it.

use std::time::Instant;

use contract::{Modality, ModelSpec, NetError, net::Op};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tch::Device;

use crate::{
    device,
    objective::Terms,
    sampler::Batch,
    trainer::{Amp, Settings, Trainer},
};

/// A random batch of a step: every code as likely as any other, classes in stripes so that each occurs.
pub fn batch(spec: &ModelSpec, n: usize, modality: Modality, step: u64) -> Batch {
    let mut random = ChaCha8Rng::seed_from_u64(2 * step + modality.index() as u64);
    let input = spec.net.input;
    let pixels = input.size.iter().product::<usize>();
    let images = (0..n * input.channels * pixels).map(|_| spec.intensity.scale * f32::from(random.random::<i8>()));
    let images = images.collect();
    let (classes, width) = (spec.labels.classes(), input.size[2]);
    let labels = (0..n * pixels).map(|pixel| (pixel / width / 4 % classes) as u8).collect();
    Batch { images, labels, n }
}

/// A training whose steps are timed.
pub struct Bench {
    trainer: Trainer,
    batches: [Batch; 2],
    device: Device,
}

impl Bench {
    /// Fresh weights; the same two batches in every step.
    pub fn new(settings: Settings, device: Device, amp: Amp) -> Result<Self, NetError> {
        let batches = Modality::ALL.map(|modality| batch(&settings.spec, settings.batch, modality, 0));
        Ok(Self { trainer: Trainer::new(settings, device, amp)?, batches, device })
    }

    /// Wall time of each of so many steps, ms, each waited for.
    pub fn run(&mut self, steps: usize) -> Vec<f64> {
        let [ct, mr] = &self.batches;
        let mut step = || {
            let start = Instant::now();
            self.trainer.step([ct, mr], false);
            device::wait(self.device);
            start.elapsed().as_secs_f64() * 1e3
        };
        (0..steps).map(|_| step()).collect()
    }
}

/// Largest difference of any term of the loss between the processor and `device` over `steps` steps, relative to the term
/// where that is above 1. Dropout is off, because the two draw different numbers.
pub fn difference(mut settings: Settings, device: Device, amp: Amp, steps: u64) -> Result<f64, NetError> {
    for layer in &mut settings.spec.net.layers {
        if let Op::Conv(conv) = &mut layer.op {
            conv.dropout = 0.;
        }
    }
    let mut trainers =
        [Trainer::new(settings.clone(), Device::Cpu, Amp::Off)?, Trainer::new(settings.clone(), device, amp)?];
    let mut largest = 0f64;
    for step in 0..steps {
        let [ct, mr] = Modality::ALL.map(|modality| batch(&settings.spec, settings.batch, modality, step));
        let [here, there] = trainers.each_mut().map(|trainer| trainer.step([&ct, &mr], true).map(values));
        for (here, there) in here.into_iter().flatten().zip(there.into_iter().flatten()) {
            let difference = (here - there).abs() / here.abs().max(1.);
            // A loss that is no number on one side differs as much as can be.
            largest = if difference.is_nan() { f64::INFINITY } else { largest.max(difference) };
        }
    }
    Ok(largest)
}

fn values(terms: Terms) -> [f64; 6] {
    [terms.dice[0], terms.dice[1], terms.ce[0], terms.ce[1], terms.kd, terms.l2]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{test_support::settings, topology::Topology};

    #[test]
    fn batches_hold_every_class_and_depend_on_step_and_modality() {
        let settings = settings(Topology::Ummkd);
        let one = batch(&settings.spec, 2, Modality::Ct, 3);
        assert_eq!((one.images.len(), one.labels.len()), (2 * 32 * 32, 2 * 32 * 32));
        assert!((0..5).all(|class| one.labels.contains(&class)));
        assert_eq!(one, batch(&settings.spec, 2, Modality::Ct, 3));
        assert_ne!(one, batch(&settings.spec, 2, Modality::Mr, 3));
        assert_ne!(one, batch(&settings.spec, 2, Modality::Ct, 4));
    }

    #[test]
    fn a_device_agrees_with_itself_and_another_start_does_not() {
        let settings = settings(Topology::Ummkd);
        assert_eq!(difference(settings.clone(), Device::Cpu, Amp::Off, 3).unwrap(), 0.);
        let mut bench = Bench::new(settings, Device::Cpu, Amp::Off).unwrap();
        let times = bench.run(2);
        assert!(times.len() == 2 && times.iter().all(|&ms| ms > 0.));
    }

    /// On CUDA, where there is one: 20 steps in f32 give the processor's losses.
    #[test]
    fn cuda_gives_the_losses_of_the_processor() {
        device::open_cuda();
        let Ok(cuda) = device::choose(device::Choice::Cuda) else {
            eprintln!("skipped: no CUDA device here");
            return;
        };
        device::set_precision(cuda, Amp::Off).unwrap();
        let found = difference(settings(Topology::Ummkd), cuda, Amp::Off, 20).unwrap();
        assert!(found <= 1e-3, "{found}");
    }
}
