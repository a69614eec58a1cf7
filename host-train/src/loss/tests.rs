//! Every loss against nested loops in f64 written from the formulas, and the identities that the formulas imply.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;

const CLASSES: usize = 5;

/// Logits `[n, classes, pixels]` and labels `[n, pixels]` in plain memory.
struct Data {
    n: usize,
    pixels: usize,
    logits: Vec<f32>,
    labels: Vec<u8>,
}

impl Data {
    /// Random logits up to `range`; classes from `classes` alone.
    fn random(seed: u64, range: f32, classes: &[u8]) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let (n, pixels) = (3, 6 * 7);
        let logits = (0..n * CLASSES * pixels).map(|_| random.random_range(-range..range)).collect();
        let labels = (0..n * pixels).map(|_| classes[random.random_range(0..classes.len())]).collect();
        Self { n, pixels, logits, labels }
    }

    fn tensor(&self) -> Tensor {
        Tensor::from_slice(&self.logits).view([self.n as i64, CLASSES as i64, 6, 7])
    }

    fn pixels(&self) -> Pixels {
        self.pixels_of(&self.tensor())
    }

    fn pixels_of(&self, logits: &Tensor) -> Pixels {
        Pixels::new(logits, &Tensor::from_slice(&self.labels).view([self.n as i64, 6, 7]))
    }

    /// All pixels: logits and class.
    fn each(&self) -> impl Iterator<Item = ([f64; CLASSES], usize)> + '_ {
        (0..self.n * self.pixels).map(|i| {
            let (n, pixel) = (i / self.pixels, i % self.pixels);
            let z = core::array::from_fn(|c| f64::from(self.logits[(n * CLASSES + c) * self.pixels + pixel]));
            (z, usize::from(self.labels[i]))
        })
    }

    fn count(&self, class: usize) -> f64 {
        self.labels.iter().filter(|&&label| usize::from(label) == class).count() as f64
    }
}

fn softmax(z: [f64; CLASSES]) -> [f64; CLASSES] {
    let sum: f64 = z.iter().map(|v| v.exp()).sum();
    z.map(|v| v.exp() / sum)
}

fn naive_dice(data: &Data) -> f64 {
    let mut mean = 0.;
    for c in 0..CLASSES {
        let (mut overlap, mut squares, mut truth) = (0., 0., 0.);
        for (z, label) in data.each() {
            let (p, g) = (softmax(z)[c], f64::from(u8::from(label == c)));
            overlap += p * g;
            squares += p * p;
            truth += g;
        }
        mean += 2. * overlap / (squares + truth + 1e-7) / CLASSES as f64;
    }
    -mean
}

fn naive_cross_entropy(data: &Data) -> f64 {
    let total = (data.n * data.pixels) as f64;
    let mut sum = 0.;
    for (z, label) in data.each() {
        let weight = 1. - data.count(label) / total;
        sum -= weight * softmax(z)[label].clamp(0.005, 1.).ln();
    }
    sum / total
}

fn naive_means(data: &Data, class: usize) -> [f64; CLASSES] {
    let mut mean = [0.; CLASSES];
    for (z, _) in data.each().filter(|&(_, label)| label == class) {
        for k in 0..CLASSES {
            mean[k] += z[k] / (data.count(class) + 1e-6);
        }
    }
    mean
}

fn naive_distillation(a: &Data, b: &Data, temperature: f64, absent: Absent) -> f64 {
    let mut sum = 0.;
    for c in 0..CLASSES {
        if absent == Absent::Masked && (a.count(c) == 0. || b.count(c) == 0.) {
            continue;
        }
        let [q, r] = [a, b].map(|data| softmax(naive_means(data, c).map(|z| z / temperature)));
        for (q, r) in q.into_iter().zip(r) {
            sum += 0.5 * (q * (q / r).ln() + r * (r / q).ln());
        }
    }
    sum / CLASSES as f64
}

/// f32 sums of 126 pixels against f64: a few units in the last place of numbers near 1.
fn close(tensor: &Tensor, expected: f64) {
    let value = tensor.double_value(&[]);
    assert!((value - expected).abs() <= 2e-6 * expected.abs().max(1.), "{value} against {expected}");
}

const ALL: [u8; 5] = [0, 1, 2, 3, 4];

#[test]
fn losses_equal_nested_loops() {
    for seed in 0..5 {
        for classes in [&ALL[..], &[0, 1, 3], &[2]] {
            let (a, b) = (Data::random(seed, 6., classes), Data::random(seed + 100, 6., &[0, 1, 2]));
            close(&a.pixels().dice(), naive_dice(&a));
            close(&a.pixels().cross_entropy(), naive_cross_entropy(&a));
            for absent in [Absent::Masked, Absent::Original] {
                for temperature in [1., 2.] {
                    let loss = distillation(&a.pixels(), &b.pixels(), temperature, absent);
                    close(&loss, naive_distillation(&a, &b, temperature, absent));
                }
            }
        }
    }
}

