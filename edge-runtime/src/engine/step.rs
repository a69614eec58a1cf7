//! One step of a program, as data with one `match` to run it.

use std::ops::Range;

use crate::kernels::{
    Add, Arena, Blank, Conv, Fill, Intake, Interpolate, LabelMap, Labels, Map, Meeting, Mirror, Move, PACK, Pick,
    Resize, Shuffle, Team, Widen, share,
};

/// What a step does. Steps are proved to stay inside the arena when they are made.
#[derive(Debug)]
pub enum Step {
    /// The image into planes.
    Intake(Intake),
    /// The surroundings of a value: zeros.
    Fill(Fill),
    /// The surroundings of a value: itself.
    Mirror(Mirror),
    /// A copy in 16 bits, where the kernels want one.
    Widen(Widen),
    /// A convolution with everything fused to it.
    Conv(Box<Conv>),
    /// A residual sum.
    Add(Add),
    /// A norm of its own, a leak.
    Map(Map),
    /// Pooling, up-sampling, copying.
    Move(Move),
    /// Linear up-sampling.
    Interpolate(Interpolate),
    /// Channels of zeros.
    Blank(Blank),
    /// Channels to pixels.
    Shuffle(Shuffle),
    /// Channels to other lanes.
    Pick(Pick),
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
    /// Of steps that are done together, some rows at a time.
    pub groups: Vec<Range<usize>>,
    /// The last step.
    pub labels: Labels,
    /// All values.
    pub arena: Arena,
}

impl Program {
    /// The groups' steps.
    pub fn grouped(&self) -> impl Iterator<Item = &[Planned]> {
        self.groups.iter().map(|group| &self.steps[group.clone()])
    }

    /// Runs every step on `codes`, with the constants of modality number `table`; `false` if a thread of the team failed.
    pub fn run(&self, team: Option<&mut Team>, codes: &[i8], table: usize, labels: &mut [u8]) -> bool {
        let labels = LabelMap::new(labels);
        match team {
            None => {
                self.run_part(codes, table, &labels, [0, 1], |_| ());
                true
            }
            Some(team) => {
                let parts = team.parts();
                team.run(&|part, meeting: &Meeting<'_>| {
                    self.run_part(codes, table, &labels, [part, parts], |count| meeting.wait(count));
                })
            }
        }
    }

    /// Runs one thread's part of a slice; `meet` waits for the others, so many times so far.
    fn run_part(&self, codes: &[i8], table: usize, labels: &LabelMap<'_>, parts: [usize; 2], meet: impl Fn(usize)) {
        let last = self.groups.len() - 1;
        let fused = self.fuses_labels();
        for (index, group) in self.grouped().enumerate() {
            // Logits become labels before they leave the first cache.
            let labels = (fused && index == last).then_some(labels);
            self.run_group(group, codes, table, labels, parts);
            if labels.is_none() {
                meet(index + 1);
            }
        }
        if !fused {
            self.labels.run(&self.arena, share(self.labels.rows(), parts[0], parts[1]), labels);
        }
    }

    /// Whether the last group makes the logits row by row.
    fn fuses_labels(&self) -> bool {
        let head = self.grouped().last().map(|group| &group[0]);
        head.is_some_and(|head| matches!(head.step, Step::Conv(_)) && head.rows == self.labels.rows())
    }

    /// Runs steps that are done together, and the labels of their rows if asked for: part `parts[0]` of `parts[1]`.
    pub fn run_group(
        &self,
        group: &[Planned],
        codes: &[i8],
        table: usize,
        labels: Option<&LabelMap<'_>>,
        parts: [usize; 2],
    ) {
        /// Words of output that leave room in the first cache for what is read.
        const CHUNK: usize = 1 << 12;
        let first = &group[0];
        let all = share(first.rows, parts[0], parts[1]);
        if group.len() == 1 && labels.is_none() {
            return first.run(&self.arena, codes, table, all, parts);
        }
        let row = first.writes().len() / first.rows;
        let step = CHUNK.checked_div(row).unwrap_or(1).max(1);
        for start in all.clone().step_by(step) {
            let rows = start..all.end.min(start + step);
            group.iter().for_each(|planned| planned.run(&self.arena, codes, table, rows.clone(), parts));
            if let Some(labels) = labels {
                self.labels.run(&self.arena, rows, labels);
            }
        }
    }
}

