//! What a training minimises: which losses, and how much each counts.

use serde::{Deserialize, Serialize};
use tch::Tensor;

use crate::loss::{Absent, Kd, Pixels, distillation};

/// Weight of each term of the objective; the defaults are the paper's.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Objective {
    /// Of both Dice losses.
    pub dice: f64,
    /// Of both cross-entropies.
    pub ce: f64,
    /// Of the distillation between the modalities, where the topology has it.
    pub kd: f64,
    /// Of `0.5 * |W|^2` over convolution kernels.
    pub l2: f64,
    /// Of the softmax of both distillations.
    pub temperature: f64,
    /// Classes that one batch lacks.
    pub absent: Absent,
    /// How the distillation compares the modalities.
    #[serde(default)]
    pub kd_kind: Kd,
    /// Steps over which the weight of the distillation between the modalities grows from 0.
    #[serde(default)]
    pub kd_warmup: u64,
    /// Of the distillation from a teacher, where there is one.
    #[serde(default)]
    pub teacher: f64,
}

impl Default for Objective {
    fn default() -> Self {
        Self {
            dice: 1.,
            ce: 1.,
            kd: 0.5,
            l2: 1e-4,
            temperature: 2.,
            absent: Absent::Masked,
            kd_kind: Kd::SymmetricKl,
            kd_warmup: 0,
            teacher: 0.,
        }
    }
}

/// The terms of one step's objective, unweighted, in the order of [`contract::Modality::ALL`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Terms {
    /// In [-1, 0].
    pub dice: [f64; 2],
    /// Weighted cross-entropy.
    pub ce: [f64; 2],
    /// Distillation; measured for every topology, part of the objective for one.
    pub kd: f64,
    /// `0.5 * |W|^2` over kernels, times its weight.
    pub l2: f64,
    /// Distillation from a teacher, for the modalities that have one.
    pub teacher: [Option<f64>; 2],
}

impl Terms {
    /// Whether the training is still one.
    pub fn is_finite(&self) -> bool {
        let each = [self.dice[0], self.dice[1], self.ce[0], self.ce[1], self.kd, self.l2];
        each.into_iter().chain(self.teacher.into_iter().flatten()).all(f64::is_finite)
    }
}

/// The terms of one step as tensors, before anybody reads them, and their weighted sum.
#[derive(Debug)]
pub struct Losses {
    dice: [Tensor; 2],
    ce: [Tensor; 2],
    kd: Tensor,
    teacher: [Option<Tensor>; 2],
    /// What is minimised, but for the decay of the kernels, which the optimiser couples in.
    pub total: Tensor,
}

impl Objective {
    /// Weight of the distillation between the modalities at a step, counted from 0.
    pub fn kd_weight(&self, step: u64) -> f64 {
        if step < self.kd_warmup { self.kd * step as f64 / self.kd_warmup as f64 } else { self.kd }
    }

    /// What one modality's segmentation costs.
    pub fn segmentation(&self, pixels: &Pixels) -> Tensor {
        pixels.dice() * self.dice + pixels.cross_entropy() * self.ce
    }

    /// All terms of a step, counted from 0. `taught` are a teacher's logits of the same images; `distils` says whether the
    /// distillation between the modalities counts.
    pub fn losses(&self, pixels: &[Pixels; 2], taught: &[Option<Tensor>; 2], distils: bool, step: u64) -> Losses {
        let dice = pixels.each_ref().map(Pixels::dice);
        let ce = pixels.each_ref().map(Pixels::cross_entropy);
        let kd = distillation(&pixels[0], &pixels[1], self.kd_kind, self.temperature, self.absent);
        let teacher = [0, 1].map(|index| {
            taught[index].as_ref().map(|logits: &Tensor| pixels[index].taught_by(logits, self.temperature))
        });
        let mut total = (&dice[0] + &dice[1]) * self.dice + (&ce[0] + &ce[1]) * self.ce;
        if distils {
            total += &kd * self.kd_weight(step);
        }
        for loss in teacher.iter().flatten() {
            total += loss * self.teacher;
        }
        Losses { dice, ce, kd, teacher, total }
    }
}

impl Losses {
    /// The terms as numbers, which makes a GPU wait; `l2` is known elsewhere.
    pub fn read(&self, l2: f64) -> Terms {
        let value = |tensor: &Tensor| tensor.double_value(&[]);
        Terms {
            dice: self.dice.each_ref().map(value),
            ce: self.ce.each_ref().map(value),
            kd: value(&self.kd),
            l2,
            teacher: self.teacher.each_ref().map(|loss| loss.as_ref().map(value)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distillation_grows_in_a_straight_line() {
        let objective = Objective { kd_warmup: 4, ..Objective::default() };
        let weights = [0, 1, 2, 3, 4, 1000].map(|step| objective.kd_weight(step));
        assert_eq!(weights, [0., 0.125, 0.25, 0.375, 0.5, 0.5]);
        assert_eq!(Objective::default().kd_weight(0), 0.5);
    }

    /// What was written before there were kinds, a warm-up and a teacher means what it meant.
    #[test]
    fn objectives_of_older_states_are_read_as_they_were_meant() {
        let old = r#"{"dice":1.0,"ce":1.0,"kd":0.5,"l2":0.0001,"temperature":2.0,"absent":"masked"}"#;
        assert_eq!(serde_json::from_str::<Objective>(old).unwrap(), Objective::default());
    }
}
