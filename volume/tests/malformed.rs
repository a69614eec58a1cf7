//! Files that other readers choked on, and mutations of a good one: read or refused, never a panic, and never more memory
//! than the file can fill.
//!
//! Allocation is counted by a global allocator of this test binary, on the thread that reads.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    fs,
    path::{Path, PathBuf},
};

use contract::Modality;
use flate2::{Compression, write::GzEncoder};
use rand::{Rng, SeedableRng, seq::IndexedRandom};
use volume::{Fault, Geometry, Image, VolumeError, read_image, write_image};

struct Counting;

thread_local! {
    static LIVE: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

fn grow(bytes: usize) {
    let live = LIVE.get().saturating_add(bytes);
    LIVE.set(live);
    PEAK.set(PEAK.get().max(live));
}

// SAFETY: every call is passed on to the system's allocator unchanged; the counters are plain cells of this thread,
// constant-initialised, so counting neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grow(layout.size());
        // SAFETY: the caller's promises are those that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.set(LIVE.get().saturating_sub(layout.size()));
        // SAFETY: as above; `pointer` came from `System`.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Both blocks may be there while one is copied.
        grow(size);
        LIVE.set(LIVE.get().saturating_sub(layout.size()));
        // SAFETY: as above; `pointer` came from `System`.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Reads a file, and how many bytes were taken at most meanwhile.
fn read_counted(path: &Path, modality: Modality) -> (Result<Image, VolumeError>, usize) {
    LIVE.set(0);
    PEAK.set(0);
    let result = read_image(path, modality);
    (result, PEAK.get())
}

/// The most that reading may take: the voxels in a buffer that doubles (three times their bytes while it moves), two
/// `i16` volumes of at most one voxel per byte, and fixed buffers.
fn allowance(inflated: usize) -> usize {
    3 * inflated + 4 * inflated + (256 << 10)
}

fn data() -> Option<PathBuf> {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data");
    let root = PathBuf::from(std::env::var_os("GANTRY_TEST_DATA").unwrap_or_else(|| default.into()));
    if root.join("manifest.json").is_file() {
        return Some(root);
    }
    println!("skipped: no test data in {}", root.display());
    None
}

/// What is in a file after decompression, as far as it decompresses.
fn inflated(path: &Path) -> usize {
    use std::io::Read;
    let bytes = fs::read(path).unwrap();
    if !bytes.starts_with(&[0x1f, 0x8b]) {
        return bytes.len();
    }
    let mut out = Vec::new();
    let _ = flate2::read::MultiGzDecoder::new(&bytes[..]).read_to_end(&mut out);
    out.len()
}

/// Nibabel's shape without trailing ones, if nibabel reads the voxels as real numbers of one volume in one file.
fn shape_by_nibabel(entry: &serde_json::Value) -> Option<Vec<usize>> {
    let behaviour = &entry["behaviour"];
    let real = behaviour["dtype"].as_str().is_some_and(|name| !name.contains("complex") && !name.contains('R'));
    if !real || behaviour["cls"] != "Nifti1Image" || !behaviour["data"].as_str()?.starts_with("ok") {
        return None;
    }
    let shape: Vec<usize> = behaviour["shape"].as_array()?.iter().map(|size| size.as_u64().unwrap() as usize).collect();
    shape.iter().skip(3).all(|&size| size == 1).then_some(shape)
}

#[test]
fn files_that_broke_other_readers_are_read_as_nibabel_does_or_refused() {
    let Some(root) = data() else { return };
    let manifest: serde_json::Value = serde_json::from_slice(&fs::read(root.join("manifest.json")).unwrap()).unwrap();
    let entries = manifest["malformed"].as_array().unwrap().iter();
    let entries: Vec<_> = entries.filter(|entry| entry["file"].as_str().unwrap().contains("/nifti/")).collect();
    assert_eq!(entries.len(), 52);
    let mut read = 0;
    for entry in entries {
        let name = entry["file"].as_str().unwrap();
        let path = root.join(name);
        let (result, peak) = read_counted(&path, Modality::Mr);
        let inflated = inflated(&path);
        assert!(peak <= allowance(inflated), "{name}: {peak} bytes taken for {inflated}");
        match (result, shape_by_nibabel(entry)) {
            (Ok(image), Some(shape)) => {
                let stored = image.geometry.stored_dims();
                let expected = [0, 1, 2].map(|axis| shape.get(axis).copied().unwrap_or(1));
                assert_eq!(stored, expected, "{name}");
                read += 1;
            }
            (Ok(_), None) => panic!("{name}: nibabel does not read this as one real volume"),
            (Err(error), Some(shape)) => panic!("{error}, but nibabel reads {shape:?}"),
            (Err(error), None) => assert!(error.to_string().starts_with(path.to_str().unwrap()), "{error}"),
        }
    }
    println!("{read} of 52 files read, the others refused");
    assert!(read > 20, "{read} files read");
}

#[test]
fn real_volumes_open_with_their_shape_and_spacing() {
    let Some(root) = data() else { return };
    let manifest: serde_json::Value = serde_json::from_slice(&fs::read(root.join("manifest.json")).unwrap()).unwrap();
    for entry in manifest["volumes"].as_array().unwrap() {
        let name = entry["name"].as_str().unwrap();
        let modality = if name.starts_with("ct") { Modality::Ct } else { Modality::Mr };
        let image = read_image(root.join("volumes").join(name).join("image.nii.gz"), modality).unwrap();
        let expected: Vec<f64> =
            entry["shape_xyz"].as_array().unwrap().iter().map(|size| size.as_f64().unwrap()).collect();
        let found: Vec<f64> = image.geometry.stored_dims().iter().map(|&size| size as f64).collect();
        assert_eq!(found, expected, "{name}");
        for (found, expected) in image.spacing_mm().iter().zip(entry["spacing"].as_array().unwrap()) {
            assert!((found - expected.as_f64().unwrap()).abs() < 1e-3, "{name}: {found} mm, expected {expected}");
        }
        let range = [image.raw.iter().min().unwrap(), image.raw.iter().max().unwrap()].map(|&raw| f64::from(raw));
        assert_eq!(range, [entry["min"].as_f64().unwrap(), entry["max"].as_f64().unwrap()], "{name}");
        println!("{name}: {} {:?}", image.geometry.codes(), image.shape());
    }
}

/// A good file of 6 x 5 x 4 voxels.
fn good(folder: &Path) -> Vec<u8> {
    let path = folder.join("good.nii");
    let geometry = Geometry::from_codes("LAS", [6, 5, 4], [1., 1., 2.]).unwrap();
    write_image(&path, &geometry, &(0..120).collect::<Vec<i16>>()).unwrap();
    fs::read(path).unwrap()
}

/// Values that have broken parsers before.
const EDGES: [u32; 10] =
    [0, 1, u32::MAX, 0x7fff_ffff, 0x8000_0000, 0x7fff_7fff, 0x7fc0_0000, 0x7f80_0000, 0xff80_0000, 0x0800_0800];

fn mutate(bytes: &mut Vec<u8>, random: &mut impl Rng) {
    for _ in 0..random.random_range(1..=4) {
        match random.random_range(0..5) {
            0 => bytes[random.random_range(0..348)] = random.random(),
            1 => bytes[random.random_range(0..348)] ^= 1 << random.random_range(0..8),
            2 => {
                let at = 4 * random.random_range(0..87);
                bytes[at..at + 4].copy_from_slice(&EDGES.choose(random).unwrap().to_le_bytes());
            }
            3 => {
                let at = 40 + 2 * random.random_range(0..8);
                bytes[at..at + 2].copy_from_slice(&random.random::<u16>().to_le_bytes());
            }
            _ => bytes.truncate(random.random_range(348..=bytes.len())),
        }
        bytes.resize(bytes.len().max(348), 0);
    }
}

#[test]
fn two_thousand_mutations_of_a_good_header_neither_panic_nor_take_memory() {
    use std::io::Write;
    let folder = tempfile::tempdir().unwrap();
    let (good, path) = (good(folder.path()), folder.path().join("mutant.nii"));
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(20_240_601);
    let (mut read, mut refused) = (0, 0);
    for number in 0..2_000 {
        let mut bytes = good.clone();
        mutate(&mut bytes, &mut random);
        let inflated = bytes.len();
        if number % 2 == 1 {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(&bytes).unwrap();
            bytes = encoder.finish().unwrap();
        }
        fs::write(&path, &bytes).unwrap();
        let modality = Modality::ALL[number / 2 % 2];
        let (result, peak) = read_counted(&path, modality);
        assert!(peak <= allowance(inflated), "mutation {number}: {peak} bytes taken for {inflated}");
        match result {
            Ok(image) => {
                assert_eq!(image.raw.len(), image.shape().iter().product::<usize>(), "mutation {number}");
                read += 1;
            }
            Err(error) => {
                assert!(error.to_string().contains("mutant.nii: "), "mutation {number}: {error}");
                refused += 1;
            }
        }
    }
    println!("{read} read, {refused} refused");
    assert!(read > 200 && refused > 200, "{read} read, {refused} refused: the mutations do not probe both ways");
}

#[test]
fn a_small_file_cannot_promise_a_large_volume() {
    use std::io::Write;
    let folder = tempfile::tempdir().unwrap();
    let mut bytes = good(folder.path());
    for at in [42, 44, 46] {
        bytes[at..at + 2].copy_from_slice(&i16::MAX.to_le_bytes());
    }
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(&bytes).unwrap();
    for (name, contents) in [("large.nii", bytes.clone()), ("large.nii.gz", encoder.finish().unwrap())] {
        let path = folder.path().join(name);
        fs::write(&path, contents).unwrap();
        let (result, peak) = read_counted(&path, Modality::Ct);
        let fault = result.unwrap_err().fault;
        let expected = 2 * 32767u64.pow(3);
        assert!(matches!(fault, Fault::Truncated { expected: e, .. } if e == expected), "{fault}");
        assert!(peak < 128 << 10, "{name}: {peak} bytes");
    }
}
