//! What a study is: one TOML file. `studies/` holds commented ones.

use std::{fs, path::Path};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

/// A study: every topology with every training-set size and every seed, and every combination of further options.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Study {
    /// What is trained on and scored.
    pub data: Data,
    /// As `gantry-train train --topology` takes them.
    pub topologies: Vec<String>,
    /// Training cases per modality; without this, all.
    #[serde(default)]
    pub cases: Vec<u32>,
    /// Of weights, sampling and the draw of training cases.
    pub seeds: Vec<u64>,
    /// What the others are compared with: a topology, or the full name of an arm (`ummkd kd-weight=0.5`).
    pub baseline: String,
    /// Further arguments of every training.
    #[serde(default)]
    pub train: Vec<String>,
    /// Further arguments of every `gantry-train eval`.
    #[serde(default)]
    pub eval: Vec<String>,
    /// Options of `train` with more than one value: all combinations are run.
    #[serde(default)]
    pub options: std::collections::BTreeMap<String, Vec<String>>,
}

/// Where scans come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
pub enum Data {
    /// `gantry-train phantom` with these arguments; it gets its `--out` from the study.
    Phantom {
        /// E.g. `["--train", "12", "--test", "8"]`.
        phantom: Vec<String>,
    },
    /// Two data sets in nnU-Net's raw layout.
    Folders {
        /// CT; relative to the folder that the study is started in.
        ct: std::path::PathBuf,
        /// MRI.
        mr: std::path::PathBuf,
    },
}

/// One training and its scores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Topology and further options: what is compared.
    pub arm: Arm,
    /// Training cases per modality; all if `None`.
    pub cases: Option<u32>,
    /// Seed.
    pub seed: u64,
}

/// What is compared with what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arm {
    /// Of `--topology`.
    pub topology: String,
    /// Values of [`Study::options`].
    pub options: Vec<(String, String)>,
}

impl Arm {
    /// Shown in tables: topology, then `option=value`.
    pub fn name(&self) -> String {
        let options = self.options.iter().map(|(name, value)| format!("{name}={value}"));
        std::iter::once(self.topology.clone()).chain(options).collect::<Vec<_>>().join(" ")
    }
}

impl Run {
    /// Name of its folder.
    pub fn name(&self) -> String {
        let options: String = self.arm.options.iter().map(|(name, value)| format!("-{name}={value}")).collect();
        format!("{}-n{}-s{}{options}", self.arm.topology, size(self.cases), self.seed)
    }

    /// Arguments of `gantry-train train` besides folders.
    pub fn training(&self, study: &Study) -> Vec<String> {
        let mut arguments = study.train.clone();
        arguments.extend(["--topology".into(), self.arm.topology.clone(), "--seed".into(), self.seed.to_string()]);
        if let Some(cases) = self.cases {
            arguments.extend(["--cases".into(), cases.to_string()]);
        }
        for (name, value) in &self.arm.options {
            arguments.extend([format!("--{name}"), value.clone()]);
        }
        arguments
    }
}

/// A training-set size in names and tables.
pub fn size(cases: Option<u32>) -> String {
    cases.map_or("all".into(), |cases| cases.to_string())
}

