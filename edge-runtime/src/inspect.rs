//! What a model file is, and what the engine makes of it: manifest, costs, and for every layer whether it multiplies in
//! int8 on this machine.

use contract::{
    Grid, Intensity, LabelMap, Modality,
    manifest::{Golden, Precision, Provenance},
    net::{Counts, Op},
};
use serde::Serialize;

use crate::{
    EdgeError, Engine, Model,
    engine::{Memory, Planned},
};

/// Everything that `gantry-edge inspect` prints.
#[derive(Clone, Debug, Serialize)]
pub struct Inspection {
    /// Name of the network.
    pub name: String,
    /// Contract version.
    pub contract: u32,
    /// Number format of the convolutions.
    pub precision: Precision,
    /// Branches.
    pub modalities: Vec<Modality>,
    /// Classes.
    pub labels: LabelMap,
    /// The model's pixels.
    pub grid: Grid,
    /// Neighbouring slices in an image.
    pub slices: usize,
    /// The way from raw values to codes.
    pub intensity: Intensity,
    /// History.
    pub provenance: Provenance,
    /// Size of the file.
    pub file_bytes: u64,
    /// SHA-256 of the file.
    pub file_sha256: String,
    /// Weights and biases that all branches share.
    pub parameters: usize,
    /// Norm parameters of one branch before they were folded.
    pub norm_parameters_per_modality: usize,
    /// Multiply-accumulates per image.
    pub macs: u64,
    /// Those of them that run in int8 on this machine.
    pub int8_macs: u64,
    /// Packed weights and tables in memory.
    pub constant_bytes: usize,
    /// Bytes that branches use together, counted once for each further branch.
    pub shared_constant_bytes: usize,
    /// Who executes, with what, and why.
    pub engine: String,
    /// Layers in order.
    pub layers: Vec<LayerReport>,
    /// What every machine must answer.
    pub golden: Vec<Golden>,
}

/// One layer.
#[derive(Clone, Debug, Serialize)]
pub struct LayerReport {
    /// Name.
    pub name: String,
    /// Operation in words, e.g. `conv 3x3`.
    pub op: String,
    /// Channels and `[depth, height, width]` of its output.
    pub shape: [usize; 4],
    /// Multiply-accumulates per image.
    pub macs: u64,
    /// `int8` or `f32` for layers that multiply.
    pub runs: Option<&'static str>,
    /// Nodes of the engine's plan.
    pub plan: Vec<String>,
}

/// Looks at a model and its plan.
pub fn inspect(model: &Model, engine: &Engine) -> Result<Inspection, EdgeError> {
    let (manifest, spec) = (&model.manifest, model.spec());
    let net_error =
        |source: contract::NetError| EdgeError::ModelSpec { path: model.path.clone(), source: Box::new(source.into()) };
    let counts = spec.net.counts().map_err(net_error)?;
    let per_layer = spec.net.layer_counts().map_err(net_error)?;
    let shapes = spec.net.shapes().map_err(net_error)?;
    let outputs = shapes.iter().skip(1);
    let layers = spec.net.layers.iter().zip(outputs).zip(&per_layer).zip(engine.layers());
    let layers: Vec<LayerReport> = layers
        .map(|(((layer, shape), &Counts { macs, .. }), run)| LayerReport {
            name: layer.name.clone(),
            op: words(&layer.op),
            shape: [shape.channels, shape.size[0], shape.size[1], shape.size[2]],
            macs,
            runs: run.int8.map(|int8| if int8 { "int8" } else { "f32" }),
            plan: run.ops.clone(),
        })
        .collect();
    let constants = engine.constants();
    Ok(Inspection {
        name: spec.net.name.clone(),
        contract: manifest.contract,
        precision: manifest.precision,
        modalities: spec.modalities.clone(),
        labels: spec.labels.clone(),
        grid: spec.grid,
        slices: spec.slices(),
        intensity: spec.intensity,
        provenance: manifest.provenance.clone(),
        file_bytes: model.bytes,
        file_sha256: model.sha256.clone(),
        parameters: counts.shared,
        norm_parameters_per_modality: counts.norm_per_modality,
        macs: counts.macs,
        int8_macs: layers.iter().filter(|layer| layer.runs == Some("int8")).map(|layer| layer.macs).sum(),
        constant_bytes: constants.total_bytes,
        shared_constant_bytes: constants.shared_bytes,
        engine: engine.to_string(),
        layers,
        golden: manifest.golden.clone(),
    })
}

