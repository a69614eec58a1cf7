//! Label rules: which number, grey value or mask of a source is which organ of ours. TOML, so that a person can start from
//! the built-in ones (`--print-labels`) and add what their copy of the data holds:
//!
//! ```toml
//! organs = "abdomen"        # our label map
//! unlisted = "error"        # or "background": what values mean that are not listed
//!
//! [labels]                  # [ct] and [mr] instead, where the two differ
//! 6 = "liver"
//! "111-135" = "right kidney"
//! kidney_left = "left kidney"
//! 13 = "background"
//! ```

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use contract::{LabelMap, Modality};
use serde::Deserialize;
use volume::{Dataset, LabelTable, Unlisted};

use super::ImportError;

/// Longest range of values, so that a slip of the pen does not fill the memory.
const LONGEST_RANGE: u32 = 65_536;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    organs: String,
    #[serde(default)]
    unlisted: Meaning,
    labels: Option<BTreeMap<String, String>>,
    ct: Option<BTreeMap<String, String>>,
    mr: Option<BTreeMap<String, String>>,
}

/// What a value means that is not listed.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Meaning {
    #[default]
    Error,
    Background,
}

/// The rules of a source.
#[derive(Debug)]
pub struct LabelRules {
    path: PathBuf,
    file: File,
    organs: LabelMap,
}

impl LabelRules {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self, ImportError> {
        let text = fs::read_to_string(path).map_err(|error| ImportError::io(path, error))?;
        Self::parse(path, &text)
    }

    /// Parses the text of `path`.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ImportError> {
        let at_path = |message| ImportError::Labels { path: path.into(), message };
        let file: File = toml::from_str(text).map_err(|error| at_path(error.to_string()))?;
        let organs = label_map(&file.organs).ok_or_else(|| {
            at_path(format!("organs = \"{}\": expected one of {}", file.organs, LABEL_MAPS.join(", ")))
        })?;
        Ok(Self { path: path.into(), file, organs })
    }

    /// The label map that the data set is written with.
    pub fn organs(&self) -> &LabelMap {
        &self.organs
    }

    /// Organs of the label map that no rule of a modality leads to: they are background in what is written.
    pub fn unlabelled(&self, modality: Modality) -> Result<Vec<String>, ImportError> {
        let named: Vec<u8> = self.pairs(modality)?.into_iter().map(|(_, class)| class).collect();
        let missing = self.organs.organs().filter(|(class, _)| !named.contains(class));
        Ok(missing.map(|(_, label)| label.name.clone()).collect())
    }

    /// Numbers or grey values to classes.
    pub fn table(&self, modality: Modality) -> Result<LabelTable, ImportError> {
        let mut values: BTreeMap<u32, (u8, &str)> = BTreeMap::new();
        for (key, class) in self.pairs(modality)? {
            let (low, high) = range(key).ok_or_else(|| {
                self.wrong(format!(
                    "label '{key}': expected a number like 205 or a range like \"56-70\" for this source"
                ))
            })?;
            for value in low..=high {
                match values.insert(value, (class, key)) {
                    Some((other, first)) if other != class => {
                        return Err(
                            self.wrong(format!("value {value} is in '{first}' and in '{key}', expected it once"))
                        );
                    }
                    _ => {}
                }
            }
        }
        let unlisted = match self.file.unlisted {
            Meaning::Error => Unlisted::Refuse,
            Meaning::Background => Unlisted::Background,
        };
        Ok(LabelTable::new(values.into_iter().map(|(value, (class, _))| (value, class)), unlisted))
    }

    /// Names of masks and their classes, without those that are background.
    pub fn masks(&self, modality: Modality) -> Result<Vec<(String, u8)>, ImportError> {
        let pairs = self.pairs(modality)?;
        Ok(pairs.into_iter().filter(|(_, class)| *class != 0).map(|(name, class)| (name.to_string(), class)).collect())
    }

    fn pairs(&self, modality: Modality) -> Result<Vec<(&str, u8)>, ImportError> {
        let own = match modality {
            Modality::Ct => &self.file.ct,
            Modality::Mr => &self.file.mr,
        };
        let Some(labels) = own.as_ref().or(self.file.labels.as_ref()) else {
            return Err(self.wrong(format!("no rules for {modality}: expected a table [labels] or [{modality}]")));
        };
        let class = |(key, organ): (&'_ String, &String)| {
            let names = || self.organs.iter().map(|(_, label)| label.name.clone()).collect::<Vec<_>>().join(", ");
            let unknown = || self.wrong(format!("label '{key}' = '{organ}': expected one of {}", names()));
            self.organs.index_of(organ).ok_or_else(unknown)
        };
        labels.iter().map(|pair| Ok((pair.0.as_str(), class(pair)?))).collect()
    }

    fn wrong(&self, message: String) -> ImportError {
        ImportError::Labels { path: self.path.clone(), message }
    }
}

/// Names of our label maps.
pub const LABEL_MAPS: [&str; 2] = ["abdomen", "heart"];

