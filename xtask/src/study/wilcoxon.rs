//! Wilcoxon's signed-rank test of paired differences (Wilcoxon, Biometrics Bulletin 1, 1945), two-sided.
//!
//! Differences of zero are dropped, as Wilcoxon did, and counted; equal magnitudes share their mean rank. Up to
//! [`EXACT`] differences the p is exact: the distribution of the rank sum over all assignments of signs to these very
//! ranks, ties included. Beyond, the normal approximation with the variance corrected for ties, without a continuity
//! correction.

use libm::erfc;
use serde::Serialize;

/// Most differences, zeros not counted, whose p is exact.
const EXACT: usize = 50;

/// What the test says.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Wilcoxon {
    /// Differences other than zero.
    pub n: usize,
    /// Differences of zero, dropped.
    pub zeros: usize,
    /// The smaller of the two rank sums.
    pub statistic: f64,
    /// Two-sided p.
    pub p: f64,
    /// Whether p is exact.
    pub exact: bool,
}

/// Tests whether differences lie around zero; `None` if all of them are zero, or there are none.
pub fn signed_rank(differences: &[f64]) -> Option<Wilcoxon> {
    let mut kept: Vec<f64> = differences.iter().copied().filter(|&difference| difference != 0.).collect();
    kept.sort_by(|a, b| a.abs().total_cmp(&b.abs()));
    let n = kept.len();
    if n == 0 {
        return None;
    }
    let doubled = doubled_ranks(&kept);
    let plus: usize = kept.iter().zip(&doubled).filter(|(difference, _)| **difference > 0.).map(|(_, rank)| rank).sum();
    let smaller = plus.min(n * (n + 1) - plus);
    let exact = n <= EXACT;
    let p = if exact { exact_p(&doubled, smaller) } else { normal_p(&doubled, smaller) };
    Some(Wilcoxon { n, zeros: differences.len() - n, statistic: smaller as f64 / 2., p, exact })
}

/// Twice the rank of each magnitude, so that the mean ranks of ties are whole.
fn doubled_ranks(sorted: &[f64]) -> Vec<usize> {
    let mut first = 0;
    let mut ranks = vec![];
    for group in sorted.chunk_by(|a, b| a.abs() == b.abs()) {
        ranks.extend(std::iter::repeat_n(2 * first + group.len() + 1, group.len()));
        first += group.len();
    }
    ranks
}

/// Share of the 2^n assignments of signs whose rank sum is as small as `smaller` or smaller, doubled: both tails are alike.
fn exact_p(doubled: &[usize], smaller: usize) -> f64 {
    let mut ways = vec![0f64; doubled.iter().sum::<usize>() + 1];
    ways[0] = 1.;
    for &rank in doubled {
        for sum in (rank..ways.len()).rev() {
            ways[sum] += ways[sum - rank];
        }
    }
    // Counts are whole and at most 2^50: exact in f64.
    let tail: f64 = ways[..=smaller].iter().sum();
    (2. * tail / 2f64.powi(doubled.len() as i32)).min(1.)
}

fn normal_p(doubled: &[usize], smaller: usize) -> f64 {
    let squares: f64 = doubled.iter().map(|&rank| (rank as f64 / 2.).powi(2)).sum();
    let mean = doubled.iter().sum::<usize>() as f64 / 4.;
    // A sum of independent ranks that count or do not; mean ranks make it the tie-corrected variance.
    let z = (smaller as f64 / 2. - mean) / (squares / 4.).sqrt();
    erfc(z.abs() / std::f64::consts::SQRT_2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(found: Option<Wilcoxon>, statistic: f64, p: f64, exact: bool) {
        let found = found.expect("a difference");
        assert!(
            (found.statistic - statistic).abs() < 1e-12 && (found.p - p).abs() < 1e-9,
            "{found:?}: {statistic} {p}"
        );
        assert_eq!(found.exact, exact);
    }

    /// Numbers of `scipy.stats.wilcoxon`, scipy 1.17.1, `zero_method="wilcox"`.
    #[test]
    fn equals_scipy() {
        near(signed_rank(&[1., 2., 3., 4.]), 0., 0.125, true);
        let distinct = [0.02, -0.01, 0.035, 0.04, 0.005, -0.003, 0.051, 0.06];
        near(signed_rank(&distinct), 4., 0.0546875, true);
        // method=PermutationMethod(n_resamples=10**7), which is exact here.
        let ties = [1., -1., 2., 2., -3., 4., 5., 0., 0., 6., 7., -2.];
        near(signed_rank(&ties), 11.5, 0.11328125, true);
        assert_eq!(signed_rank(&ties).unwrap().zeros, 2);
        // method="approx", correction=False; one and two zeros.
        let many: Vec<f64> = (0..60).map(|i| f64::from(i * 37 % 101 - 40) / 10.).collect();
        near(signed_rank(&many), 583., 0.022_633_208_936_007_52, false);
        let many_ties: Vec<f64> = (0..60).map(|i| f64::from(i * 37 % 23 - 9)).collect();
        near(signed_rank(&many_ties), 595., 0.043_532_055_762_795_01, false);
    }

    #[test]
    fn both_directions_are_alike_and_nothing_is_not_tested() {
        let one_way = [0.3, -0.1, 0.2, 0.5, 0.25];
        assert_eq!(signed_rank(&one_way), signed_rank(&one_way.map(|difference| -difference)));
        assert_eq!(signed_rank(&[0., 0.]), None);
        assert_eq!(signed_rank(&[]), None);
        assert_eq!(signed_rank(&[0.1]).unwrap().p, 1.);
    }
}