/// Everything that `gantry-edge plan` prints.
#[derive(Clone, Debug, Serialize)]
pub struct PlanReport {
    /// Name of the table of routines.
    pub kernel: &'static str,
    /// In order.
    pub steps: Vec<StepReport>,
    /// Memory of all values, taken at load.
    pub arena_bytes: usize,
    /// The most bytes of values alive at one time: no plan needs less.
    pub alive_bytes: usize,
    /// Weights, packed once for all modalities.
    pub weight_bytes: usize,
    /// Bias and factors of all modalities.
    pub table_bytes: usize,
}

/// One step.
#[derive(Clone, Debug, Serialize)]
pub struct StepReport {
    /// Layer that it belongs to, or `image`.
    pub layer: String,
    /// What it does.
    pub step: String,
    /// First byte that it writes.
    pub at: usize,
    /// Bytes from there that it writes into, gaps included.
    pub bytes: usize,
}

/// The steps of the planned engine.
///
/// # Errors
/// If another engine runs the model.
pub fn plan(model: &Model, engine: &Engine) -> Result<PlanReport, EdgeError> {
    let engine = match engine {
        Engine::Planned(engine) => engine,
        Engine::Tract { why, .. } => {
            return Err(EdgeError::NotPlanned { path: model.path.clone(), reason: why.clone() });
        }
    };
    let layers = &model.spec().net.layers;
    let step = |planned: &Planned| {
        let range = planned.writes();
        StepReport {
            layer: planned.layer.map_or_else(|| "image".to_string(), |layer| layers[layer].name.clone()),
            step: planned.words(),
            at: 4 * range.start,
            bytes: 4 * range.len(),
        }
    };
    let Memory { arena_bytes, alive_bytes, weight_bytes, table_bytes } = *engine.memory();
    Ok(PlanReport {
        kernel: engine.kernels().name(),
        steps: engine.program().steps.iter().map(step).collect(),
        arena_bytes,
        alive_bytes,
        weight_bytes,
        table_bytes,
    })
}

/// An operation in a few words.
fn words(op: &Op) -> String {
    match op {
        Op::Conv(conv) => {
            let mut text = format!("conv {}", size(conv.kernel));
            for (word, value) in [("stride", conv.stride), ("dilation", conv.dilation)] {
                if value != [1; 3] {
                    text += &format!(", {word} {}", size(value));
                }
            }
            if conv.groups > 1 { text + &format!(", {} groups", conv.groups) } else { text }
        }
        Op::Deconv(deconv) => format!("transposed conv {}, stride {}", size(deconv.kernel), size(deconv.stride)),
        Op::Norm { .. } => "norm".into(),
        Op::Add { .. } => "add".into(),
        Op::Concat => "concat".into(),
        Op::MaxPool { size: block } => format!("max pool {}", size(*block)),
        Op::Upsample { factor } => format!("up-sample {}", size(*factor)),
        Op::Interpolate { factor } => format!("interpolate {}", size(*factor)),
        Op::PixelShuffle { factor } => format!("pixel shuffle {factor}"),
        Op::PadChannels { front, back } => format!("pad channels {front} + {back}"),
    }
}

/// `3x3` of a 2D operation, `1x3x3`'s depth left out.
fn size([depth, height, width]: [usize; 3]) -> String {
    if depth == 1 { format!("{height}x{width}") } else { format!("{depth}x{height}x{width}") }
}
