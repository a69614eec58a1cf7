//! The slice loop takes no memory of its own: a slice costs exactly the allocations of the engine's run, and a refused
//! slice costs none. Alone in its program, because the counter counts everything.

mod support;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering},
};

use contract::{Modality, Plane};
use edge_runtime::{Engine, Model, Segmenter};
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

#[test]
fn a_slice_costs_the_engines_allocations_and_no_more() {
    let small = Small::new(3);
    let model = Model::parse("small.onnx".as_ref(), &small.file()).unwrap();
    let mut engine = Engine::new(&model).unwrap();
    let plane = Plane { height: 50, width: 40, row_mm: 1.5, column_mm: 1.5 };
    let mut volume: Vec<i16> = (0..6 * 2000).map(|i| ((i * 37) % 900) as i16 - 150).collect();
    volume[4 * 2000..5 * 2000].fill(0);
    let mut out = vec![0; 2000];
    for modality in Modality::ALL {
        let mut segmenter = Segmenter::new(&model, modality, plane).unwrap();
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
