//! Our own plan for our own int8 files: a list of steps over one arena. Takes its memory when made, none after.

use contract::Modality;

use super::{
    Constants, LayerRun, Logits, Options,
    load::{self, Refused},
    lower::{self, Lowered, Memory, Unfit},
    step::{Program, Step},
};
use crate::{
    EdgeError, Model,
    kernels::{Kernels, Team},
};

/// A lowered network, all branches resident.
#[derive(Debug)]
pub struct PlannedEngine {
    program: Program,
    /// `None`: the caller's thread alone.
    team: Option<Team>,
    kernels: Kernels,
    memory: Memory,
    modalities: Vec<Modality>,
    image_len: usize,
    labels_len: usize,
    ran: bool,
    /// Logits of the last run, when somebody asked for them.
    logits: Vec<i8>,
    layers: Vec<LayerRun>,
}

impl PlannedEngine {
    /// Plans a model. `Ok(Err(..))` says why the file is not one of ours; impossible numbers are an error.
    pub(super) fn new(model: &Model, options: &Options) -> Result<Result<Self, String>, EdgeError> {
        let kernels = options.kernels.unwrap_or_else(|| Kernels::available()[0]);
        let max_arena_bytes = options.max_arena_bytes;
        let spec = model.spec();
        let Some(graph) = model.proto.graph.as_ref() else { return Ok(Err("no graph".to_string())) };
        if !model.is_int8() {
            return Ok(Err("its convolutions are in f32".to_string()));
        }
        let network = match load::network(spec, graph) {
            Ok(network) => network,
            Err(Refused::Foreign { layer, reason }) => return Ok(Err(format!("layer '{layer}': {reason}"))),
            Err(Refused::Invalid { layer, reason }) => {
                return Err(EdgeError::ModelLayer { path: model.path.clone(), layer, reason });
            }
        };
        let Lowered { program, memory } = match lower::lower(&network, kernels, max_arena_bytes) {
            Ok(lowered) => lowered,
            Err(Unfit::Shape { layer, reason }) => return Ok(Err(format!("layer '{layer}' {reason}"))),
            Err(Unfit::Arena(bytes)) => {
                return Err(EdgeError::Arena { path: model.path.clone(), bytes, max: max_arena_bytes });
            }
        };
        let labels_len = program.labels.labels_len();
        let mut layers: Vec<LayerRun> = spec
            .net
            .layers
            .iter()
            .map(|layer| LayerRun { name: layer.name.clone(), int8: None, ops: vec![] })
            .collect();
        for planned in &program.steps {
            let Some(layer) = planned.layer else { continue };
            layers[layer].int8 = layers[layer].int8.or(matches!(planned.step, Step::Conv(_)).then_some(true));
            layers[layer].ops.push(planned.words());
        }
        let team = (options.threads > 1).then(|| team(options)).transpose();
        let team = team.map_err(|source| EdgeError::Threads { threads: options.threads, source })?;
        Ok(Ok(Self {
            team,
            kernels,
            memory,
            modalities: spec.modalities.clone(),
            image_len: spec.net.input.elements(),
            labels_len,
            ran: false,
            logits: vec![],
            layers,
            program,
        }))
    }

    pub(super) fn run(&mut self, codes: &[i8], modality: Modality, labels: &mut [u8]) -> Result<(), EdgeError> {
        super::expect("the image", codes.len(), self.image_len)?;
        super::expect("the label map", labels.len(), self.labels_len)?;
        let Some(table) = self.modalities.iter().position(|&other| other == modality) else {
            return Err(EdgeError::Modality { wanted: modality, available: self.modalities.clone() });
        };
        self.ran = self.program.run(self.team.as_mut(), codes, table, labels);
        match self.ran {
            true => Ok(()),
            false => Err(EdgeError::Run { modality, reason: "a thread panicked".to_string() }),
        }
    }

    pub(super) fn logits(&mut self) -> Option<Logits<'_>> {
        if !self.ran {
            return None;
        }
        self.program.labels.logits(&self.program.arena, &mut self.logits);
        Some(Logits::Codes(&self.logits))
    }

    /// Codes per image.
    pub const fn image_len(&self) -> usize {
        self.image_len
    }

    pub(super) const fn labels_len(&self) -> usize {
        self.labels_len
    }

    pub(super) fn layers(&self) -> &[LayerRun] {
        &self.layers
    }

    pub(super) fn constants(&self) -> Constants {
        let Memory { weight_bytes, table_bytes, .. } = self.memory;
        Constants { total_bytes: weight_bytes + table_bytes, shared_bytes: weight_bytes * (self.modalities.len() - 1) }
    }

    /// What it computes with.
    pub const fn kernels(&self) -> Kernels {
        self.kernels
    }

    /// Threads that run a slice.
    pub fn threads(&self) -> usize {
        self.team.as_ref().map_or(1, Team::parts)
    }

    /// What it costs.
    pub const fn memory(&self) -> &Memory {
        &self.memory
    }

    /// The steps, for whoever prints them.
    pub const fn program(&self) -> &Program {
        &self.program
    }
}

/// Threads, each on its core where cores are given.
fn team(options: &Options) -> std::io::Result<Team> {
    let cores = options.cores.clone();
    Team::new(options.threads, move |part| {
        if let Some(&id) = cores.get(part) {
            // Unknown cores and systems that do not pin are no reason to stop.
            core_affinity::set_for_current(core_affinity::CoreId { id });
        }
    })
}
