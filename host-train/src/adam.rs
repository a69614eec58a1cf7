//! Adam (Kingma and Ba 2015) over plain tensors, with the decay of convolution kernels coupled into the gradient, as the
//! paper's objective has it. Our own because its moments must be saved: an exact resume needs every one of them.
//!
//! All values lie in one flat tensor, all gradients in another, and the network's variables are views of them. A step is
//! then ten operations however many layers there are, which on a GPU is what a fused optimiser is for (`tch` does not wrap
//! libtorch's). Epsilon stands beside the uncorrected root, as in TensorFlow, which the paper used.

use tch::{Kind, Tensor, no_grad};

use crate::net::{Role, Variable};

const BETA1: f64 = 0.9;
const BETA2: f64 = 0.999;
const EPSILON: f64 = 1e-8;

/// Values, gradients and both moments of every variable: kernels first, then all others.
#[derive(Debug)]
pub struct Adam {
    values: Tensor,
    gradients: Tensor,
    mean: Tensor,
    square: Tensor,
    /// Elements of kernels.
    kernels: i64,
    /// In the order of the variables: where each begins.
    starts: Vec<i64>,
    /// In the order of the variables: views of the moments.
    moments: Vec<[Tensor; 2]>,
    /// Whether the variables' gradients are views of `gradients`: they exist only after the first backward pass.
    gathered: bool,
}

impl Adam {
    /// Moments of zero for these variables, which every later call must give in the same order. The variables become views
    /// of one tensor; their values stay.
    pub fn new(variables: &[Variable<'_>]) -> Self {
        let (mut starts, mut length, mut kernels) = (vec![0; variables.len()], 0, 0);
        for kernel in [true, false] {
            for (variable, start) in variables.iter().zip(&mut starts) {
                if (variable.role == Role::Kernel) == kernel {
                    *start = length;
                    length += variable.tensor.numel() as i64;
                }
            }
            if kernel {
                kernels = length;
            }
        }
        let device = variables.first().map_or(tch::Device::Cpu, |variable| variable.tensor.device());
        let flat = || Tensor::zeros([length], (Kind::Float, device));
        let (values, gradients, mean, square) = (flat(), flat(), flat(), flat());
        let mut moments = vec![];
        for (variable, &start) in variables.iter().zip(&starts) {
            let value = view(&values, start, variable.tensor);
            no_grad(|| value.shallow_clone().copy_(variable.tensor));
            variable.tensor.shallow_clone().set_data(&value);
            moments.push([&mean, &square].map(|moment| view(moment, start, variable.tensor)));
        }
        Self { values, gradients, mean, square, kernels, starts, moments, gathered: false }
    }

    /// The gradients of all variables since the last step, in one tensor; those of variables that the loss does not depend
    /// on are 0.
    pub fn gradients(&mut self, variables: &[Variable<'_>]) -> &mut Tensor {
        if !self.gathered {
            for (variable, &start) in variables.iter().zip(&self.starts) {
                let mut gradient = variable.tensor.grad();
                if gradient.defined() {
                    let place = view(&self.gradients, start, variable.tensor);
                    no_grad(|| place.shallow_clone().copy_(&gradient));
                    gradient.set_data(&place);
                }
            }
            self.gathered = variables.iter().all(|variable| variable.tensor.grad().defined());
        }
        &mut self.gradients
    }

    /// Moves every variable, and clears the gradients. `step` counts from 0; `decay` is the factor of `0.5 * |W|^2` in the
    /// objective, over kernels alone.
    pub fn step(&mut self, variables: &[Variable<'_>], step: u64, rate: f64, decay: f64) {
        let t = i32::try_from(step + 1).unwrap_or(i32::MAX);
        let rate = rate * (1. - BETA2.powi(t)).sqrt() / (1. - BETA1.powi(t));
        no_grad(|| {
            self.gradients(variables);
            if decay > 0. {
                let mut kernels = self.gradients.narrow(0, 0, self.kernels);
                kernels += self.values.narrow(0, 0, self.kernels) * decay;
            }
            let _ = self.mean.lerp_(&self.gradients, 1. - BETA1);
            let _ = self.square.g_mul_scalar_(BETA2);
            self.square += self.gradients.square() * (1. - BETA2);
            self.values -= &self.mean / (self.square.sqrt() + EPSILON) * rate;
            let _ = self.gradients.zero_();
        });
    }

    /// The moments, in the order of the variables.
    pub fn moments(&self) -> &[[Tensor; 2]] {
        &self.moments
    }
}

/// A part of a flat tensor with the shape of `like`.
fn view(flat: &Tensor, start: i64, like: &Tensor) -> Tensor {
    flat.narrow(0, start, like.numel() as i64).view(like.size().as_slice())
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
