//! `gantry-train import`: a public data set as it was unpacked, into the layout that `train` reads.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, ValueEnum};
use contract::Modality;
use host_train::import::{self, LabelRules, Plan, Progress, SetSummary, Source, Split, Summary};
use indicatif::{ProgressBar, ProgressStyle};

/// Options of `import`.
#[derive(Args)]
#[command(after_help = EXAMPLE)]
pub struct Arguments {
    /// What lies in DIR
    #[arg(long, value_enum, value_name = "SOURCE")]
    from: SourceArgument,
    /// The data set as it was unpacked
    #[arg(value_name = "DIR", required_unless_present = "print_labels")]
    folder: Option<PathBuf>,
    /// Folder for the data sets that are written, one per modality
    #[arg(long, value_name = "DIR", required_unless_present = "print_labels")]
    to: Option<PathBuf>,
    /// Only this modality; default: those that are there (of chaos the MRI: its CT shows the liver only)
    #[arg(long, value_enum)]
    modality: Option<ModalityArgument>,
    /// Only cases whose name contains TEXT, like t2spir
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Which number or mask of the source is which organ: a TOML file, as --print-labels prints one to start from
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    /// Print the label rules that would be used, and do nothing else
    #[arg(long)]
    print_labels: bool,
    /// Test cases, always whole patients: own (as the source says, else none), train (none), sifa (the published ones of
    /// mm-whs, of btcv and of the MRI of chaos), kfold:K:FOLD (random)
    #[arg(long, value_name = "SPLIT", default_value = "own")]
    split: Split,
    /// Seed of kfold
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Leave out cases that cannot be used (corrupt, without labels, labels outside the rules), and name them; without
    /// this the first one stops the import
    #[arg(long)]
    skip_bad: bool,
    /// Print what was imported as JSON: cases, patients, sizes, voxels per organ, what was skipped and why
    #[arg(long)]
    json: bool,
}

const EXAMPLE: &str = "\
Examples:
  gantry-train import --from mm-whs MMWHS2017 --to data --split sifa
  gantry-train import --from btcv Abdomen --to data --split sifa
  gantry-train import --from chaos CHAOS_Train_Sets --to data --split sifa --only t2spir
  gantry-train import --from amos22 amos22 --to data
  gantry-train import --from totalsegmentator Totalsegmentator_dataset_v201 --to data
  gantry-train import --from msd Task09_Spleen --to data --labels spleen.toml --split kfold:5:0
  gantry-train import --from nnunet Dataset123_Mine --to data --split kfold:4:1 --seed 7
  gantry-train train --ct data/Dataset031_BTCVCT --mr data/Dataset022_CHAOSMR --out run
Labels of your own:
  gantry-train import --from btcv --print-labels > labels.toml
Every label must be listed, at least as background; others stop the import by name and count.";

#[derive(Clone, Copy, ValueEnum)]
enum SourceArgument {
    /// MM-WHS 2017: ct_train_1001_image.nii.gz, ct_train_1001_label.nii.gz, mr likewise
    MmWhs,
    /// CHAOS: Train_Sets with DICOM slices and PNG truth
    Chaos,
    /// BTCV (Synapse): img/img0001.nii.gz, label/label0001.nii.gz
    Btcv,
    /// AMOS 2022: imagesTr/amos_0001.nii.gz, labelsTr, imagesVa, labelsVa
    Amos22,
    /// TotalSegmentator v2: s0001/ct.nii.gz or mri.nii.gz, one mask per organ
    #[value(name = "totalsegmentator")]
    TotalSegmentator,
    /// Medical Segmentation Decathlon: a task's folder
    Msd,
    /// nnU-Net raw, dataset.json of version 1 or 2
    #[value(name = "nnunet")]
    NnUnet,
}

#[derive(Clone, Copy, ValueEnum)]
enum ModalityArgument {
    /// Computed tomography
    Ct,
    /// Magnetic resonance imaging
    Mr,
}

/// Imports, or prints label rules.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let source = Source::from(arguments.from);
    if arguments.print_labels {
        print!("{}", source.label_text(arguments.folder.as_deref())?);
        return Ok(());
    }
    let plan = Plan {
        source,
        from: arguments.folder.clone().context("DIR is missing")?,
        to: arguments.to.clone().context("--to is missing")?,
        modality: arguments.modality.map(Modality::from),
        only: arguments.only.clone(),
        labels: arguments.labels.as_deref().map(LabelRules::read).transpose()?,
        split: arguments.split,
        seed: arguments.seed,
        skip_bad: arguments.skip_bad,
    };
    let style = ProgressStyle::with_template("{bar:24} {pos}/{len} cases, {eta} left").expect("a valid template");
    let bar = ProgressBar::new(0).with_style(style);
    let summary = import::import(&plan, &mut |progress| match progress {
        Progress::Begin(cases) => bar.set_length(cases as u64),
        Progress::Case => bar.inc(1),
    });
    bar.finish_and_clear();
    let summary = summary?;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&summary)?);
    } else {
        print(&summary);
    }
    Ok(())
}

fn print(summary: &Summary) {
    for set in &summary.sets {
        println!(
            "{}: {} training and {} test cases ({} patients), split {}",
            set.folder.display(),
            set.train.len(),
            set.test.len(),
            patients(set),
            summary.split
        );
        if !set.unlabelled.is_empty() {
            println!("  not labelled, so background in every case: {}", set.unlabelled.join(", "));
        }
        if !set.skipped.is_empty() {
            println!("  skipped {} bad cases:", set.skipped.len());
        }
        for skipped in &set.skipped {
            println!("    {}: {}", skipped.name, skipped.why);
        }
    }
}

fn patients(set: &SetSummary) -> usize {
    let mut patients: Vec<&String> = set.train.iter().chain(&set.test).map(|case| &case.patient).collect();
    patients.sort();
    patients.dedup();
    patients.len()
}

impl From<SourceArgument> for Source {
    fn from(argument: SourceArgument) -> Self {
        match argument {
            SourceArgument::MmWhs => Self::MmWhs,
            SourceArgument::Chaos => Self::Chaos,
            SourceArgument::Btcv => Self::Btcv,
            SourceArgument::Amos22 => Self::Amos22,
            SourceArgument::TotalSegmentator => Self::TotalSegmentator,
            SourceArgument::Msd => Self::Msd,
            SourceArgument::NnUnet => Self::NnUnet,
        }
    }
}

impl From<ModalityArgument> for Modality {
    fn from(argument: ModalityArgument) -> Self {
        match argument {
            ModalityArgument::Ct => Self::Ct,
            ModalityArgument::Mr => Self::Mr,
        }
    }
}