/// The label map of a name.
pub fn label_map(name: &str) -> Option<LabelMap> {
    match name {
        "abdomen" => Some(LabelMap::abdomen()),
        "heart" => Some(LabelMap::heart()),
        _ => None,
    }
}

/// The first of our label maps that a data set on disk fits; the first of all if none does, for the words of the error.
pub fn label_map_of(folder: &Path) -> LabelMap {
    let maps = || LABEL_MAPS.into_iter().filter_map(label_map);
    let fitting = maps().find(|labels| Dataset::open_skipping(folder, labels).is_ok());
    fitting.or_else(|| maps().next()).unwrap_or_else(LabelMap::abdomen)
}

/// Rules that a described data set implies: its own names where they are ours, in that of our label maps that knows most of
/// them. Names that are not ours are left to the person, as lines that ask for a decision.
pub fn proposal(labels: &[(u32, String)]) -> String {
    let known = |name: &str| {
        let organs = label_map(name);
        labels
            .iter()
            .filter(|(_, label)| organs.as_ref().is_some_and(|organs| organs.index_of(label).is_some()))
            .count()
    };
    // The first of equals.
    let best = LABEL_MAPS.into_iter().rev().max_by_key(|name| known(name)).unwrap_or_default();
    let mut text = format!(
        "# From dataset.json. A line that says ??? names no organ of ours: write one, or background.\n\
                            organs = \"{best}\"\n\n[labels]\n"
    );
    let organs = label_map(best);
    for (value, name) in labels.iter().filter(|(value, _)| *value != 0) {
        let label = organs.as_ref().and_then(|organs| organs.get(organs.index_of(name)?));
        text += &format!("{value} = \"{}\" # {name}\n", label.map_or("???", |label| &label.name));
    }
    text
}

/// `7` is 7 to 7, `56-70` is 56 to 70.
fn range(key: &str) -> Option<(u32, u32)> {
    let (low, high) = key.split_once('-').unwrap_or((key, key));
    let (low, high) = (low.trim().parse().ok()?, high.trim().parse().ok()?);
    (low <= high && high - low < LONGEST_RANGE).then_some((low, high))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<LabelRules, ImportError> {
        LabelRules::parse(Path::new("my.toml"), text)
    }

    #[test]
    fn values_ranges_and_modalities_are_read() {
        let rules = parse(
            "organs = \"abdomen\"\n[labels]\n7 = \"Liver\"\n[mr]\n\"56-70\" = \"kidney_left\"\n1 = \"background\"",
        )
        .unwrap();
        let (ct, mr) = (rules.table(Modality::Ct).unwrap(), rules.table(Modality::Mr).unwrap());
        assert_eq!([0., 7., 56.].map(|value| ct.class(value)), [Some(0), Some(1), None]);
        assert_eq!(
            [0., 1., 7., 55., 56., 70., 71.].map(|value| mr.class(value)),
            [Some(0), Some(0), None, None, Some(3), Some(3), None]
        );
        assert_eq!(rules.unlabelled(Modality::Ct).unwrap(), ["right kidney", "left kidney", "spleen"]);
    }

    #[test]
    fn what_is_wrong_with_a_rule_is_named() {
        let wrong = [
            ("organs = \"brain\"\n[labels]", "organs = \"brain\": expected one of abdomen, heart"),
            ("organs = \"abdomen\"\nunlisted = \"liver\"", "line 2"),
            ("organs = \"abdomen\"\n[label]\n1 = \"liver\"", "unknown field `label`"),
            ("organs = \"abdomen\"\n[mr]\n1 = \"liver\"", "no rules for ct: expected a table [labels] or [ct]"),
            ("organs = \"abdomen\"\n[labels]\n1 = \"???\"", "label '1' = '???': expected one of background, liver"),
            ("organs = \"abdomen\"\n[labels]\n\"9-3\" = \"liver\"", "label '9-3': expected a number"),
            ("organs = \"abdomen\"\n[labels]\n\"1-9\" = \"liver\"\n5 = \"spleen\"", "value 5 is in '1-9' and in '5'"),
        ];
        for (text, words) in wrong {
            let error = parse(text).and_then(|rules| rules.table(Modality::Ct)).unwrap_err().to_string();
            assert!(error.starts_with("my.toml: ") && error.contains(words), "'{error}' should contain '{words}'");
        }
    }

    #[test]
    fn a_proposal_is_a_file_with_questions() {
        let labels = [(0, "background"), (1, "spleen"), (2, "cancer")].map(|(id, name)| (id, name.to_string()));
        let text = proposal(&labels);
        let error = parse(&text).unwrap().table(Modality::Ct).unwrap_err().to_string();
        assert!(error.contains("label '2' = '???'"), "{error}");
        let table = parse(&text.replace("???", "background")).unwrap().table(Modality::Ct).unwrap();
        assert_eq!([1., 2.].map(|value| table.class(value)), [Some(4), Some(0)]);
    }
}
