//! Three rings of boxed frames, and the bells that wake who waits for them.
//!
//! A frame goes free -> raw -> done -> free. There are never more frames than a ring has places, so putting one in cannot
//! fail; only taking one out may find nothing.

use std::{
    sync::OnceLock,
    thread::{self, Thread},
    time::Duration,
};

use heapless::spsc::{Consumer, Producer, Queue};

use super::frame::Frame;

/// Most frames in all.
pub const MOST_FRAMES: usize = 16;

/// A ring; one place more than frames, because heapless leaves one empty.
pub type Ring = Queue<Box<Frame>, { MOST_FRAMES + 1 }>;
/// Where frames are taken out.
pub type Out<'a> = Consumer<'a, Box<Frame>>;
/// Where frames are put in.
pub type In<'a> = Producer<'a, Box<Frame>>;

/// Puts a frame into a ring.
///
/// # Panics
/// Never: see the module.
pub fn put(ring: &mut In<'_>, frame: Box<Frame>) {
    assert!(ring.enqueue(frame).is_ok(), "more frames than places");
}

/// Wakes one thread. A ring before the thread waits is not lost.
#[derive(Debug, Default)]
pub struct Bell(OnceLock<Thread>);

impl Bell {
    /// The calling thread is the one to wake from now on.
    pub fn mine(&self) {
        // Only the first thread counts; a bell has one.
        let _ = self.0.set(thread::current());
    }

    /// Wakes it.
    pub fn ring(&self) {
        if let Some(thread) = self.0.get() {
            thread.unpark();
        }
    }

    /// Waits for a ring, at most so long. May return early.
    pub fn wait(&self, most: Duration) {
        thread::park_timeout(most);
    }
}
