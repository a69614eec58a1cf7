//! Volumes through 3D networks: what the runtime makes of a NIfTI file, against the reference network on every tile and
//! integer sums over the whole volume.

use std::path::Path;

use contract::{
    Intake, Modality, Net,
    net::Shape,
    tiles::{Tiles, Tiling},
};
use edge_runtime::{
    EdgeError, Engine, Model,
    engine::{self, Choice},
    segment::{self, Options},
};
use tests::{model_file::ModelFile, reference};
use volume::{Geometry, components::keep_largest, write_image};

use crate::fixture::Exported;

/// Slices of 20 x 18 pixels of 3.1 x 2.8 mm.
const AREA: usize = 20 * 18;

/// A volume of `depth` slices whose values are plausible for a modality; slice 2 is constant.
fn scan(path: &Path, modality: Modality, depth: usize) -> Vec<i16> {
    let geometry = Geometry::from_codes("LPS", [20, 18, depth], [3.1, 2.8, 5.]).unwrap();
    let lowest = if modality == Modality::Ct { -350 } else { 0 };
    let value = |i: usize| match i / AREA {
        2 => 33,
        z => ((i * 7919) % 500) as i16 + lowest + ((i % 20) as i16 - 10).abs() * 20 + z as i16 * 8,
    };
    let raw: Vec<i16> = (0..depth * AREA).map(value).collect();
    write_image(path, &geometry, &raw).unwrap();
    raw
}

/// The label map by the contract's intake and weights, the reference network and sums in i64.
fn expected(exported: &Exported, raw: &[i16], tiling: Tiling, modality: Modality) -> Vec<u8> {
    let (spec, file) = (&exported.spec, ModelFile::read(exported.int8.as_ref().unwrap()));
    let (slices, depth, classes) = (raw.len() / AREA, spec.net.input.size[0], spec.labels.classes());
    let area = spec.grid.height * spec.grid.width;
    let plane = Geometry::from_codes("LPS", [20, 18, slices], [3.1, 2.8, 5.]).unwrap().plane();
    let mut intake = Intake::new(modality, spec.intensity, plane, spec.grid).unwrap();
    let mut usable = vec![];
    let mut codes = vec![i8::MIN; slices * area];
    for (raw, codes) in raw.chunks_exact(AREA).zip(codes.chunks_exact_mut(area)) {
        usable.push(intake.codes(raw, codes).is_ok());
    }
    let mut sums = vec![0i64; classes * slices * area];
    let tiles = Tiles::new(slices, depth, tiling);
    for tile in 0..tiles.count() {
        let image: Vec<i8> = tiles.shown(tile).flat_map(|z| codes[z * area..][..area].to_vec()).collect();
        let logits = reference::int8::logits(&file, modality, &image).unwrap().values.data;
        for (at, &logit) in logits.iter().enumerate() {
            let (class, plane, pixel) = (at / area / depth, at / area % depth, at % area);
            let slice = tiles.shown(tile).nth(plane).unwrap();
            sums[(class * slices + slice) * area + pixel] += i64::from(tiles.weight(tile, plane)) * i64::from(logit);
        }
    }
    let mut out = vec![0; raw.len()];
    for z in (0..slices).filter(|&z| usable[z]) {
        let of = |class: usize, pixel: usize| sums[(class * slices + z) * area + pixel];
        let best =
            |pixel| (1..classes).fold(0, |best, class| if of(class, pixel) > of(best, pixel) { class } else { best });
        let labels: Vec<u8> = (0..area).map(|pixel| best(pixel) as u8).collect();
        intake.resampler().labels_back(&labels, &mut out[z * AREA..][..AREA]);
    }
    out
}

