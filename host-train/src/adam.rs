//! Adam (Kingma and Ba 2015) over plain tensors, with the decay of convolution kernels coupled into the gradient, as the
//! paper's objective has it. Our own because its moments must be saved: an exact resume needs every one of them.
//!
//! Epsilon stands beside the uncorrected root, as in TensorFlow, which the paper used.

use tch::{Tensor, no_grad};

use crate::net::{Role, Variable};

const BETA1: f64 = 0.9;
const BETA2: f64 = 0.999;
const EPSILON: f64 = 1e-8;

/// First and second moments of every variable.
#[derive(Debug)]
pub struct Adam {
    moments: Vec<[Tensor; 2]>,
}

impl Adam {
    /// Moments of zero for these variables, which every later call must give in the same order.
    pub fn new(variables: &[Variable<'_>]) -> Self {
        let moments = variables.iter().map(|variable| [(); 2].map(|()| no_grad(|| variable.tensor.zeros_like())));
        Self { moments: moments.collect() }
    }

    /// Moves every variable that has a gradient, and clears the gradient. `step` counts from 0; `decay` is the factor of
    /// `0.5 * |W|^2` in the objective, over kernels alone.
    pub fn step(&mut self, variables: &[Variable<'_>], step: u64, rate: f64, decay: f64) {
        let t = i32::try_from(step + 1).unwrap_or(i32::MAX);
        let rate = rate * (1. - BETA2.powi(t)).sqrt() / (1. - BETA1.powi(t));
        no_grad(|| {
            for (variable, [mean, square]) in variables.iter().zip(&mut self.moments) {
                let mut gradient = variable.tensor.grad();
                if !gradient.defined() {
                    continue;
                }
                let mut value = variable.tensor.shallow_clone();
                let total = match variable.role {
                    Role::Kernel if decay > 0. => &gradient + &value * decay,
                    _ => gradient.shallow_clone(),
                };
                let _ = mean.lerp_(&total, 1. - BETA1);
                let _ = square.g_mul_scalar_(BETA2);
                *square += total.square() * (1. - BETA2);
                value -= &*mean / (square.sqrt() + EPSILON) * rate;
                let _ = gradient.zero_();
            }
        });
    }

    /// The moments, in the order of the variables.
    pub fn moments(&self) -> &[[Tensor; 2]] {
        &self.moments
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Kind;

    /// Twenty steps on `sum(a x^2)` against the paper's recursion in f64; the bias must not decay.
    #[test]
    fn twenty_steps_equal_the_recursion_in_f64() {
        let (factor, start, decay) = ([1.5, -0.3, 20.], [0.7, -2., 0.01], 0.1);
        for role in [Role::Kernel, Role::Bias] {
            let x = Tensor::from_slice(&start).to_kind(Kind::Float).set_requires_grad(true);
            let a = Tensor::from_slice(&factor).to_kind(Kind::Float);
            let variable = || [Variable { name: "x".into(), role, tensor: &x }];
            let mut adam = Adam::new(&variable());
            let (mut naive, mut m, mut v) = (start, [0.; 3], [0.; 3]);
            for step in 0..20 {
                (&a * x.square()).sum(Kind::Float).backward();
                adam.step(&variable(), step, 0.05, decay);
                let t = step as i32 + 1;
                for i in 0..3 {
                    let coupled = if role == Role::Kernel { decay * naive[i] } else { 0. };
                    let gradient = 2. * factor[i] * naive[i] + coupled;
                    m[i] = 0.9 * m[i] + 0.1 * gradient;
                    v[i] = 0.999 * v[i] + 0.001 * gradient * gradient;
                    let rate = 0.05 * (1. - 0.999f64.powi(t)).sqrt() / (1. - 0.9f64.powi(t));
                    naive[i] -= rate * m[i] / (v[i].sqrt() + 1e-8);
                }
            }
            for (i, expected) in naive.iter().enumerate() {
                let value = x.double_value(&[i as i64]);
                // f32 against f64 over twenty steps of up to 0.05.
                assert!((value - expected).abs() < 1e-5, "{value} against {expected}");
            }
        }
    }
}
