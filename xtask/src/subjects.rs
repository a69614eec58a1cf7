//! Synthetic subjects: single volumes, for those who have no scan at hand and for the comparison of machines, and the data
//! sets that `gantry-train phantom` makes.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use clap::Args;
use contract::Modality;
use phantom::{Anatomy, Rendered, Subject, SubjectOptions};
use volume::Geometry;

/// Options of `cargo xtask phantom`.
#[derive(Args)]
pub struct PhantomArgs {
    /// Folder for ct.nii.gz, ct-labels.nii.gz, mr.nii.gz and mr-labels.nii.gz
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Which subjects: the same on every machine
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Runs `cargo xtask phantom`.
///
/// # Errors
/// A file cannot be written.
pub fn phantom(args: &PhantomArgs) -> Result<()> {
    fs::create_dir_all(&args.out).with_context(|| format!("cannot create {}", args.out.display()))?;
    for modality in Modality::ALL {
        let (image, labels) = (format!("{modality}.nii.gz"), format!("{modality}-labels.nii.gz"));
        let (image, labels) = (args.out.join(image), args.out.join(labels));
        write(modality, args.seed, SubjectOptions::default(), &image, Some(&labels))?;
        println!("{}\n{}", image.display(), labels.display());
    }
    Ok(())
}

/// The two data sets in a folder of `gantry-train phantom`: the CT's name ends in CT, the MRI's in MR.
///
/// # Errors
/// The folder cannot be read, or has no such data set.
pub fn data_sets(whole: &Path) -> Result<[PathBuf; 2]> {
    let mut names: Vec<PathBuf> = vec![];
    for entry in fs::read_dir(whole).with_context(|| format!("cannot read {}", whole.display()))? {
        names.push(entry?.path());
    }
    let ending = |end: &str| {
        let found = names.iter().find(|path| path.is_dir() && path.to_string_lossy().ends_with(end));
        found.cloned().with_context(|| format!("{}: no data set whose name ends in {end}", whole.display()))
    };
    Ok([ending("CT")?, ending("MR")?])
}

/// Writes one subject's scan, and its label map where asked.
///
/// # Errors
/// A file cannot be written.
pub fn write(
    modality: Modality,
    seed: u64,
    options: SubjectOptions,
    image: &Path,
    labels: Option<&Path>,
) -> Result<()> {
    let Rendered { raw, labels: truth, grid } =
        Subject::with_options(Anatomy::Abdomen, modality, seed, options).render();
    let geometry = Geometry::new(grid.dims, grid.ras())?;
    volume::write_image(image, &geometry, &geometry.to_canonical(&raw))?;
    if let Some(labels) = labels {
        volume::write_labels(labels, &geometry, &geometry.to_canonical(&truth))?;
    }
    Ok(())
}
