//! The memory of one engine, taken once: words, aligned to cache lines. And where a value lies in it.

/// A cache line, so that the allocation is aligned to one.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line {
    _words: [u32; WORDS_PER_LINE],
}

/// Words of a cache line: what offsets of buffers are multiples of.
pub const WORDS_PER_LINE: usize = 16;

/// Memory that the steps of one program read and write. Which parts, the plan decides; that a step's output overlaps none
/// of its inputs is checked when the step is made.
pub struct Arena {
    /// Only reached through `base`.
    _memory: Vec<Line>,
    base: *mut u32,
    words: usize,
}

// SAFETY: the memory is owned; whoever shares it between threads promises disjoint writes (see `words_mut`).
unsafe impl Send for Arena {}
// SAFETY: as above.
unsafe impl Sync for Arena {}

impl Arena {
    /// Zeroed memory.
    pub fn new(words: usize) -> Self {
        let mut memory = vec![Line { _words: [0; WORDS_PER_LINE] }; words.div_ceil(WORDS_PER_LINE)];
        let base = memory.as_mut_ptr().cast();
        Self { _memory: memory, base, words }
    }

    /// Whole words of bytes.
    pub fn of_bytes(bytes: &[u8]) -> Self {
        let arena = Self::new(bytes.len() / 4);
        // SAFETY: nobody else has the new memory.
        let words = unsafe { arena.words_mut(0, arena.words) };
        for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(4)) {
            *word = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
        arena
    }

    /// Size.
    pub const fn words(&self) -> usize {
        self.words
    }

    /// First word.
    pub(super) const fn base(&self) -> *mut u32 {
        self.base
    }

    /// Words to read.
    ///
    /// # Safety
    /// Nobody writes them while the slice lives.
    pub(super) unsafe fn words_at(&self, at: usize, len: usize) -> &[u32] {
        assert!(at.checked_add(len).is_some_and(|end| end <= self.words));
        // SAFETY: in bounds; the caller's promise.
        unsafe { std::slice::from_raw_parts(self.base.add(at), len) }
    }

    /// Words to write.
    ///
    /// # Safety
    /// Nobody else reads or writes them while the slice lives.
    #[expect(clippy::mut_from_ref, reason = "threads write different rows of one arena")]
    pub(super) unsafe fn words_mut(&self, at: usize, len: usize) -> &mut [u32] {
        assert!(at.checked_add(len).is_some_and(|end| end <= self.words));
        // SAFETY: in bounds; the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.base.add(at), len) }
    }
}

impl std::fmt::Debug for Arena {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} words", self.words)
    }
}

/// Where a value lies: `[plane][z][y][x]` words with gaps between rows and slabs that stand for the image's surroundings.
/// The gap behind a row serves as the border before the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// Word of plane 0, pixel (0, 0, 0).
    pub origin: usize,
    /// Planes of four channels.
    pub planes: usize,
    /// Pixels, `[d, h, w]`.
    pub size: [usize; 3],
    /// Words from row to row.
    pub row: usize,
    /// Words from slab to slab.
    pub slab: usize,
    /// Words from plane to plane.
    pub plane: usize,
}

impl View {
    /// Rows of all slabs.
    pub const fn rows(&self) -> usize {
        self.size[0] * self.size[1]
    }

    /// Pixels of all planes.
    pub const fn pixels(&self) -> usize {
        self.planes * self.rows() * self.size[2]
    }

    /// First word of row `row % h` of slab `row / h`.
    pub const fn row_at(&self, plane: usize, row: usize) -> usize {
        self.origin + plane * self.plane + row / self.size[1] * self.slab + row % self.size[1] * self.row
    }

    /// The words from the first to behind the last pixel, gaps included.
    pub fn span(&self) -> std::ops::Range<usize> {
        let last = self.row_at(self.planes - 1, self.rows() - 1) + self.size[2];
        self.origin..last
    }

    /// Some of the planes.
    pub fn part(&self, planes: std::ops::Range<usize>) -> Self {
        Self { origin: self.origin + planes.start * self.plane, planes: planes.len(), ..*self }
    }

    /// Panics unless this can be written while `input` is read, in an arena of `words`.
    pub(super) fn check_against(&self, input: std::ops::Range<usize>, words: usize) {
        let output = self.span();
        assert!(output.end <= words && input.end <= words, "{output:?} and {input:?} of {words} words");
        assert!(output.end <= input.start || input.end <= output.start, "{output:?} overlaps {input:?}");
    }
}