#[test]
fn the_layout_of_the_logits_does_not_matter() {
    let data = Data::random(1, 3., &ALL);
    let last = data.pixels_of(&crate::net::channels_last(&data.tensor()));
    close(&last.dice(), naive_dice(&data));
    close(&last.cross_entropy(), naive_cross_entropy(&data));
}

#[test]
fn a_perfect_prediction_has_dice_minus_one() {
    let mut data = Data::random(2, 1., &ALL);
    for i in 0..data.labels.len() {
        let (n, pixel) = (i / data.pixels, i % data.pixels);
        for c in 0..CLASSES {
            data.logits[(n * CLASSES + c) * data.pixels + pixel] =
                if usize::from(data.labels[i]) == c { 100. } else { -100. };
        }
    }
    close(&data.pixels().dice(), -1.);
    close(&data.pixels().cross_entropy(), 0.);
}

/// The weights `1 - share` of all classes sum to `classes - 1`: with equal logits everywhere and equal shares, the loss
/// is `(classes - 1) / classes * ln(classes)`.
#[test]
fn cross_entropy_weights_sum_to_one_less_than_the_classes() {
    let labels: Vec<u8> = (0..50).map(|i| i % 5).collect();
    let (logits, labels) = (Tensor::zeros([1, 5, 5, 10], (Kind::Float, tch::Device::Cpu)), Tensor::from_slice(&labels));
    let pixels = Pixels::new(&logits, &labels.view([1, 5, 10]));
    close(&pixels.cross_entropy(), 0.8 * 5f64.ln());
}

#[test]
fn distillation_is_zero_for_equals_symmetric_and_never_negative() {
    for seed in 0..8 {
        let (a, b) = (Data::random(seed, 4., &ALL), Data::random(seed + 50, 4., &ALL));
        for absent in [Absent::Masked, Absent::Original] {
            close(&distillation(&a.pixels(), &a.pixels(), 2., absent), 0.);
            let there = distillation(&a.pixels(), &b.pixels(), 2., absent).double_value(&[]);
            close(&distillation(&b.pixels(), &a.pixels(), 2., absent), there);
            assert!(there > 0.);
        }
    }
}

/// The authors' example: mean logits [8, -1, -1, -1, -1] against an absent class cost 1.70, a fifth of it in the loss.
#[test]
fn a_class_absent_from_one_batch_counts_only_in_the_original() {
    let row = |first: f32| (0..CLASSES * 42).map(|i| if i < 42 { first } else { -1. }).collect();
    let present = Data { n: 1, pixels: 42, logits: row(8.), labels: vec![0; 42] };
    let absent = Data { n: 1, pixels: 42, logits: row(3.), labels: vec![1; 42] };
    let both = Data { n: 1, pixels: 42, logits: row(-1.), labels: vec![1; 42] };
    let (a, b) = (present.pixels(), absent.pixels());
    close(&distillation(&a, &b, 2., Absent::Masked), 0.);
    // Class 1 is uniform on both sides in `both`; class 0 is absent from it; classes 2 to 4 from both batches.
    let original = distillation(&a, &both.pixels(), 2., Absent::Original).double_value(&[]);
    assert!((original - 0.34).abs() < 0.005, "{original}");
}

/// Naive division of probabilities would give NaN here.
#[test]
fn distillation_survives_logits_that_underflow() {
    let a = Data::random(3, 4000., &ALL);
    let b = Data::random(4, 4000., &ALL);
    let (za, zb) = (a.tensor().set_requires_grad(true), b.tensor().set_requires_grad(true));
    let loss = distillation(&a.pixels_of(&za), &b.pixels_of(&zb), 0.5, Absent::Masked);
    loss.backward();
    assert!(loss.double_value(&[]).is_finite() && loss.double_value(&[]) > 100.);
    assert!(za.grad().isfinite().all().int64_value(&[]) == 1);
}

#[test]
fn gradients_of_the_distillation_reach_both_sides() {
    let (a, b) = (Data::random(5, 2., &ALL), Data::random(6, 2., &ALL));
    let (za, zb) = (a.tensor().set_requires_grad(true), b.tensor().set_requires_grad(true));
    distillation(&a.pixels_of(&za), &b.pixels_of(&zb), 2., Absent::Masked).backward();
    for grad in [za.grad(), zb.grad()] {
        assert!(grad.abs().max().double_value(&[]) > 1e-6);
    }
}

/// Below a true-class probability of 0.005 the cross-entropy gives no gradient; above it, it does.
#[test]
fn the_clip_stops_the_gradient_of_the_cross_entropy() {
    let gradient = |true_logit: f32| {
        let mut data = Data::random(7, 0.1, &[1]);
        data.labels[0] = 2; // A second class, or the weight of the only one would be 0.
        for (i, logit) in data.logits.iter_mut().enumerate() {
            if i / data.pixels % CLASSES == 1 {
                *logit = true_logit;
            }
        }
        let z = data.tensor().set_requires_grad(true);
        data.pixels_of(&z).cross_entropy().backward();
        // Of a pixel whose true class is 1.
        z.grad().get(1).abs().max().double_value(&[])
    };
    assert_eq!(gradient(-5.), 0.);
    assert!(gradient(-3.) > 1e-6);
}