fn check(exported: &Exported, choices: &[Choice]) {
    let folder = tempfile::tempdir().unwrap();
    let model = Model::load(exported.int8.as_ref().unwrap()).unwrap();
    for &choice in choices {
        let mut engine = Engine::with(&model, &engine::Options { choice, ..Default::default() }).unwrap();
        // Less than a tile, exactly one, and several with a remainder.
        for (depth, tiling) in [(5, Tiling::Gaussian), (8, Tiling::Flush), (19, Tiling::Gaussian), (19, Tiling::Flush)]
        {
            for modality in Modality::ALL {
                let path = folder.path().join("scan.nii.gz");
                let raw = scan(&path, modality, depth);
                let (mut told, options) = (0, Options { tiling, ..Options::default() });
                let segmented =
                    segment::volume(&model, &mut engine, modality, &path, &options, |_, _| told += 1).unwrap();
                let name = format!("{} {choice:?} {modality} {depth} {tiling:?}", exported.spec.net.name);
                assert!(segmented.classes == expected(exported, &raw, tiling, modality), "{name}");
                let report = &segmented.report;
                assert_eq!((report.segmented, report.blank, report.refused.len(), told), (depth - 1, 1, 0, depth));
                assert!(segmented.classes.iter().any(|&class| class != 0), "{name}: something to compare");

                let options = Options { largest_component: true, ..options };
                let cleaned = segment::volume(&model, &mut engine, modality, &path, &options, |_, _| ()).unwrap();
                let mut classes = segmented.classes;
                let removed = keep_largest(&mut classes, [depth, 18, 20], &exported.spec.labels);
                assert_eq!((cleaned.report.removed_voxels, cleaned.classes), (removed, classes), "{name}");
            }
        }
    }
}

#[test]
fn compact3d_labels_volumes_as_the_reference_in_both_engines() {
    check(&Exported::new(Net::compact3d(5, 2, 8, 16, 16), &Modality::ALL, 50), &[Choice::Planned, Choice::Tract]);
}

#[test]
fn unet3d_labels_volumes_as_the_reference() {
    check(&Exported::new(Net::unet3d(5, 2, 8, 16, 16), &Modality::ALL, 51), &[Choice::Auto]);
}

/// A slice that is no CT, in the middle of one: the volume is refused, or the slice is background.
#[test]
fn refused_slices_are_counted_in_3d_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("scan.nii.gz");
    let mut raw = scan(&path, Modality::Ct, 12);
    raw[5 * AREA..6 * AREA].iter_mut().for_each(|value| *value = value.abs() + 700);
    write_image(&path, &Geometry::from_codes("LPS", [20, 18, 12], [3.1, 2.8, 5.]).unwrap(), &raw).unwrap();
    let exported = Exported::new(Net::compact3d(5, 2, 8, 16, 16), &Modality::ALL, 53);
    let model = Model::load(exported.int8.as_ref().unwrap()).unwrap();
    let mut engine = Engine::new(&model).unwrap();
    let mut segment = |options| segment::volume(&model, &mut engine, Modality::Ct, &path, &options, |_, _| ());
    let error = segment(Options::default()).unwrap_err();
    assert!(matches!(error, EdgeError::Partial { refused: 1, slices: 12, first: 5, .. }), "{error}");
    let partial = segment(Options { allow_partial: true, ..Options::default() }).unwrap();
    assert_eq!((partial.report.segmented, partial.report.blank, partial.report.refused[0].slice), (10, 1, 5));
    assert!(partial.classes == expected(&exported, &raw, Tiling::Gaussian, Modality::Ct));
}

#[test]
fn networks_that_no_volume_fits_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("scan.nii.gz");
    scan(&path, Modality::Ct, 5);
    let mut net = Net::compact3d(5, 2, 8, 16, 16);
    net.input = Shape { channels: 2, ..net.input };
    let exported = Exported::new(net, &Modality::ALL, 52);
    let model = Model::load(exported.int8.as_ref().unwrap()).unwrap();
    let mut engine = Engine::new(&model).unwrap();
    let error = segment::volume(&model, &mut engine, Modality::Ct, &path, &Options::default(), |_, _| ()).unwrap_err();
    assert_eq!(error.code().name(), "E-MODEL-08");
    assert!(error.to_string().contains("one channel"), "{error}");
}
