//! The training objective: batch Dice, weighted cross-entropy and knowledge distillation between the modalities.
//!
//! Dou, Liu, Heng, Glocker, IEEE TMI 39(7), 2020, as in the authors' released code. Every loss works on a table of all
//! pixels of one modality's mini-batch, `[pixels, classes]`: with channels innermost in memory it is a view of the
//! logits, and the class means of the distillation become one matrix product.

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// Keeps Dice's denominator off zero.
const DICE_EPSILON: f64 = 1e-7;
/// Cross-entropy takes probabilities below this for this, and lets no gradient through.
const CLIP: f64 = 0.005;
/// Keeps the mean over an absent class off 0 / 0.
const COUNT_EPSILON: f64 = 1e-6;

/// What the distillation does with a class that one of the two batches does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Absent {
    /// Leaves it out.
    Masked,
    /// As the paper's code: its mean logits are 0, so the other batch's row is pulled towards the uniform distribution.
    Original,
}

/// Logits and truth of one modality's mini-batch as tables of pixels.
pub struct Pixels {
    /// `[pixels, classes]`.
    logits: Tensor,
    /// Their softmax.
    probabilities: Tensor,
    /// `[pixels, 1]`: class.
    labels: Tensor,
    /// `[pixels, 1]`: probability of the true class.
    right: Tensor,
    /// `[pixels, classes]`, 1 for the true class.
    truth: Tensor,
    /// `[classes]`: pixels of each class.
    counts: Tensor,
}

impl Pixels {
    /// From logits `[n, classes, (d,) h, w]` and classes `[n, (d,) h, w]` of integers.
    pub fn new(logits: &Tensor, labels: &Tensor) -> Self {
        let classes = logits.size()[1];
        let last: Vec<i64> = [0].into_iter().chain(2..logits.dim() as i64).chain([1]).collect();
        let logits = logits.to_kind(Kind::Float).permute(last).reshape([-1, classes]);
        let probabilities = logits.softmax(-1, Kind::Float);
        let labels = labels.to_kind(Kind::Int64).reshape([-1, 1]);
        let class = Tensor::arange(classes, (Kind::Int64, labels.device()));
        let truth = labels.eq_tensor(&class).to_kind(Kind::Float);
        let counts = truth.sum_dim_intlist(0, false, Kind::Float);
        let right = probabilities.gather(1, &labels, false);
        Self { logits, probabilities, labels, right, truth, counts }
    }

    fn classes(&self) -> i64 {
        self.logits.size()[1]
    }

    /// `-mean_c 2 sum(p g) / (sum(p^2) + sum(g) + 1e-7)`, background included, sums over the whole batch. In [-1, 0].
    pub fn dice(&self) -> Tensor {
        let overlap = self.truth.tr().matmul(&self.right).squeeze_dim(1);
        let squares = self.probabilities.square().sum_dim_intlist(0, false, Kind::Float);
        let dice: Tensor = 2. * overlap / (squares + &self.counts + DICE_EPSILON);
        -dice.mean(Kind::Float)
    }

    /// `mean_i -w_c ln(clip(p_c, 0.005, 1))` over pixels `i` of true class `c`, with `w_c = 1 - share of class c`.
    pub fn cross_entropy(&self) -> Tensor {
        let pixels = self.logits.size()[0] as f64;
        let weights: Tensor = 1. - &self.counts / pixels;
        let weights = weights.gather(0, &self.labels.squeeze_dim(1), false).unsqueeze(1);
        -(self.right.clamp(CLIP, 1.).log() * weights).sum(Kind::Float) / pixels
    }

    /// Mean logits over the pixels of each class, `[true class, classes]`; a row of zeros for an absent class.
    fn class_means(&self) -> Tensor {
        self.truth.tr().matmul(&self.logits) / (&self.counts + COUNT_EPSILON).unsqueeze(1)
    }
}

/// Knowledge distillation: the symmetric Kullback-Leibler divergence between the two modalities' class-mean logits,
/// softened by `temperature`, averaged over classes. Both sides get gradients; there is no teacher.
///
/// The average always divides by the number of all classes, so a masked class counts as agreement and the weight of the
/// others does not jump from batch to batch.
pub fn distillation(a: &Pixels, b: &Pixels, temperature: f64, absent: Absent) -> Tensor {
    let soft = |pixels: &Pixels| (pixels.class_means() / temperature).log_softmax(-1, Kind::Float);
    let (log_a, log_b) = (soft(a), soft(b));
    // KL(a|b) + KL(b|a) in one sum; from logarithms, because a quotient of underflowed probabilities is NaN.
    let rows = ((log_a.exp() - log_b.exp()) * (&log_a - &log_b)).sum_dim_intlist(-1, false, Kind::Float) * 0.5;
    let rows = match absent {
        Absent::Original => rows,
        Absent::Masked => rows * (&a.counts * &b.counts).gt(0.).to_kind(Kind::Float),
    };
    rows.sum(Kind::Float) / a.classes() as f64
}

#[cfg(test)]
mod tests;
