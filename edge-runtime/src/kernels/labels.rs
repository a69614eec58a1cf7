//! The last step: from logits to labels.

use std::{marker::PhantomData, ops::Range};

use super::{Arena, Kernels, PACK, View};

/// The channel with the largest code of each pixel, the lowest at a tie.
#[derive(Debug)]
pub struct Labels {
    kernels: Kernels,
    logits: View,
    classes: usize,
    /// Each label stands for so many pixels along each axis: an up-sampling behind the head.
    factor: [usize; 3],
}

impl Labels {
    /// From `logits`.
    pub fn new(kernels: Kernels, logits: View, classes: usize, factor: [usize; 3], words: usize) -> Self {
        assert!(logits.span().end <= words && logits.planes * PACK >= classes && (1..=256).contains(&classes));
        Self { kernels, logits, classes, factor }
    }

    /// Rows of logits, to split between threads.
    pub const fn rows(&self) -> usize {
        self.logits.rows()
    }

    /// Labels `[d, h, w]`.
    pub fn labels_len(&self) -> usize {
        (0..3).map(|axis| self.logits.size[axis] * self.factor[axis]).product()
    }

    /// The labels of some rows of logits, in all places that each stands for. Other rows may be on their way meanwhile.
    pub fn run(&self, arena: &Arena, rows: Range<usize>, out: &LabelMap<'_>) {
        let ([_, height, width], [fz, fy, fx]) = (self.logits.size, self.factor);
        let wide = width * fx;
        for row in rows {
            let (z, y) = (row / height, row % height);
            let lines = (0..fz).flat_map(|dz| (0..fy).map(move |dy| ((z * fz + dz) * height + y) * fy + dy));
            let len = (self.logits.planes - 1) * self.logits.plane + width;
            let mut lines = lines.map(|line| {
                // SAFETY: no two rows of logits stand for the same line.
                unsafe { out.part(line * wide, wide) }
            });
            let Some(first) = lines.next() else { continue };
            // SAFETY: `new` checked the view; nobody writes these logits now; the table was made on this machine.
            unsafe {
                let planes = arena.words_at(self.logits.row_at(0, row), len);
                let flip = self.kernels.flip;
                (self.kernels.moves.argmax)(planes, self.logits.plane, self.classes, flip, &mut first[..width]);
            }
            if fx > 1 {
                for x in (0..width).rev() {
                    let label = first[x];
                    first[x * fx..][..fx].fill(label);
                }
            }
            lines.for_each(|line| line.copy_from_slice(first));
        }
    }

    /// Logit codes `[classes, d, h, w]`.
    pub fn logits(&self, arena: &Arena, out: &mut Vec<i8>) {
        out.clear();
        let size: [usize; 3] = std::array::from_fn(|axis| self.logits.size[axis] * self.factor[axis]);
        for class in 0..self.classes {
            for row in 0..size[0] * size[1] {
                let (z, y) = (row / size[1] / self.factor[0], row % size[1] / self.factor[1]);
                let at = self.logits.row_at(class / PACK, z * self.logits.size[1] + y);
                // SAFETY: `new` checked the view; nobody writes logits now.
                let words = unsafe { arena.words_at(at, self.logits.size[2]) };
                let code = |word: &u32| (word.to_le_bytes()[class % PACK] ^ self.kernels.flip) as i8;
                out.extend(words.iter().flat_map(|word| std::iter::repeat_n(code(word), self.factor[2])));
            }
        }
    }
}

/// A label map that several threads fill, each its own lines.
pub struct LabelMap<'a> {
    base: *mut u8,
    len: usize,
    _labels: PhantomData<&'a mut [u8]>,
}

// SAFETY: whoever takes parts promises that they are disjoint.
unsafe impl Sync for LabelMap<'_> {}

impl<'a> LabelMap<'a> {
    /// Over labels.
    pub const fn new(labels: &'a mut [u8]) -> Self {
        Self { base: labels.as_mut_ptr(), len: labels.len(), _labels: PhantomData }
    }

    /// Labels to write.
    ///
    /// # Safety
    /// Nobody else has any of them while the slice lives.
    unsafe fn part(&self, at: usize, len: usize) -> &'a mut [u8] {
        assert!(at.checked_add(len).is_some_and(|end| end <= self.len));
        // SAFETY: in bounds; the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.base.add(at), len) }
    }
}
