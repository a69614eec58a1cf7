//! What is asked of a quantisation: how ranges are found, and what is done to the network before and behind that.

use std::{fmt, str::FromStr};

use crate::histogram::Method;

/// How the range of each value is found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Calibration {
    /// By one method.
    Fixed(Method),
    /// By the one of [`Self::CANDIDATES`] whose label maps are best (see [`crate::choose`]).
    Auto,
}

impl Calibration {
    /// What `auto` tries; of equals the first wins.
    pub const CANDIDATES: [Method; 4] =
        [Method::MinMax, Method::Percentile(99.99), Method::Percentile(99.9), Method::Mse];

    /// The methods to try.
    pub fn methods(self) -> Vec<Method> {
        match self {
            Self::Fixed(method) => vec![method],
            Self::Auto => Self::CANDIDATES.to_vec(),
        }
    }
}

impl FromStr for Calibration {
    type Err = String;

    /// `auto`, or a [`Method`].
    fn from_str(text: &str) -> Result<Self, String> {
        if text == "auto" { Ok(Self::Auto) } else { text.parse().map(Self::Fixed) }
    }
}

impl fmt::Display for Calibration {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Fixed(method) => method.fmt(f),
            Self::Auto => f.write_str("auto"),
        }
    }
}

/// A whole quantisation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Recipe {
    /// How the range of each value is found.
    pub calibration: Calibration,
    /// Whether biases make up for the mean error of int8 ([`crate::correct`]).
    pub bias_correction: bool,
    /// Whether the channels of a value are brought to like ranges first ([`crate::equalise`]).
    pub equalise: bool,
}

impl From<Method> for Recipe {
    /// Ranges by one method, and nothing else.
    fn from(method: Method) -> Self {
        Self { calibration: Calibration::Fixed(method), bias_correction: false, equalise: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_stands_beside_the_methods() {
        assert_eq!("auto".parse(), Ok(Calibration::Auto));
        assert_eq!("mse".parse(), Ok(Calibration::Fixed(Method::Mse)));
        assert!("auto=3".parse::<Calibration>().is_err());
        for calibration in [Calibration::Auto, Calibration::Fixed(Method::Percentile(99.9))] {
            assert_eq!(calibration.to_string().parse(), Ok(calibration));
        }
    }
}
