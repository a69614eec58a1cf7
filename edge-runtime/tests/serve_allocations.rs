//! The loop of the service takes no memory: a thousand slices, CT and MR in turn, cost its thread no more allocations than
//! twenty. Alone in its program, because the counter counts everything.

mod support;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    fs,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
};

use contract::{Modality, Plane};
use edge_runtime::serve::{Config, Service, THREADS};
use support::{
    Small,
    dicom::{Axes, SliceFile},
};

struct Counting;

static IN_THE_LOOP: AtomicUsize = AtomicUsize::new(0);
static ELSEWHERE: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// Whether this thread is the loop's; asked once the thread has its name.
    static LOOP: Cell<Option<bool>> = const { Cell::new(None) };
}

fn is_the_loop() -> bool {
    LOOP.with(|known| {
        known.get().unwrap_or_else(|| {
            let mut name = [0u8; 16];
            // SAFETY: PR_GET_NAME writes at most 16 bytes with a zero at the end.
            unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) };
            let name = name.split(|&byte| byte == 0).next().unwrap_or_default();
            let found = name == b"gantry-loop";
            // A new thread allocates before it has its name; it has that of its parent until then.
            if found {
                known.set(Some(true));
            }
            found
        })
    })
}

// SAFETY: every call is handed to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let counter = if is_the_loop() { &IN_THE_LOOP } else { &ELSEWHERE };
        counter.fetch_add(1, Ordering::Relaxed);
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

/// Allocations of the loop's thread for so many rounds of twenty slices, and of all other threads.
fn allocations(rounds: usize) -> [usize; 2] {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("model.onnx"), Small::new(1).file()).unwrap();
    fs::create_dir(path("in")).unwrap();
    for number in 0..20 {
        let modality = Modality::ALL[number % 2];
        let plane = Plane { height: 50 + number % 2, width: 40, row_mm: 1.5, column_mm: 1.5 };
        let raw: Vec<i16> = (0..plane.height * 40).map(|i| ((i * 37 + number) % 900) as i16 - 150).collect();
        let series = ["1.2.3", "1.2.4"][number % 2];
        let slice = SliceFile { modality, series, z: number / 2, axes: Axes::AXIAL, plane };
        slice.write(&path(&format!("in/{number:02}.dcm")), &raw);
    }
    let text = format!(
        "model = \"model.onnx\"\nstate = \"state\"\n[[source]]\nkind = \"replay\"\npath = \"in\"\nrate = \"max\"\n\
         times = {rounds}\n[[sink]]\nkind = \"seg\"\nfolder = \"seg\"\n"
    );
    fs::write(path("gantry.toml"), text).unwrap();
    let config = path("gantry.toml");
    let service = Service::open(Config::read(&config).unwrap(), &config).unwrap();
    let before = [&IN_THE_LOOP, &ELSEWHERE].map(|counter| counter.load(Ordering::SeqCst));
    let snapshot = service.run(&AtomicBool::new(false)).unwrap();
    let after = [&IN_THE_LOOP, &ELSEWHERE].map(|counter| counter.load(Ordering::SeqCst));
    assert_eq!(snapshot.slices["ct segmented"] as usize, 10 * rounds);
    assert_eq!(snapshot.slices["mr segmented"] as usize, 10 * rounds);
    [0, 1].map(|which| after[which] - before[which])
}

#[test]
fn the_loop_takes_no_memory() {
    assert_eq!(THREADS, "gantry-");
    let [few, _] = allocations(1);
    let [many, elsewhere] = allocations(50);
    assert_eq!(many, few, "twenty slices and a thousand");
    assert!(elsewhere > 1000, "decoders allocate, or this test counts nothing");
}