impl Planned {
    /// What is done, in words.
    pub fn words(&self) -> String {
        match &self.step {
            Step::Intake(_) => "intake".into(),
            Step::Fill(_) => "fill".into(),
            Step::Mirror(_) => "mirror".into(),
            Step::Widen(_) => "widen".into(),
            Step::Conv(conv) => {
                let [vectors, pixels] = conv.tile();
                format!("conv[{} channels x {pixels} pixels]", 16 * vectors)
            }
            Step::Add(_) => "sum".into(),
            Step::Map(_) => "affine".into(),
            Step::Move(step) => match step.how() {
                Resize::MaxPool(_) => "max-pool".into(),
                Resize::Repeat([1, 1, 1]) => "copy".into(),
                Resize::Repeat(_) => "repeat".into(),
            },
            Step::Interpolate(_) => "interpolate".into(),
            Step::Blank(_) => "blank".into(),
            Step::Shuffle(_) => "shuffle".into(),
            Step::Pick(_) => "pick".into(),
        }
    }

    /// The words from the first to behind the last that it writes.
    pub fn writes(&self) -> Range<usize> {
        match &self.step {
            Step::Intake(intake) => intake.writes(),
            Step::Fill(fill) => fill.writes(),
            Step::Mirror(mirror) => mirror.writes(),
            Step::Widen(widen) => widen.writes(),
            Step::Conv(conv) => conv.writes(),
            Step::Add(step) => step.writes(),
            Step::Map(step) => step.writes(),
            Step::Move(step) => step.writes(),
            Step::Interpolate(step) => step.writes(),
            Step::Blank(step) => step.writes(),
            Step::Shuffle(step) => step.writes(),
            Step::Pick(step) => step.writes(),
        }
    }

    /// Bytes of input, weights and output, each once.
    pub fn bytes(&self) -> usize {
        match &self.step {
            Step::Intake(intake) => PACK * intake.writes().len(),
            Step::Fill(_) | Step::Mirror(_) => 0,
            Step::Widen(widen) => 6 * widen.writes().len(),
            Step::Conv(conv) => conv.bytes(),
            Step::Add(step) => step.bytes(),
            Step::Map(step) => step.bytes(),
            Step::Move(step) => step.bytes(),
            Step::Interpolate(step) => step.bytes(),
            Step::Blank(step) => step.bytes(),
            Step::Shuffle(step) => step.bytes(),
            Step::Pick(step) => step.bytes(),
        }
    }

    /// Bytes of packed weights, shared by all modalities.
    pub fn weight_bytes(&self) -> usize {
        if let Step::Conv(conv) = &self.step { conv.weight_bytes() } else { 0 }
    }

    /// Bytes of the tables of all modalities.
    pub fn table_bytes(&self) -> usize {
        match &self.step {
            Step::Conv(conv) => conv.table_bytes(),
            Step::Map(map) => map.table_bytes(),
            _ => 0,
        }
    }

    /// Runs some of its rows. What has no rows is split into `parts`, of which this is the `part`th.
    fn run(&self, arena: &Arena, codes: &[i8], table: usize, rows: Range<usize>, [part, parts]: [usize; 2]) {
        match &self.step {
            Step::Intake(intake) => intake.run(arena, codes, rows),
            // Cheap: one thread does all.
            Step::Fill(fill) if part == 0 => fill.run(arena),
            Step::Fill(_) => {}
            Step::Mirror(mirror) => mirror.run(arena, rows),
            Step::Widen(widen) => widen.run(arena, part, parts),
            Step::Conv(conv) => conv.run(arena, table, rows),
            Step::Add(step) => step.run(arena, table, rows),
            Step::Map(step) => step.run(arena, table, rows),
            Step::Move(step) => step.run(arena, rows),
            Step::Interpolate(step) => step.run(arena, rows),
            Step::Blank(step) => step.run(arena, rows),
            Step::Shuffle(step) => step.run(arena, rows),
            Step::Pick(step) => step.run(arena, rows),
        }
    }
}
