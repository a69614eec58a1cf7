//! Writes models with random weights, for benchmarks of speed: the time of a network does not depend on its weights.
//!
//! ```text
//! cargo run -p tests --example random_model -- compact|compact-dilated|compact3d HEIGHT WIDTH OUT_DIR [DEPTH]
//! ```
//! Into `OUT_DIR` go `model.onnx` and `model.f32.onnx` with both branches, and for other toolchains `ct.qoperator.onnx`,
//! `ct.qdq.onnx` and the same of `mr`. The sizes are those of the usual comparison: base 16 with one slice (`compact`) or
//! three (`compact-dilated`), base 8 with one channel in 3D (`compact3d`, `DEPTH` 64 unless given). Ranges come from two random
//! images of blobs per modality. A large `compact3d` takes minutes: tract makes its golden digests.

use std::{error::Error, fs, path::Path};

use contract::{Modality, Net};
use export::{
    Checkpoint, Folded,
    calibrate::{Method, Range, Sample, observe},
    export_float, export_int8,
    int8::Format,
    onnx::encode,
    quantise::Quantised,
};
use tests::checkpoint;

const CLASSES: usize = 5;
const SEED: u64 = 1;
const USAGE: &str = "expected compact|compact-dilated|compact3d HEIGHT WIDTH OUT_DIR [DEPTH]";

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [family, height, width, folder, depth @ ..] = &arguments[..] else { return Err(USAGE.into()) };
    let depth = depth.first().map_or(Ok(64), |depth| depth.parse())?;
    let net = network(family, depth, height.parse()?, width.parse()?)?;
    let folder = Path::new(folder);
    fs::create_dir_all(folder)?;
    let folded = folded(net, folder)?;
    let ranges = observe(&folded, &export_float(&folded), &images(&folded))?.ranges(Method::MinMax);
    write(folder, "model.f32.onnx", &encode(&export_float(&folded)))?;
    write_int8(folder, "model.onnx", &folded, &ranges, Format::Qoperator)?;
    for (row, modality) in Modality::ALL.into_iter().enumerate() {
        let single = folded.specialise(modality)?;
        for (format, word) in [(Format::Qoperator, "qoperator"), (Format::Qdq, "qdq")] {
            write_int8(folder, &format!("{modality}.{word}.onnx"), &single, &ranges[row..=row], format)?;
        }
    }
    Ok(())
}

fn network(family: &str, depth: usize, height: usize, width: usize) -> Result<Net, Box<dyn Error>> {
    let net = match family {
        "compact" => Net::compact(1, CLASSES, 16, height, width),
        "compact-dilated" => Net::compact_dilated(3, CLASSES, 16, height, width),
        "compact3d" => Net::compact3d(CLASSES, 8, depth, height, width),
        _ => return Err(format!("unknown family '{family}': {USAGE}").into()),
    };
    let counts = net.counts()?;
    println!("{}: {} weights, {:.2} GMAC", net.name, counts.shared, counts.macs as f64 / 1e9);
    Ok(net)
}

/// The checkpoint stays in the folder, for whoever wants to export it otherwise.
fn folded(net: Net, folder: &Path) -> Result<Folded, Box<dyn Error>> {
    let path = folder.join("checkpoint.safetensors");
    let tensors = checkpoint::random(&net, &Modality::ALL, SEED);
    tensors.write(&checkpoint::spec(net, &Modality::ALL), &path)?;
    Ok(Folded::new(&Checkpoint::read(&path)?)?)
}

fn images(folded: &Folded) -> Vec<Sample> {
    let image = |(modality, seed)| Sample { modality, codes: checkpoint::image(&folded.spec.net, seed), labels: None };
    [(Modality::Ct, 0), (Modality::Ct, 1), (Modality::Mr, 2), (Modality::Mr, 3)].map(image).to_vec()
}

fn write_int8(
    folder: &Path,
    name: &str,
    folded: &Folded,
    ranges: &[Vec<Range>],
    format: Format,
) -> Result<(), Box<dyn Error>> {
    let quantised = Quantised::new(folded, ranges)?;
    write(folder, name, &encode(&export_int8(folded, &quantised, format)?))
}

fn write(folder: &Path, name: &str, bytes: &[u8]) -> Result<(), Box<dyn Error>> {
    fs::write(folder.join(name), bytes)?;
    println!("{}: {} bytes", folder.join(name).display(), bytes.len());
    Ok(())
}
