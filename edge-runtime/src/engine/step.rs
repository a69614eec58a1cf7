//! One step of a program, as data with one `match` to run it.

use crate::kernels::{Add, Arena, Conv, Fill, Intake, Labels, Meeting, Move, Resize, Team, Widen, share};

/// What a step does. Steps are proved to stay inside the arena when they are made.
#[derive(Debug)]
pub enum Step {
    /// The image into planes.
    Intake(Intake),
    /// The surroundings of a value.
    Fill(Fill),
    /// A copy in 16 bits, where the kernels want one.
    Widen(Widen),
    /// A convolution with everything fused to it.
    Conv(Box<Conv>),
    /// A residual sum.
    Add(Add),
    /// Pooling, up-sampling, copying.
    Move(Move),
}

/// A step and whose it is.
#[derive(Debug)]
pub struct Planned {
    /// Index of the layer; `None` for the image.
    pub layer: Option<usize>,
    /// Rows of its output, to split between threads.
    pub rows: usize,
    /// What is done.
    pub step: Step,
}

/// A network, lowered: everything is decided and all memory taken.
#[derive(Debug)]
pub struct Program {
    /// In order.
    pub steps: Vec<Planned>,
    /// The last step.
    pub labels: Labels,
    /// All values.
    pub arena: Arena,
}

impl Program {
    /// Runs every step on `codes`, with the constants of modality number `table`; `false` if a thread of the team failed.
    pub fn run(&self, team: Option<&mut Team>, codes: &[i8], table: usize, labels: &mut [u8]) -> bool {
        let done = match team {
            None => {
                self.steps.iter().for_each(|planned| planned.run(&self.arena, codes, table, 0, 1));
                true
            }
            Some(team) => {
                let parts = team.parts();
                team.run(&|part, meeting: &Meeting<'_>| {
                    for (index, planned) in self.steps.iter().enumerate() {
                        planned.run(&self.arena, codes, table, part, parts);
                        meeting.wait(index + 1);
                    }
                })
            }
        };
        if done {
            self.labels.run(&self.arena, 0..self.labels.rows(), labels);
        }
        done
    }
}

impl Planned {
    /// What is done, in words.
    pub fn words(&self) -> String {
        match &self.step {
            Step::Intake(_) => "intake".into(),
            Step::Fill(_) => "fill".into(),
            Step::Widen(_) => "widen".into(),
            Step::Conv(conv) => {
                let [vectors, pixels] = conv.tile();
                format!("conv[{} channels x {pixels} pixels]", 16 * vectors)
            }
            Step::Add(_) => "sum".into(),
            Step::Move(step) => match step.how() {
                Resize::MaxPool(_) => "max-pool".into(),
                Resize::Repeat([1, 1, 1]) => "copy".into(),
                Resize::Repeat(_) => "repeat".into(),
            },
        }
    }

    /// The words from the first to behind the last that it writes.
    pub fn writes(&self) -> std::ops::Range<usize> {
        match &self.step {
            Step::Intake(intake) => intake.writes(),
            Step::Fill(fill) => fill.writes(),
            Step::Widen(widen) => widen.writes(),
            Step::Conv(conv) => conv.writes(),
            Step::Add(step) => step.writes(),
            Step::Move(step) => step.writes(),
        }
    }

    /// Bytes of input, weights and output, each once.
    pub fn bytes(&self) -> usize {
        match &self.step {
            Step::Intake(intake) => 4 * intake.writes().len(),
            Step::Fill(_) => 0,
            Step::Widen(widen) => 6 * widen.writes().len(),
            Step::Conv(conv) => conv.bytes(),
            Step::Add(step) => step.bytes(),
            Step::Move(step) => step.bytes(),
        }
    }

    /// Runs the `part`th of `parts` of the step.
    pub fn run(&self, arena: &Arena, codes: &[i8], table: usize, part: usize, parts: usize) {
        let rows = share(self.rows, part, parts);
        match &self.step {
            Step::Intake(intake) => intake.run(arena, codes, rows),
            // Cheap: one thread does all.
            Step::Fill(fill) if part == 0 => fill.run(arena),
            Step::Fill(_) => {}
            Step::Widen(widen) => widen.run(arena, part, parts),
            Step::Conv(conv) => conv.run(arena, table, rows),
            Step::Add(step) => step.run(arena, table, rows),
            Step::Move(step) => step.run(arena, rows),
        }
    }
}
