//! From the paths that were typed to pairs of input and output, with every contradiction found before the first slice.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use edge_runtime::EdgeError;

use super::SegmentArgs;

/// One volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Scan.
    pub input: PathBuf,
    /// Label map.
    pub output: PathBuf,
    /// Picture.
    pub overlay: Option<PathBuf>,
}

/// Pairs inputs with outputs, and makes the output folders.
pub fn plan(args: &SegmentArgs) -> Result<Vec<Job>, EdgeError> {
    let mut inputs = vec![];
    for input in &args.inputs {
        match input.is_dir() {
            true => inputs.extend(volumes(input)?),
            false => inputs.push(input.clone()),
        }
    }
    let folder = args.inputs.len() > 1 || args.inputs[0].is_dir() || args.out.is_dir();
    let jobs = if folder {
        make_folder(&args.out)?;
        args.overlay.iter().try_for_each(|overlay| make_folder(overlay))?;
        inputs.into_iter().map(|input| in_folder(args, input)).collect::<Result<Vec<_>, _>>()?
    } else {
        let output = args.out.clone();
        if stem(&output).is_none() {
            return Err(usage(format!(
                "--out {}: expected a name that ends in .nii or .nii.gz, or a folder",
                output.display()
            )));
        }
        inputs.into_iter().map(|input| Job { input, output: output.clone(), overlay: args.overlay.clone() }).collect()
    };
    check(&jobs)?;
    Ok(jobs)
}

/// Volumes of a folder, by name.
fn volumes(folder: &Path) -> Result<Vec<PathBuf>, EdgeError> {
    let unreadable = |error: std::io::Error| usage(format!("{}: {error}", folder.display()));
    let mut volumes = vec![];
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.is_file() && stem(&path).is_some() {
            volumes.push(path);
        }
    }
    volumes.sort();
    match volumes.is_empty() {
        true => Err(usage(format!("{}: no .nii or .nii.gz file in the folder", folder.display()))),
        false => Ok(volumes),
    }
}

fn in_folder(args: &SegmentArgs, input: PathBuf) -> Result<Job, EdgeError> {
    let name = case(&input).ok_or_else(|| usage(format!("{}: expected a .nii or .nii.gz file", input.display())))?;
    let output = args.out.join(format!("{name}.nii.gz"));
    let overlay = args.overlay.as_ref().map(|folder| folder.join(format!("{name}.png")));
    Ok(Job { input, output, overlay })
}

/// No output may be written twice, or over an input.
fn check(jobs: &[Job]) -> Result<(), EdgeError> {
    let mut writers = BTreeMap::new();
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    let inputs: Vec<PathBuf> = jobs.iter().map(|job| real(&job.input)).collect();
    for job in jobs {
        for path in [Some(&job.output), job.overlay.as_ref()].into_iter().flatten() {
            if let Some(other) = writers.insert(path.clone(), &job.input) {
                let (path, other, input) = (path.display(), other.display(), job.input.display());
                return Err(usage(format!("{path} would be written twice, for {other} and for {input}")));
            }
            if inputs.contains(&real(path)) {
                return Err(usage(format!("{} is an input: expected another name for the output", path.display())));
            }
        }
    }
    Ok(())
}

fn make_folder(folder: &Path) -> Result<(), EdgeError> {
    std::fs::create_dir_all(folder).map_err(|source| EdgeError::Output { path: folder.to_path_buf(), source })
}

/// The case that a volume is of: its name without the channel number of nnU-Net's layout, as that names label maps.
fn case(path: &Path) -> Option<&str> {
    stem(path).map(|stem| stem.strip_suffix("_0000").filter(|case| !case.is_empty()).unwrap_or(stem))
}

/// The name of a volume without `.nii` or `.nii.gz`.
fn stem(path: &Path) -> Option<&str> {
    let name = path.file_name()?.to_str()?;
    name.strip_suffix(".nii.gz").or_else(|| name.strip_suffix(".nii")).filter(|stem| !stem.is_empty())
}

fn usage(message: String) -> EdgeError {
    EdgeError::Usage(message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{EngineArgs, EngineName};

    fn args(inputs: &[PathBuf], out: &Path) -> SegmentArgs {
        SegmentArgs {
            model: "model.onnx".into(),
            modality: contract::Modality::Ct,
            inputs: inputs.to_vec(),
            engine: EngineArgs { engine: EngineName::Auto, kernel: None, max_arena_mb: 256, threads: 1, cores: vec![] },
            out: out.to_path_buf(),
            overlay: None,
            allow_partial: false,
            tiling: crate::cli::TilingName::Gaussian,
            largest_component: false,
            json: false,
        }
    }

    #[test]
    fn a_folder_becomes_a_job_per_volume() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b_0000.nii.gz", "a.nii", "notes.txt"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let out = folder.path().join("out");
        let jobs = plan(&args(&[folder.path().to_path_buf()], &out)).unwrap();
        let outputs: Vec<_> = jobs.iter().map(|job| job.output.clone()).collect();
        assert_eq!(outputs, [out.join("a.nii.gz"), out.join("b.nii.gz")]);
        assert!(out.is_dir());
    }

    #[test]
    fn outputs_that_collide_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("a.nii"), "").unwrap();
        let refused = |inputs: &[&str], out: &str, words: &str| {
            let inputs: Vec<PathBuf> = inputs.iter().map(|name| path(name)).collect();
            let message = plan(&args(&inputs, &path(out))).unwrap_err().to_string();
            assert!(message.contains(words), "'{message}' should contain '{words}'");
        };
        refused(&["a.nii", "x/a.nii.gz"], "out", "written twice");
        refused(&["a.nii"], "a.nii", "is an input");
        refused(&["a.nii"], "labels.png", "ends in .nii");
        refused(&["a.nii", "b.dcm"], "out", ".nii or .nii.gz file");
        std::fs::create_dir(path("empty")).unwrap();
        refused(&["empty"], "out", "no .nii");
    }
}
