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

fn naive_distillation(a: &Data, b: &Data, kind: Kd, temperature: f64, absent: Absent) -> f64 {
    let mut sum = 0.;
    for c in 0..CLASSES {
        if absent == Absent::Masked && (a.count(c) == 0. || b.count(c) == 0.) {
            continue;
        }
        let [q, r] = [a, b].map(|data| softmax(naive_means(data, c).map(|z| z / temperature)));
        for (q, r) in q.into_iter().zip(r) {
            sum += match kind {
                Kd::SymmetricKl => 0.5 * (q * (q / r).ln() + r * (r / q).ln()),
                Kd::L2 => (q - r) * (q - r),
                Kd::CrossEntropy => -0.5 * (q * r.ln() + r * q.ln()),
            };
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
const KINDS: [Kd; 3] = [Kd::SymmetricKl, Kd::L2, Kd::CrossEntropy];

#[test]
fn losses_equal_nested_loops() {
    for seed in 0..5 {
        for classes in [&ALL[..], &[0, 1, 3], &[2]] {
            let (a, b) = (Data::random(seed, 6., classes), Data::random(seed + 100, 6., &[0, 1, 2]));
            close(&a.pixels().dice(), naive_dice(&a));
            close(&a.pixels().cross_entropy(), naive_cross_entropy(&a));
            for absent in [Absent::Masked, Absent::Original] {
                for temperature in [1., 2.] {
                    for kind in KINDS {
                        let loss = distillation(&a.pixels(), &b.pixels(), kind, temperature, absent);
                        close(&loss, naive_distillation(&a, &b, kind, temperature, absent));
                    }
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
        for (kind, absent) in KINDS.into_iter().flat_map(|kind| [(kind, Absent::Masked), (kind, Absent::Original)]) {
            let of = |a: &Data, b: &Data| distillation(&a.pixels(), &b.pixels(), kind, 2., absent);
            let there = of(&a, &b).double_value(&[]);
            close(&of(&b, &a), there);
            let least = of(&a, &a).double_value(&[]) + of(&b, &b).double_value(&[]);
            match kind {
                Kd::SymmetricKl | Kd::L2 => assert_eq!(least, 0.),
                // Cross-entropy exceeds entropy by the divergence: on average over both sides, the symmetric KL.
                Kd::CrossEntropy => {
                    let kl = naive_distillation(&a, &b, Kd::SymmetricKl, 2., absent);
                    assert!((there - least / 2. - kl).abs() < 1e-5, "{there} - {least} / 2 against {kl}");
                }
            }
            assert!(there > least / 2.);
        }
    }
}

/// A class that neither batch holds has a uniform row on both sides.
#[test]
fn a_class_absent_from_both_batches_costs_nothing() {
    let (a, b) = (Data::random(1, 4., &[0, 1]), Data::random(2, 4., &[0, 1]));
    for (kind, absent) in KINDS.into_iter().flat_map(|kind| [(kind, Absent::Masked), (kind, Absent::Original)]) {
        let rows = disagreement(&a.pixels(), &b.pixels(), kind, 2., absent);
        for class in 2..5 {
            // The entropy of the uniform row, whose gradient is 0, where the original counts it.
            let constant = if (kind, absent) == (Kd::CrossEntropy, Absent::Original) { 5f64.ln() } else { 0. };
            assert!((rows.double_value(&[class]) - constant).abs() < 1e-6, "{kind:?} {absent:?}");
        }
    }
}

/// Gradients along random directions against differences of the nested loops in f64.
#[test]
fn gradients_of_the_distillation_equal_differences() {
    let (a, b) = (Data::random(11, 3., &ALL), Data::random(12, 3., &[0, 1, 2, 3]));
    for (kind, absent) in KINDS.into_iter().flat_map(|kind| [(kind, Absent::Masked), (kind, Absent::Original)]) {
        let z = a.tensor().set_requires_grad(true);
        distillation(&a.pixels_of(&z), &b.pixels(), kind, 2., absent).backward();
        for seed in 0..4 {
            let direction = Data::random(20 + seed, 1., &ALL);
            let step = 1e-3;
            let moved = |sign: f32| {
                let logits = a.logits.iter().zip(&direction.logits).map(|(z, d)| z + sign * step * d).collect();
                let moved = Data { logits, labels: a.labels.clone(), ..a };
                match kind {
                    Kd::CrossEntropy => {
                        // What is held fixed stays where it was: half the divergence of q_b from what moves.
                        let mut sum = 0.;
                        for c in 0..CLASSES {
                            if absent == Absent::Original || (a.count(c) > 0. && b.count(c) > 0.) {
                                let [q, r] = [&moved, &b].map(|data| softmax(naive_means(data, c).map(|z| z / 2.)));
                                sum -= 0.5 * r.iter().zip(q).map(|(r, q)| r * q.ln()).sum::<f64>();
                            }
                        }
                        sum / CLASSES as f64
                    }
                    _ => naive_distillation(&moved, &b, kind, 2., absent),
                }
            };
            let expected = (moved(1.) - moved(-1.)) / (2. * f64::from(step));
            let found = (z.grad() * direction.tensor()).sum(Kind::Double).double_value(&[]);
            assert!((found - expected).abs() < 1e-3 * expected.abs().max(0.01), "{kind:?}: {found} against {expected}");
        }
    }
}

/// The teacher's loss against loops over pixels; 0 with no gradient for a student that answers like its teacher.
#[test]
fn a_student_that_answers_like_its_teacher_has_nothing_to_learn() {
    let (student, teacher) = (Data::random(21, 4., &ALL), Data::random(22, 4., &ALL));
    for temperature in [1., 2., 4.] {
        let mut sum = 0.;
        for ((s, _), (t, _)) in student.each().zip(teacher.each()) {
            let [s, t] = [s, t].map(|z| softmax(z.map(|z| z / temperature)));
            sum += t.iter().zip(s).map(|(t, s)| t * (t / s).ln()).sum::<f64>();
        }
        let expected = temperature * temperature * sum / (student.n * student.pixels) as f64;
        close(&student.pixels().taught_by(&teacher.tensor(), temperature), expected);
        let z = student.tensor().set_requires_grad(true);
        let same = student.pixels_of(&z).taught_by(&z, temperature);
        assert_eq!(same.double_value(&[]), 0.);
        same.backward();
        assert!(z.grad().abs().max().double_value(&[]) < 1e-8);
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
    close(&distillation(&a, &b, Kd::SymmetricKl, 2., Absent::Masked), 0.);
    // Class 1 is uniform on both sides in `both`; class 0 is absent from it; classes 2 to 4 from both batches.
    let original = distillation(&a, &both.pixels(), Kd::SymmetricKl, 2., Absent::Original).double_value(&[]);
    assert!((original - 0.34).abs() < 0.005, "{original}");
}

/// Naive division of probabilities would give NaN here.
#[test]
fn distillation_survives_logits_that_underflow() {
    let a = Data::random(3, 4000., &ALL);
    let b = Data::random(4, 4000., &ALL);
    let (za, zb) = (a.tensor().set_requires_grad(true), b.tensor().set_requires_grad(true));
    let loss = distillation(&a.pixels_of(&za), &b.pixels_of(&zb), Kd::SymmetricKl, 0.5, Absent::Masked);
    loss.backward();
    assert!(loss.double_value(&[]).is_finite() && loss.double_value(&[]) > 100.);
    assert!(za.grad().isfinite().all().int64_value(&[]) == 1);
}

#[test]
fn gradients_of_the_distillation_reach_both_sides() {
    let (a, b) = (Data::random(5, 2., &ALL), Data::random(6, 2., &ALL));
    let (za, zb) = (a.tensor().set_requires_grad(true), b.tensor().set_requires_grad(true));
    for kind in KINDS {
        distillation(&a.pixels_of(&za), &b.pixels_of(&zb), kind, 2., Absent::Masked).backward();
        for mut grad in [za.grad(), zb.grad()] {
            assert!(grad.abs().max().double_value(&[]) > 1e-6, "{kind:?}");
            let _ = grad.zero_();
        }
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