impl Study {
    /// Reads and checks a study.
    ///
    /// # Errors
    /// The file cannot be read, is not a study, or contradicts itself.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("{}: cannot be read", path.display()))?;
        Self::parse(&text).with_context(|| format!("{}: not a study; see studies/phantom-small.toml", path.display()))
    }

    fn parse(text: &str) -> Result<Self> {
        let study: Self = toml::from_str(text)?;
        distinct("topologies", &study.topologies)?;
        distinct("seeds", &study.seeds)?;
        ensure!(!study.topologies.is_empty(), "topologies: none, expected at least 1");
        ensure!(!study.seeds.is_empty(), "seeds: none, expected at least 1");
        distinct("cases", &study.cases)?;
        for (name, values) in &study.options {
            ensure!(!values.is_empty(), "options.{name}: no values, expected at least 1");
            distinct(&format!("options.{name}"), values)?;
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        for word in
            study.topologies.iter().chain(study.options.iter().flat_map(|(name, values)| values.iter().chain([name])))
        {
            ensure!(
                !word.is_empty() && word.chars().all(plain),
                "'{word}': expected letters, digits, '-', '_' and '.': it names a folder"
            );
        }
        let set = ["--topology", "--seed", "--cases", "--ct", "--mr", "--out", "--resume"];
        if let Some(word) = study.train.iter().find(|word| set.contains(&word.split('=').next().unwrap_or(word))) {
            bail!("train: {word} is set by the study itself; take it out (topologies, seeds, cases, data)");
        }
        if !study.arms().iter().any(|arm| study.baseline == arm.name() || study.baseline == arm.topology) {
            let names: Vec<String> = study.arms().iter().map(Arm::name).collect();
            bail!("baseline '{}': expected one of {}", study.baseline, names.join(", "));
        }
        Ok(study)
    }

    /// Everything that is compared, in order of the file.
    pub fn arms(&self) -> Vec<Arm> {
        let mut arms: Vec<Arm> =
            self.topologies.iter().map(|topology| Arm { topology: topology.clone(), options: vec![] }).collect();
        for (name, values) in &self.options {
            let with = |arm: &Arm, value: &String| {
                let options = [arm.options.as_slice(), &[(name.clone(), value.clone())]].concat();
                Arm { topology: arm.topology.clone(), options }
            };
            arms = arms.iter().flat_map(|arm| values.iter().map(move |value| with(arm, value))).collect();
        }
        arms
    }

    /// Training-set sizes.
    pub fn sizes(&self) -> Vec<Option<u32>> {
        if self.cases.is_empty() { vec![None] } else { self.cases.iter().copied().map(Some).collect() }
    }

    /// All runs: seed by seed, so that a study that is stopped early has whole comparisons of few seeds.
    pub fn runs(&self) -> Vec<Run> {
        let mut runs = vec![];
        for &seed in &self.seeds {
            for cases in self.sizes() {
                runs.extend(self.arms().into_iter().map(|arm| Run { arm, cases, seed }));
            }
        }
        runs
    }

    /// What `arm` is compared with: the arm called `baseline`, or the topology of that name with the same options.
    pub fn baseline_of(&self, arm: &Arm) -> Option<Arm> {
        let arms = self.arms();
        let named = arms.iter().find(|other| other.name() == self.baseline);
        let found =
            named.or_else(|| arms.iter().find(|other| other.topology == self.baseline && other.options == arm.options));
        found.filter(|other| *other != arm).cloned()
    }
}

fn distinct<T: PartialEq + std::fmt::Debug>(name: &str, values: &[T]) -> Result<()> {
    for (at, value) in values.iter().enumerate() {
        ensure!(!values[..at].contains(value), "{name}: {value:?} stands there twice");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const STUDY: &str = "topologies = ['joint', 'ummkd']\ncases = [2, 8]\nseeds = [0, 1]\nbaseline = 'joint'\n\
        [data]\nphantom = ['--train', '8']\n[options]\nkd-weight = ['0.1', '0.5']\n";

    #[test]
    fn runs_are_all_combinations_and_their_folders_differ() {
        let study = Study::parse(STUDY).unwrap();
        let names: Vec<String> = study.runs().iter().map(Run::name).collect();
        assert_eq!(names.len(), 2 * 2 * 2 * 2);
        assert_eq!(names[1], "joint-n2-s0-kd-weight=0.5");
        distinct("names", &names).unwrap();
        let training = study.runs()[1].training(&study).join(" ");
        assert_eq!(training, "--topology joint --seed 0 --cases 2 --kd-weight 0.5");
        let arms = study.arms();
        assert_eq!(study.baseline_of(&arms[3]), Some(arms[1].clone()), "same options");
        assert_eq!(study.baseline_of(&arms[1]), None, "the baseline itself");
    }

    #[test]
    fn mistakes_are_named() {
        for (from, to, says) in [
            ("seeds = [0, 1]", "seeds = [1, 1]", "1 stands there twice"),
            ("baseline = 'joint'", "baseline = 'jonit'", "expected one of joint kd-weight=0.1"),
            ("cases", "sizes", "unknown field `sizes`"),
            ("baseline", "train = ['--seed=3']\nbaseline", "--seed=3 is set by the study itself"),
            ("'ummkd'", "'../x'", "it names a folder"),
            ("phantom =", "phantoms =", "did not match any variant"),
        ] {
            let error = format!("{:#}", Study::parse(&STUDY.replacen(from, to, 1)).unwrap_err());
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn the_studies_of_the_project_can_be_read() {
        let folder = crate::shell::root().join("studies");
        let mut count = 0;
        for entry in fs::read_dir(&folder).unwrap() {
            let study = Study::read(&entry.unwrap().path()).unwrap();
            assert!(study.seeds.len() >= 3);
            count += 1;
        }
        assert!(count > 0, "no study in {}", folder.display());
    }
}
