//! One slice through the runtime, per modality: the whole way from raw pixels to labels on the scanner's grid, its stages
//! alone, and the network with every table of routines that this CPU can run. The model is the repository's int8 one, the slice the middle of a phantom at scanner resolution.
//!
//! `cargo bench -p benches`, or `cargo bench -p benches -- slice/ct` for one modality.

use std::{hint::black_box, path::Path};

use contract::{Intake, Lut, Modality};
use criterion::{Criterion, Throughput};
use edge_runtime::{
    Engine, Model,
    engine::{Choice, Options},
    kernels::Kernels,
};
use phantom::{Anatomy, Subject};
use volume::Geometry;

/// A scanner's slice.
struct Slice {
    raw: Vec<i16>,
    geometry: Geometry,
}

/// The middle axial slice of a phantom.
fn slice(modality: Modality) -> Slice {
    let rendered = Subject::new(Anatomy::Abdomen, modality, 1).render();
    let geometry = Geometry::new(rendered.grid.dims, rendered.grid.ras()).expect("the phantom's grid");
    let [depth, height, width] = geometry.shape();
    let raw = geometry.to_canonical(&rendered.raw)[depth / 2 * height * width..][..height * width].to_vec();
    Slice { raw, geometry }
}

fn main() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/abdomen-compact/model.onnx");
    let model = Model::load(&path).unwrap_or_else(|error| panic!("{error}"));
    let mut engine = Engine::new(&model).unwrap_or_else(|error| panic!("{error}"));
    let mut criterion = Criterion::default().configure_from_args();
    for &modality in &model.spec().modalities {
        bench(&mut criterion, &model, &mut engine, modality);
    }
    criterion.final_summary();
}

fn bench(criterion: &mut Criterion, model: &Model, engine: &mut Engine, modality: Modality) {
    let (spec, slice) = (model.spec(), slice(modality));
    let plane = slice.geometry.plane();
    let mut intake = Intake::new(modality, spec.intensity, plane, spec.grid).expect("a scanner's slice");
    let pixels = spec.grid.height * spec.grid.width;
    let mut codes = vec![0; engine.image_len()];
    let mut labels = vec![0; engine.labels_len()];
    let mut back = vec![0; slice.raw.len()];

    let mut group = criterion.benchmark_group(format!("slice/{modality}"));
    group.throughput(Throughput::Elements(1)).sample_size(30);
    // A model of several slices sees the same one in each channel: the work does not depend on the values.
    group.bench_function("whole", |b| {
        b.iter(|| {
            for channel in codes.chunks_exact_mut(pixels) {
                intake.codes(black_box(&slice.raw), channel).expect("a slice with contrast");
            }
            engine.run(&codes, modality, &mut labels).expect("a planned network");
            intake.resampler().labels_back(&labels, &mut back);
            back[0]
        });
    });
    group.bench_function("intake", |b| b.iter(|| intake.codes(black_box(&slice.raw), &mut codes[..pixels])));
    for kernels in Kernels::available() {
        let options = Options { choice: Choice::Planned, kernels: Some(kernels), ..Options::default() };
        let mut engine = Engine::with(model, &options).expect("a model of ours");
        group.bench_function(format!("network, {}", kernels.name()), |b| {
            b.iter(|| engine.run(black_box(&codes), modality, &mut labels));
        });
    }
    group.bench_function("labels back", |b| {
        b.iter(|| intake.resampler().labels_back(black_box(&labels), &mut back));
    });
    let mut lut = Lut::default();
    group.bench_function("intensity table", |b| b.iter(|| lut.fit(&spec.intensity, modality, black_box(&slice.raw))));
    group.finish();
}
