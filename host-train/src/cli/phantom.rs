//! `gantry-train phantom`: data sets of synthetic patients, so that everything can be tried without anybody's scans.

use std::{
    fs,
    num::NonZero,
    path::{Path, PathBuf},
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
};

use anyhow::Context;
use clap::{Args, ValueEnum};
use contract::Modality;
use indicatif::{ProgressBar, ProgressStyle};
use phantom::{Anatomy, Rendered, Subject, SubjectOptions};
use volume::{DatasetWriter, Geometry, Split, VolumeError, dataset};

/// Options of `phantom`.
#[derive(Args)]
#[command(after_help = "Example:
  gantry-train phantom --out data --train 12 --test 4
  gantry-train phantom --out data --anatomy heart
The first makes data/Dataset001_PhantomCT and data/Dataset002_PhantomMR, the second Dataset003_PhantomHeartCT and
Dataset004_PhantomHeartMR beside them: train on these with --task heart.")]
pub struct Arguments {
    /// Folder for both data sets
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Training patients per modality
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    train: u16,
    /// Test patients per modality
    #[arg(long, value_name = "N", default_value_t = 4)]
    test: u16,
    /// Seed: the same patients on every machine
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u32,
    /// Part of the body
    #[arg(long, value_enum, default_value = "abdomen")]
    anatomy: AnatomyArgument,
    /// Make pixels this many times larger and slices this many times thicker, for quick trials
    #[arg(long, value_name = "FACTOR", default_value_t = 1., value_parser = parse_factor)]
    coarser: f32,
}

#[derive(Clone, Copy, ValueEnum)]
enum AnatomyArgument {
    /// Liver, kidneys and spleen: portal-venous CT and T2-weighted MRI
    Abdomen,
    /// Left ventricle, its myocardium, left atrium and ascending aorta: CT angiography and balanced steady-state MRI
    Heart,
}

impl From<AnatomyArgument> for Anatomy {
    fn from(argument: AnatomyArgument) -> Self {
        match argument {
            AnatomyArgument::Abdomen => Self::Abdomen,
            AnatomyArgument::Heart => Self::Heart,
        }
    }
}

/// Folders of the CT and the MRI data set.
fn folders(anatomy: Anatomy) -> [(Modality, &'static str); 2] {
    match anatomy {
        Anatomy::Abdomen => [(Modality::Ct, "Dataset001_PhantomCT"), (Modality::Mr, "Dataset002_PhantomMR")],
        Anatomy::Heart => [(Modality::Ct, "Dataset003_PhantomHeartCT"), (Modality::Mr, "Dataset004_PhantomHeartMR")],
    }
}

fn parse_factor(text: &str) -> Result<f32, String> {
    match text.parse() {
        Ok(factor) if (1. ..=8.).contains(&factor) => Ok(factor),
        _ => Err("expected a number from 1 to 8".into()),
    }
}

/// Makes both data sets.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let style = ProgressStyle::with_template("{bar:24} {pos}/{len} patients, {eta} left").expect("a valid template");
    let patients = usize::from(arguments.train) + usize::from(arguments.test);
    let bar = ProgressBar::new(2 * patients as u64).with_style(style);
    for (modality, name) in folders(arguments.anatomy.into()) {
        let folder = arguments.out.join(name);
        make(arguments, modality, &folder, patients, &bar)?;
        bar.suspend(|| println!("{}", folder.display()));
    }
    bar.finish_and_clear();
    Ok(())
}

fn make(
    arguments: &Arguments,
    modality: Modality,
    folder: &Path,
    patients: usize,
    bar: &ProgressBar,
) -> anyhow::Result<()> {
    // Cases of an earlier run would be counted with these.
    let description = folder.join(dataset::DESCRIPTION);
    anyhow::ensure!(!description.exists(), "{}: exists already, expected a new --out", description.display());
    fs::create_dir_all(folder).with_context(|| format!("{}", folder.display()))?;
    let anatomy = Anatomy::from(arguments.anatomy);
    let mut writer = DatasetWriter::create(folder, modality, &anatomy.labels())?;
    let options = SubjectOptions { coarser_pixels: arguments.coarser, thicker_slices: arguments.coarser };
    // No two patients of any modality share a seed, and a smaller data set is the beginning of a larger one.
    let seed = |index: usize| (u64::from(arguments.seed) << 32) + 2 * index as u64 + modality.index() as u64;
    let render = |index| Subject::with_options(anatomy, modality, seed(index), options).render();
    render_all(patients, &render, &mut |index, rendered| {
        // Test patients come first, so that more training patients leave them as they are.
        let split = if index < usize::from(arguments.test) { Split::Test } else { Split::Train };
        write(&mut writer, split, &format!("{}_{modality}_{index:04}", anatomy.name()), &rendered)?;
        bar.inc(1);
        Ok(())
    })?;
    writer.finish()?;
    Ok(())
}

fn write(writer: &mut DatasetWriter, split: Split, name: &str, rendered: &Rendered) -> anyhow::Result<()> {
    let geometry =
        Geometry::new(rendered.grid.dims, rendered.grid.ras()).map_err(|fault| VolumeError::new(name, fault))?;
    let (raw, labels) = (geometry.to_canonical(&rendered.raw), geometry.to_canonical(&rendered.labels));
    Ok(writer.add(split, name, &geometry, &raw, &labels)?)
}

/// Renders `count` patients on all cores, and hands them on as they are done.
fn render_all(
    count: usize,
    render: &(impl Fn(usize) -> Rendered + Sync),
    hand_on: &mut dyn FnMut(usize, Rendered) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let next = AtomicUsize::new(0);
    let workers = thread::available_parallelism().map_or(1, NonZero::get).min(count);
    thread::scope(|scope| {
        // No room to wait in: at most one finished patient per worker is in memory.
        let (sender, done) = mpsc::sync_channel(0);
        for _ in 0..workers {
            let (sender, next) = (sender.clone(), &next);
            scope.spawn(move || {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    // A receiver that is gone met an error.
                    if index >= count || sender.send((index, render(index))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        done.into_iter().try_for_each(|(index, rendered)| hand_on(index, rendered))
    })
}
