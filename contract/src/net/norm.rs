//! Over what a norm takes its mean and variance. All kinds end in a gamma and a beta per channel.

use serde::{Deserialize, Serialize};

/// Over which values the norms of a network take their statistics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NormKind {
    /// Each channel over all images of a modality's batch (Ioffe and Szegedy 2015), as in the paper. Outside training the
    /// moving averages take their place: numbers that no image changes, so that the norm folds into its convolution.
    #[default]
    Batch,
    /// Each channel of each image (Ulyanov et al. 2016).
    Instance,
    /// Each group of neighbouring channels of each image (Wu and He 2018).
    Group(usize),
    /// All channels of each image (Ba et al. 2016), positions included.
    Layer,
}

impl NormKind {
    /// Whether it is the batch norm.
    pub fn is_batch(&self) -> bool {
        *self == Self::Batch
    }

    /// How many groups of channels have statistics of their own in each image; `None` for the batch norm.
    pub const fn groups(self, channels: usize) -> Option<usize> {
        match self {
            Self::Batch => None,
            Self::Instance => Some(channels),
            Self::Group(groups) => Some(groups),
            Self::Layer => Some(1),
        }
    }

    /// Whether its groups divide so many channels.
    pub fn fits(self, channels: usize) -> bool {
        self.groups(channels).is_none_or(|groups| groups > 0 && channels.is_multiple_of(groups))
    }
}
