//! Options of `train` about norms and about quirks of the released code, and whether they make sense together.

use anyhow::{bail, ensure};
use clap::{Args, ValueEnum};
use contract::{Net, net::NormKind};
use host_train::{net::Norms, quirk::Quirk, topology::Topology};

/// Groups of a group norm unless somebody says otherwise.
const GROUPS: u16 = 4;

/// What about a network is neither its family nor its size.
#[derive(Args)]
pub struct FormArguments {
    /// Over what norms take mean and variance; only batch norms fold into convolutions, and only they can be exported
    #[arg(long, value_enum, default_value = "batch", help_heading = "Network")]
    norm: NormArgument,
    /// Groups of channels of --norm group, each with its own mean; a divisor of every layer's channels; default: 4
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..), help_heading = "Network")]
    channel_groups: Option<u16>,
    /// Whether CT and MRI share the norms of the layers that they share; default: as the topology says
    #[arg(long, value_enum, help_heading = "Network")]
    norm_sharing: Option<SharingArgument>,
    /// Do as the authors' released code does in this respect; may be given several times
    #[arg(long, value_enum, value_name = "NAME", help_heading = "Network")]
    quirk: Vec<Quirk>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum NormArgument {
    /// Each channel over the batch; moving averages outside training
    Batch,
    /// Each channel of each image
    Instance,
    /// Each group of channels of each image
    Group,
    /// All channels of each image together
    Layer,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SharingArgument {
    /// One set for both
    Shared,
    /// A set each
    Own,
}

impl FormArguments {
    /// Whether a quirk is asked for.
    pub fn has(&self, quirk: Quirk) -> bool {
        self.quirk.contains(&quirk)
    }

    /// Which norms.
    pub fn kind(&self) -> anyhow::Result<NormKind> {
        let groups = self.channel_groups.unwrap_or(GROUPS);
        ensure!(
            self.norm == NormArgument::Group || self.channel_groups.is_none(),
            "--channel-groups {groups}: for --norm group, which alone has groups to choose"
        );
        Ok(match self.norm {
            NormArgument::Batch => NormKind::Batch,
            NormArgument::Instance => NormKind::Instance,
            NormArgument::Group => NormKind::Group(groups.into()),
            NormArgument::Layer => NormKind::Layer,
        })
    }

    /// Whose norms, where that is not what the topology has anyway.
    pub fn sharing(&self, topology: Topology) -> anyhow::Result<Option<Norms>> {
        let norms = match self.norm_sharing {
            None => return Ok(None),
            Some(SharingArgument::Shared) => Norms::Shared,
            Some(SharingArgument::Own) => Norms::PerModality,
        };
        match (topology, norms) {
            (Topology::Individual, _) => bail!("--norm-sharing: --topology individual has no layers to share"),
            (Topology::Joint, Norms::PerModality) => {
                bail!("--topology joint --norm-sharing own: that is --topology joint-msn")
            }
            (Topology::JointMsn, Norms::Shared) => {
                bail!("--topology joint-msn --norm-sharing shared: that is --topology joint")
            }
            _ => Ok((norms != topology.norms()).then_some(norms)),
        }
    }

    /// The quirks in one order, each once, if the network has what they are about.
    pub fn quirks(&self, topology: Topology, net: &Net) -> anyhow::Result<Vec<Quirk>> {
        let mut quirks = self.quirk.clone();
        quirks.sort_unstable();
        quirks.dedup();
        for quirk in &quirks {
            let name = quirk.name();
            ensure!(quirk.concerns(net), "--quirk {name}: changes nothing about {}: leave it out", net.name);
            let joint = *quirk != Quirk::JointDecay || topology == Topology::Joint;
            ensure!(joint, "--quirk {name}: for --topology joint, not {}", topology.name());
        }
        Ok(quirks)
    }
}
