//! What a person sees while a training runs: a bar with the loss terms and the time left, a line per validation.

use std::time::Duration;

use contract::Modality;
use host_train::{
    objective::Terms,
    pace::Speed,
    run::Event,
    validation::{OrganDice, Validation},
};
use indicatif::{ProgressBar, ProgressStyle};

/// The bar; on a terminal only, while the lines of the validations go everywhere.
pub struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// A bar for `steps`, of which `made` are made.
    pub fn new(steps: u64, made: u64) -> Self {
        let style =
            ProgressStyle::with_template("{bar:24} {pos}/{len} {eta} left  {msg}  {prefix}").expect("a valid template");
        let bar = ProgressBar::new(steps).with_style(style).with_position(made);
        bar.reset_eta();
        bar.enable_steady_tick(Duration::from_secs(1));
        Self { bar }
    }

    /// Shows an event of the training.
    pub fn show(&self, event: &Event<'_>) {
        match event {
            Event::Step { step, terms } => {
                self.bar.set_position(*step);
                if let Some(terms) = terms {
                    self.bar.set_message(losses(terms));
                }
            }
            Event::Speed(speed) => {
                let Speed { loader, step, wait_ms } = speed;
                self.bar.set_prefix(format!("step {step:.0}/s, loader {loader:.0}/s, waits {wait_ms:.1} ms"));
            }
            Event::Validation { step, validation, better } => {
                let line = line(*step, validation, *better);
                self.bar.suspend(|| println!("{line}"));
            }
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn losses(terms: &Terms) -> String {
    let Terms { dice, ce, kd, .. } = terms;
    format!("dice ct {:.3} mr {:.3}  ce ct {:.3} mr {:.3}  kd {kd:.4}", dice[0], dice[1], ce[0], ce[1])
}

fn line(step: u64, validation: &Validation, better: bool) -> String {
    if validation.0.is_empty() {
        return format!("step {step}: no held-out cases, checkpoint written");
    }
    let scores = |scores: &OrganDice| {
        let number = |dice: Option<f64>| dice.map_or("-".to_string(), |dice| format!("{dice:.3}"));
        let organs: Vec<String> =
            scores.organs.iter().map(|(organ, dice)| format!("{organ} {}", number(*dice))).collect();
        format!("{} {} ({})", scores.modality, number(scores.mean()), organs.join(", "))
    };
    let all: Vec<String> = validation.0.iter().map(scores).collect();
    let mean = validation.mean(&Modality::ALL);
    let mark = if better && mean.is_some() { ", best so far" } else { "" };
    format!("step {step}: held-out Dice {}{mark}", all.join("; "))
}
