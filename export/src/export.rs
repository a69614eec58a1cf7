//! The steps of an export, from a folded network and calibration slices to the bytes of both files.

use std::borrow::Cow;

use contract::{
    Modality, VERSION, golden,
    manifest::{Golden, MANIFEST_KEY, Manifest, Precision},
    names::{LABELS, LOGITS},
};
use sha2::{Digest, Sha256};
use tract_onnx::pb::ModelProto;

use crate::{
    ExportError,
    accuracy::{self, Accuracy},
    calibrate::{Method, Range, Sample, observe},
    choose::{self, Candidate},
    correct::correct,
    engine::Runner,
    equalise, float,
    fold::Folded,
    int8::{self, Format},
    onnx::encode,
    quantise::Quantised,
    recipe::{Calibration, Recipe},
    report::{Report, Sizes, measure},
};

/// Both files of a network, and how well one stands for the other.
pub struct Export {
    /// `model.onnx`.
    pub int8: Vec<u8>,
    /// `model.f32.onnx`.
    pub float: Vec<u8>,
    /// Layer by layer.
    pub report: Report,
}

/// The f32 file.
pub fn export_float(folded: &Folded) -> ModelProto {
    float::write(folded, &metadata(folded, Precision::F32, vec![]))
}

/// Calibrates, quantises as the recipe says, and writes both files to memory. `progress` hears what is being done.
pub fn export(
    folded: &Folded,
    samples: &[Sample],
    recipe: &Recipe,
    format: Format,
    mut progress: impl FnMut(&str),
) -> Result<Export, ExportError> {
    let float = export_float(folded);
    let Quantisation { prepared, ranges, quantised, method, candidates, accuracy } =
        quantise(folded, &float, samples, recipe, &mut progress)?;
    let folded = prepared.as_ref();
    progress("comparing layers");
    let int8 = export_int8(folded, &quantised, Format::Qoperator)?;
    let layers = measure(folded, &quantised, [&export_float(folded), &int8], &ranges, samples)?;
    let depth = folded.spec.depth();
    let count = |&modality| samples.iter().filter(|sample| sample.modality == modality).count() * depth;
    let second_modality_bytes = match folded.spec.modalities.as_slice() {
        [first, _] => encode(&int8).len() - encode(&single_branch(folded, &ranges, *first)?).len(),
        _ => 0,
    };
    let int8 = if format == Format::Qoperator { int8 } else { export_int8(folded, &quantised, format)? };
    let (int8, float) = (encode(&int8), encode(&float));
    let report = Report {
        calibration: method.to_string(),
        bias_correction: recipe.bias_correction,
        equalise: recipe.equalise,
        slices: folded.spec.modalities.iter().map(count).collect(),
        sizes: Sizes { int8_bytes: int8.len(), f32_bytes: float.len(), second_modality_bytes },
        candidates,
        accuracy,
        layers,
    };
    Ok(Export { int8, float, report })
}

/// A quantised network and how it came about.
struct Quantisation<'a> {
    /// The f32 network that was quantised: equalised, or as it came.
    prepared: Cow<'a, Folded>,
    ranges: Vec<Vec<Range>>,
    quantised: Quantised,
    method: Method,
    /// What `auto` tried; empty with a fixed method.
    candidates: Vec<Candidate>,
    accuracy: Vec<Accuracy>,
}

fn quantise<'a>(
    folded: &'a Folded,
    float: &ModelProto,
    samples: &[Sample],
    recipe: &Recipe,
    progress: &mut impl FnMut(&str),
) -> Result<Quantisation<'a>, ExportError> {
    let spec = &folded.spec;
    let (mut prepared, mut reference) = (Cow::Borrowed(folded), Cow::Borrowed(float));
    if recipe.equalise {
        progress("equalising");
        prepared = Cow::Owned(equalise::equalise(folded, &equalise::peaks(folded, float, samples)?));
        reference = Cow::Owned(export_float(&prepared));
    }
    progress("calibrating");
    let observed = observe(&prepared, &reference, samples)?;
    let float_maps = accuracy::segment(spec, float, Precision::F32, samples)?;
    let mut attempts = vec![];
    for method in recipe.calibration.methods() {
        progress(&format!("quantising, {method}"));
        let ranges = observed.ranges(method);
        let mut quantised = Quantised::new(&prepared, &ranges)?;
        if recipe.bias_correction {
            correct(&prepared, &reference, &mut quantised, samples)?;
        }
        let model = int8::write(&prepared, &quantised, Format::Qoperator, &[]);
        let maps = accuracy::segment(spec, &model, Precision::Int8, samples)?;
        attempts.push((method, ranges, quantised, maps));
    }
    let mut candidates: Vec<Candidate> =
        attempts.iter().map(|(method, .., maps)| Candidate::new(spec, samples, &float_maps, *method, maps)).collect();
    let (method, ranges, quantised, maps) = attempts.swap_remove(choose::choose(&mut candidates));
    let accuracy = accuracy::compare(spec, samples, &float_maps, &maps);
    candidates.retain(|_| recipe.calibration == Calibration::Auto);
    Ok(Quantisation { prepared, ranges, quantised, method, candidates, accuracy })
}

/// The int8 file of one branch of a model with two.
fn single_branch(folded: &Folded, ranges: &[Vec<Range>], modality: Modality) -> Result<ModelProto, ExportError> {
    let single = folded.specialise(modality)?;
    let row = folded.spec.modalities.iter().position(|&other| other == modality).unwrap_or(0);
    let quantised = Quantised::new(&single, &ranges[row..=row])?;
    export_int8(&single, &quantised, Format::Qoperator)
}

/// The int8 file, with the digests that every machine must reproduce.
pub fn export_int8(folded: &Folded, quantised: &Quantised, format: Format) -> Result<ModelProto, ExportError> {
    let bare = int8::write(folded, quantised, format, &[]);
    // Engines may run a QDQ graph in float, whose last bits differ: no digests.
    let golden = match format {
        Format::Qoperator => goldens(folded, &bare)?,
        Format::Qdq => vec![],
    };
    Ok(int8::write(folded, quantised, format, &metadata(folded, Precision::Int8, golden)))
}

fn goldens(folded: &Folded, model: &ModelProto) -> Result<Vec<Golden>, ExportError> {
    let (spec, input) = (&folded.spec, folded.shapes[0]);
    let digest = |&modality: &Modality| {
        let mut image = vec![0; input.elements()];
        golden::codes(modality, spec.grid.height, spec.grid.width, &mut image);
        let outputs = Runner::new(model, modality, &[LOGITS, LABELS])?.run_i8(&image)?;
        let sha256 = |values: &[i8]| {
            let bytes: Vec<u8> = values.iter().map(|&value| value as u8).collect();
            Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>()
        };
        Ok(Golden { modality, logits_sha256: sha256(&outputs[0]), labels_sha256: sha256(&outputs[1]) })
    };
    spec.modalities.iter().map(digest).collect()
}

fn metadata(folded: &Folded, precision: Precision, golden: Vec<Golden>) -> [(&'static str, String); 1] {
    let manifest = Manifest {
        contract: VERSION,
        spec: folded.spec.clone(),
        precision,
        golden,
        provenance: folded.provenance.clone(),
    };
    // Numbers, text and lists only: nothing in it that JSON cannot hold.
    [(MANIFEST_KEY, serde_json::to_string(&manifest).expect("a manifest is plain data"))]
}
