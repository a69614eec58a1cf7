//! `gantry-train fingerprint`: what data sets are like, and options of `train` that suit them.

use std::{
    fmt::Write,
    path::{Path, PathBuf},
};

use anyhow::ensure;
use clap::Args;
use contract::Modality;
use host_train::{
    data::{DataError, OnBad},
    fingerprint::{self, Fingerprint, Intensities, Proposal, Spread},
    import::label_map_of,
};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

/// Options of `fingerprint`.
#[derive(Args)]
#[command(after_help = "\
Example:
  gantry-train fingerprint --ct data/Dataset031_BTCVCT --mr data/Dataset022_CHAOSMR
Training cases only. The last line holds options for `gantry-train train`.")]
pub struct Arguments {
    /// CT data set in nnU-Net's raw layout
    #[arg(long, value_name = "DIR", required_unless_present = "mr")]
    ct: Option<PathBuf>,
    /// MRI data set in nnU-Net's raw layout
    #[arg(long, value_name = "DIR")]
    mr: Option<PathBuf>,
    /// Longest side of the grid that is proposed, pixels
    #[arg(long, value_name = "PIXELS", default_value_t = 256, value_parser = clap::value_parser!(u16).range(16..))]
    side: u16,
    /// Leave out cases that cannot be used, and name them; without this the first one stops the measurement
    #[arg(long)]
    skip_bad: bool,
    /// Print all numbers as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    data: Vec<Fingerprint>,
    proposal: Proposal,
    options: String,
}

/// Measures and proposes.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let mut data = vec![];
    for (modality, folder) in [(Modality::Ct, &arguments.ct), (Modality::Mr, &arguments.mr)] {
        if let Some(folder) = folder {
            let mut bad = super::on_bad(arguments.skip_bad);
            data.push(measure(folder, modality, &mut bad)?);
            super::tell_skipped(folder, &bad);
        }
    }
    ensure!(!data.is_empty(), "no data set: expected --ct or --mr");
    let proposal = fingerprint::propose(&data, arguments.side.into());
    let report = Report { options: proposal.options(), data, proposal };
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
        return Ok(());
    }
    for print in &report.data {
        print!("{}", table(print));
    }
    println!("options for train: {}", report.options);
    Ok(())
}

/// By the first of our label maps that the data set fits.
fn measure(folder: &Path, modality: Modality, bad: &mut OnBad) -> Result<Fingerprint, DataError> {
    let labels = label_map_of(folder);
    let style = ProgressStyle::with_template("{bar:24} {pos}/{len} cases, {eta} left").expect("a valid template");
    let bar = ProgressBar::new(0).with_style(style);
    let print = fingerprint::measure(folder, modality, &labels, bad, &mut |cases| {
        bar.set_length(cases as u64);
        bar.inc(1);
    });
    bar.finish_and_clear();
    print
}

fn table(print: &Fingerprint) -> String {
    let mut text = format!("{}: {} training cases of {} patients\n", print.modality, print.cases, print.patients);
    text += "                     min     p10  median     p90     max\n";
    let mut row = |name: &str, spread: &Spread| {
        let Spread { min, p10, median, p90, max } = spread;
        let _ = writeln!(text, "  {name:16} {min:7.2} {p10:7.2} {median:7.2} {p90:7.2} {max:7.2}");
    };
    for (axis, spread) in ["x", "y", "z"].into_iter().zip(&print.size) {
        row(&format!("voxels {axis}"), spread);
    }
    for (axis, spread) in ["x", "y", "z"].into_iter().zip(&print.spacing_mm) {
        row(&format!("spacing {axis}, mm"), spread);
    }
    for (axis, spread) in ["x", "y"].into_iter().zip(&print.field_mm) {
        row(&format!("field {axis}, mm"), spread);
    }
    for (axis, spread) in ["x", "y"].into_iter().zip(&print.reach_mm) {
        row(&format!("organs to {axis}, mm"), spread);
    }
    text += "                    mean      sd    0.5%     50%   99.5%\n";
    for (name, Intensities { mean, deviation, p00_5, median, p99_5, .. }) in
        [("labelled voxels", print.foreground), ("all voxels", print.all)]
    {
        let _ = writeln!(text, "  {name:16} {mean:7.1} {deviation:7.1} {p00_5:7} {median:7} {p99_5:7}");
    }
    for (name, share) in &print.classes {
        let _ = writeln!(text, "  {name:28} {:7.3} % of voxels, in {} cases", share.percent, share.cases);
    }
    text
}
