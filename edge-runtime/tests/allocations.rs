//! The slice loop takes no memory: a slice of the planned engine costs no allocation at all, one of tract's exactly those
//! of tract's own run. Alone in its program, because the counter counts everything.

mod support;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering},
};

use contract::{Modality, Plane};
use edge_runtime::{
    Engine, Model, Segmenter,
    engine::{Choice, Options},
};
use support::Small;

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is handed to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promises are the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are the same.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn count(work: impl FnOnce()) -> usize {
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    work();
    ALLOCATIONS.load(Ordering::Relaxed) - before
}

const PLANE: Plane = Plane { height: 50, width: 40, row_mm: 1.5, column_mm: 1.5 };
const AREA: usize = 50 * 40;

/// Six slices, the fifth blank.
fn volume() -> Vec<i16> {
    let mut volume: Vec<i16> = (0..6 * AREA).map(|i| ((i * 37) % 900) as i16 - 150).collect();
    volume[4 * AREA..5 * AREA].fill(0);
    volume
}

/// A thousand slices, CT and MR in turn.
fn planned(model: &Model, threads: usize) {
    let options = Options { choice: Choice::Planned, threads, ..Options::default() };
    let mut engine = Engine::with(model, &options).unwrap();
    let mut segmenters = Modality::ALL.map(|modality| Segmenter::new(model, modality, PLANE).unwrap());
    let (volume, mut out) = (volume(), vec![0; AREA]);
    let mut slices = |count: usize| {
        for slice in 0..count {
            let segmented = segmenters[slice % 2].segment(&mut engine, &volume, slice / 2 % 6, &mut out);
            assert_eq!(segmented.is_err(), slice / 2 % 6 == 4);
        }
    };
    slices(2); // Threads take some memory when they first wait.
    assert_eq!(count(|| slices(1000)), 0, "{threads} threads");
}

fn tract(model: &Model) {
    let mut engine = Engine::with(model, &Options { choice: Choice::Tract, ..Options::default() }).unwrap();
    let (volume, mut out) = (volume(), vec![0; AREA]);
    for modality in Modality::ALL {
        let mut segmenter = Segmenter::new(model, modality, PLANE).unwrap();
        let (image, mut labels) = (vec![0; engine.image_len()], vec![0; engine.labels_len()]);
        // The first runs may fill caches inside tract.
        for _ in 0..2 {
            engine.run(&image, modality, &mut labels).unwrap();
        }
        let alone = count(|| engine.run(&image, modality, &mut labels).unwrap());
        assert!(alone > 0, "tract allocates, or this test counts nothing");
        for z in [0, 1, 2, 3, 5] {
            let whole = count(|| segmenter.segment(&mut engine, &volume, z, &mut out).unwrap());
            assert_eq!(whole, alone, "{modality}, slice {z}");
        }
        let refused = count(|| assert!(segmenter.segment(&mut engine, &volume, 4, &mut out).is_err()));
        assert_eq!(refused, 0, "{modality}, a blank slice");
    }
}

#[test]
fn a_slice_costs_the_engines_allocations_and_no_more() {
    let model = Model::parse("small.onnx".as_ref(), &Small::new(3).file()).unwrap();
    tract(&model);
    planned(&model, 1);
    planned(&model, 2);
}
