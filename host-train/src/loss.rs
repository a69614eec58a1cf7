//! The losses: batch Dice, weighted cross-entropy, knowledge distillation between the modalities and from a teacher.
//!
//! Dou, Liu, Heng, Glocker, IEEE TMI 39(7), 2020, as in the authors' released code. Every loss works on a table of all
//! pixels of one modality's mini-batch, `[pixels, classes]`: with channels innermost in memory it is a view of the
//! logits, and the class means of the distillation become one matrix product.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// Keeps Dice's denominator off zero.
const DICE_EPSILON: f64 = 1e-7;
/// Cross-entropy takes probabilities below this for this, and lets no gradient through.
const CLIP: f64 = 0.005;
/// Keeps the mean over an absent class off 0 / 0.
const COUNT_EPSILON: f64 = 1e-6;

/// What the distillation does with a class that one of the two batches does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Absent {
    /// Leaves it out.
    Masked,
    /// As the paper's code: its mean logits are 0, so the other batch's row is pulled towards the uniform distribution.
    Original,
}

/// How the distillation compares the two modalities' matrices of softened class means,
/// `q_m[c] = softmax(zbar_m[c] / T)`, `[true class, classes]`, with `zbar_m[c]` the mean logits over the pixels of class `c`.
/// One number per class; the loss is their mean over classes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Kd {
    /// `0.5 * (KL(q_a[c] | q_b[c]) + KL(q_b[c] | q_a[c]))`: the paper's.
    #[default]
    SymmetricKl,
    /// `sum_k (q_a[c][k] - q_b[c][k])^2`: squared, so that it has a gradient where the rows agree.
    L2,
    /// `-0.5 * sum_k (q_b[c][k] ln q_a[c][k] + q_a[c][k] ln q_b[c][k])` with the first factor of each product held fixed: each
    /// modality learns the other's answer as a soft target. Where the rows agree, its gradient is 0 and its value their
    /// entropy.
    CrossEntropy,
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
        let logits = table(logits);
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

    /// Logarithm of the matrix q, `[true class, classes]`; the row of an absent class is uniform.
    pub fn log_q(&self, temperature: f64) -> Tensor {
        (self.class_means() / temperature).log_softmax(-1, Kind::Float)
    }

    /// Pixels of each class, `[classes]`.
    pub const fn counts(&self) -> &Tensor {
        &self.counts
    }

    /// Knowledge distillation of Hinton, Vinyals and Dean (2015) from a teacher's `logits`, `[n, classes, (d,) h, w]`, of the
    /// same images: `T^2 * mean_i KL(t_i | s_i)` over pixels `i`, both softened by `temperature` T; T^2 keeps the size of the
    /// gradients. Gradients reach the student alone.
    pub fn taught_by(&self, logits: &Tensor, temperature: f64) -> Tensor {
        let soft = |logits: &Tensor| (logits / temperature).log_softmax(-1, Kind::Float);
        let (teacher, student) = (soft(&table(&logits.detach())), soft(&self.logits));
        let divergence = teacher.exp() * (&teacher - student);
        divergence.sum_dim_intlist(-1, false, Kind::Float).mean(Kind::Float) * temperature.powi(2)
    }
}

/// `[n, classes, (d,) h, w]` as `[pixels, classes]`.
fn table(logits: &Tensor) -> Tensor {
    let last: Vec<i64> = [0].into_iter().chain(2..logits.dim() as i64).chain([1]).collect();
    logits.to_kind(Kind::Float).permute(last).reshape([-1, logits.size()[1]])
}

/// How far the two modalities' rows of q are apart, per true class, `[classes]`.
pub fn disagreement(a: &Pixels, b: &Pixels, kind: Kd, temperature: f64, absent: Absent) -> Tensor {
    let (log_a, log_b) = (a.log_q(temperature), b.log_q(temperature));
    let each = match kind {
        // KL(a|b) + KL(b|a) in one sum; from logarithms, because a quotient of underflowed probabilities is NaN.
        Kd::SymmetricKl => (log_a.exp() - log_b.exp()) * (&log_a - &log_b) * 0.5,
        Kd::L2 => (log_a.exp() - log_b.exp()).square(),
        Kd::CrossEntropy => (log_b.exp().detach() * &log_a + log_a.exp().detach() * &log_b) * -0.5,
    };
    let rows = each.sum_dim_intlist(-1, false, Kind::Float);
    match absent {
        Absent::Original => rows,
        Absent::Masked => rows * (&a.counts * &b.counts).gt(0.).to_kind(Kind::Float),
    }
}

/// Knowledge distillation between the modalities: the mean of [`disagreement`] over classes. Both sides get gradients;
/// there is no teacher.
///
/// The mean always divides by the number of all classes, so a masked class counts as agreement and the weight of the
/// others does not jump from batch to batch.
pub fn distillation(a: &Pixels, b: &Pixels, kind: Kd, temperature: f64, absent: Absent) -> Tensor {
    disagreement(a, b, kind, temperature, absent).sum(Kind::Float) / a.classes() as f64
}

#[cfg(test)]
mod tests;
