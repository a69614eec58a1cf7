//! Options of `train` for the intensity rule, as `fingerprint` proposes them.

use clap::Args;
use contract::{Intensity, Rule};

/// How raw values become codes.
#[derive(Args)]
pub struct IntensityArguments {
    /// CT values that the network tells apart, HU; default: those of the organs in question
    #[arg(long, allow_hyphen_values = true, value_name = "LOW,HIGH",  value_parser = parse_window, help_heading = "Network")]
    ct_window: Option<Rule>,
    /// Percentiles of each MRI slice that the network tells apart; default: 0.5,99.5
    #[arg(long, allow_hyphen_values = true, value_name = "LOW,HIGH",  value_parser = parse_percentiles, help_heading = "Network")]
    mr_percentiles: Option<Rule>,
}

impl IntensityArguments {
    /// `usual`, but for what is asked for.
    pub fn over(&self, usual: Intensity) -> Intensity {
        Intensity { ct: self.ct_window.unwrap_or(usual.ct), mr: self.mr_percentiles.unwrap_or(usual.mr), ..usual }
    }
}

fn parse_window(text: &str) -> Result<Rule, String> {
    let wrong = || "expected two rising whole numbers in HU like -160,240".to_string();
    let (low, high) = text.split_once(',').ok_or_else(wrong)?;
    match (low.trim().parse(), high.trim().parse()) {
        (Ok(low), Ok(high)) if low < high => Ok(Rule::Window { low, high }),
        _ => Err(wrong()),
    }
}

fn parse_percentiles(text: &str) -> Result<Rule, String> {
    let wrong = || "expected two rising percentiles of 0 to 100 with at most two decimals like 0.5,99.5".to_string();
    let (low, high) = text.split_once(',').ok_or_else(wrong)?;
    let hundredths = |text: &str| {
        let value = text.trim().parse::<f64>().ok()? * 100.;
        let near = value.round();
        ((0. ..=10_000.).contains(&near) && (value - near).abs() < 1e-6).then_some(near as u16)
    };
    match (hundredths(low), hundredths(high)) {
        (Some(low), Some(high)) if low < high => Ok(Rule::SlicePercentile { low, high }),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_and_percentiles_rise() {
        assert_eq!(parse_window("-160, 240"), Ok(Rule::Window { low: -160, high: 240 }));
        assert_eq!(parse_percentiles("0.5,99.95"), Ok(Rule::SlicePercentile { low: 50, high: 9995 }));
        for text in ["", "1", "5,5", "240,-160", "a,b", "0,40000", "0.5,9"] {
            assert!(parse_window(text).is_err(), "{text}");
        }
        for text in ["", "1", "5,5", "99,1", "a,b", "-1,50", "1,101", "0.001,50", "NaN,5"] {
            assert!(parse_percentiles(text).is_err(), "{text}");
        }
    }
}
