//! A label map as runs: an open series keeps all of its label maps in memory, and organs are made of long runs.

/// Runs of one class, in reading order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Runs(Vec<(u32, u8)>);

impl Runs {
    /// Of one label per pixel.
    pub fn new(labels: &[u8]) -> Self {
        let runs = labels.chunk_by(|a, b| a == b).map(|run| (run.len() as u32, run[0]));
        let mut runs: Vec<_> = runs.collect();
        runs.shrink_to_fit();
        Self(runs)
    }

    /// One label per pixel.
    pub fn labels(&self) -> Vec<u8> {
        self.0.iter().flat_map(|&(length, class)| std::iter::repeat_n(class, length as usize)).collect()
    }

    /// Pixels of each class.
    pub fn counts(&self) -> [u64; 256] {
        let mut counts = [0; 256];
        self.0.iter().for_each(|&(length, class)| counts[usize::from(class)] += u64::from(length));
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::Runs;

    #[test]
    fn runs_give_the_labels_back() {
        for labels in [&[][..], &[0; 5], &[0, 0, 3, 3, 3, 0, 4]] {
            assert_eq!(Runs::new(labels).labels(), labels);
        }
        assert_eq!(Runs::new(&[0, 3, 3, 0]).counts()[..4], [2, 0, 0, 2]);
    }
}
