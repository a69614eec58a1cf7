//! Every refusal of the runtime, as a stable code with the words for it: logs, monitors and tickets name these codes, so
//! a code never changes its meaning and is never used again for another.

/// What was refused. The text of an error carries the numbers; this says which kind it is and what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Code {
    /// The model file cannot be read.
    ModelRead,
    /// The model file is no ONNX.
    ModelCorrupt,
    /// ONNX of another program.
    ModelForeign,
    /// Written for another contract.
    ModelVersion,
    /// A manifest that contradicts itself.
    ModelManifest,
    /// A graph that is not what the manifest says.
    ModelGraph,
    /// The model has no branch for the modality.
    ModelModality,
    /// A network of other images than are segmented.
    ModelSpatial,
    /// No plan can be made.
    EnginePlan,
    /// The plan failed.
    EngineRun,
    /// The values need more memory than allowed.
    EngineMemory,
    /// Wrong bits.
    SelfTestDigest,
    /// Nothing to compare with.
    SelfTestMissing,
    /// The volume cannot be used.
    Volume,
    /// Slices larger than any scanner's.
    GeometrySize,
    /// Impossible pixels.
    GeometrySpacing,
    /// A constant slice.
    SliceBlank,
    /// CT without negative values.
    SliceNotHounsfield,
    /// MR that looks like CT.
    SliceLooksHounsfield,
    /// A slice without pixels.
    SliceEmpty,
    /// Slices of the volume were refused.
    VolumePartial,
    /// The command line contradicts itself.
    Usage,
    /// A result cannot be written.
    Output,
    /// A slice's own files are left out.
    OutputBehind,
    /// The configuration cannot be used.
    ConfigBad,
    /// No DICOM, or damaged.
    DicomUnreadable,
    /// Another kind of object.
    DicomKind,
    /// An image that is no slice.
    DicomType,
    /// An element is missing.
    DicomMissing,
    /// An impossible value.
    DicomValue,
    /// Pixels of another kind.
    DicomPixels,
    /// Too many pixels.
    DicomSize,
    /// Contradicting modalities.
    DicomModality,
    /// Not an axial slice.
    GeometryAxis,
    /// An instance came twice.
    SeriesDuplicate,
    /// Two slices at one place.
    SeriesPlace,
    /// Slices that make no volume.
    SeriesUneven,
    /// Too many slices or series.
    SeriesFull,
    /// Slices of the series lack label maps.
    SeriesIncomplete,
    /// A sink that cannot take the series.
    SeriesOrigin,
    /// An instance of another patient.
    SeriesMixed,
    /// The deadline was missed.
    LateDropped,
    /// Too many slices waited.
    LateOverflow,
    /// The series failed before.
    LateFailed,
    /// A late label map was delivered.
    LateStale,
    /// The state folder cannot be written.
    StateWrite,
    /// A damaged file in the state folder.
    StateDamaged,
    /// An association was refused.
    NetAssociation,
    /// A peer broke the protocol.
    NetProtocol,
    /// A destination refused an object.
    SendRefused,
    /// The outgoing queue is full or cannot be written.
    SendQueue,
    /// The service is ending.
    Stopping,
}

impl Code {
    /// All codes, in the order of their numbers.
    pub const ALL: [Self; 52] = [
        Self::ModelRead,
        Self::ModelCorrupt,
        Self::ModelForeign,
        Self::ModelVersion,
        Self::ModelManifest,
        Self::ModelGraph,
        Self::ModelModality,
        Self::ModelSpatial,
        Self::EnginePlan,
        Self::EngineRun,
        Self::EngineMemory,
        Self::SelfTestDigest,
        Self::SelfTestMissing,
        Self::Volume,
        Self::GeometrySize,
        Self::GeometrySpacing,
        Self::SliceBlank,
        Self::SliceNotHounsfield,
        Self::SliceLooksHounsfield,
        Self::SliceEmpty,
        Self::VolumePartial,
        Self::Usage,
        Self::Output,
        Self::OutputBehind,
        Self::ConfigBad,
        Self::DicomUnreadable,
        Self::DicomKind,
        Self::DicomType,
        Self::DicomMissing,
        Self::DicomValue,
        Self::DicomPixels,
        Self::DicomSize,
        Self::DicomModality,
        Self::GeometryAxis,
        Self::SeriesDuplicate,
        Self::SeriesPlace,
        Self::SeriesUneven,
        Self::SeriesFull,
        Self::SeriesIncomplete,
        Self::SeriesOrigin,
        Self::SeriesMixed,
        Self::LateDropped,
        Self::LateOverflow,
        Self::LateFailed,
        Self::LateStale,
        Self::StateWrite,
        Self::StateDamaged,
        Self::NetAssociation,
        Self::NetProtocol,
        Self::SendRefused,
        Self::SendQueue,
        Self::Stopping,
    ];

    /// The stable name, its meaning, and what to do.
    const fn entry(self) -> [&'static str; 3] {
        match self {
            Self::ModelRead => ["E-MODEL-01", "the model file cannot be read", "check path and permissions"],
            Self::ModelCorrupt => ["E-MODEL-02", "the model file is not ONNX, or is damaged", "copy the file again"],
            Self::ModelForeign => [
                "E-MODEL-03",
                "the ONNX file carries no Gantry manifest",
                "use a file that gantry-export wrote; other programs may have dropped its metadata",
            ],
            Self::ModelVersion => {
                ["E-MODEL-04", "the model was written for another contract version", "export the model again"]
            }
            Self::ModelManifest => {
                ["E-MODEL-05", "the manifest cannot be followed", "export the model again; report it if it persists"]
            }
            Self::ModelGraph => [
                "E-MODEL-06",
                "the ONNX graph is not the one that the manifest describes",
                "use the file as gantry-export wrote it",
            ],
            Self::ModelModality => {
                ["E-MODEL-07", "the model has no branch for this modality", "choose a model trained on the modality"]
            }
            Self::ModelSpatial => {
                ["E-MODEL-08", "the network takes other images", "export a 2D network, or a 3D network of one channel"]
            }
            Self::EnginePlan => ["E-ENGINE-01", "the engine cannot plan the network", "report it with the model file"],
            Self::EngineRun => ["E-ENGINE-02", "the engine failed on a slice", "report it with the slice"],
            Self::EngineMemory => [
                "E-ENGINE-03",
                "the network needs more memory than allowed",
                "allow more with --max-arena-mb, or use a smaller network",
            ],
            Self::SelfTestDigest => [
                "E-SELFTEST-01",
                "the network answers other bits than the exporter recorded",
                "copy the model again; if that does not help, do not use this machine",
            ],
            Self::SelfTestMissing => {
                ["E-SELFTEST-02", "the int8 model records no golden answer for a modality", "export the model again"]
            }
            Self::Volume => ["E-VOLUME-01", "the volume cannot be used", "see the message; check the file's header"],
            Self::GeometrySize => ["E-GEOM-01", "the slice has an impossible size", "check the volume's dimensions"],
            Self::GeometrySpacing => ["E-GEOM-02", "the pixels have an impossible size", "check the volume's spacing"],
            Self::SliceBlank => ["E-SLICE-01", "every pixel of the slice is the same", "none: it is background"],
            Self::SliceNotHounsfield => [
                "E-SLICE-02",
                "said to be CT, but the values are not Hounsfield units",
                "check --modality and the rescale of the file",
            ],
            Self::SliceLooksHounsfield => {
                ["E-SLICE-03", "said to be MR, but the values look like Hounsfield units", "check --modality"]
            }
            Self::SliceEmpty => ["E-SLICE-04", "the slice has no pixels", "check the volume's dimensions"],
            Self::VolumePartial => [
                "E-SEGMENT-01",
                "slices of the volume were refused, so nothing was written",
                "see each slice's code, or accept background there with --allow-partial",
            ],
            Self::Usage => ["E-USAGE-01", "the arguments do not fit together", "see --help"],
            Self::Output => ["E-OUTPUT-01", "a result cannot be written", "check folder, permissions and space"],
            Self::OutputBehind => [
                "E-OUTPUT-02",
                "writing fell behind, so the slice has no picture and no segmentation of its own",
                "use a faster disk, smaller pictures, or segmentations per series only",
            ],
            Self::ConfigBad => [
                "E-CONFIG-01",
                "the configuration cannot be used",
                "see the message; gantry-edge serve --check shows what is in force",
            ],
            Self::DicomUnreadable => [
                "E-DICOM-01",
                "the instance is not DICOM, is damaged, or its pixels cannot be decoded",
                "send it again; check the transfer syntax",
            ],
            Self::DicomKind => {
                ["E-DICOM-02", "the object is not an image of CT or MR", "none: such objects are not segmented"]
            }
            Self::DicomType => [
                "E-DICOM-03",
                "the image shows no slice (localizer, mosaic, projection)",
                "none: such images are not segmented",
            ],
            Self::DicomMissing => [
                "E-DICOM-04",
                "an element that a slice must have is missing",
                "check what removed it: the scanner's protocol, an anonymiser",
            ],
            Self::DicomValue => {
                ["E-DICOM-05", "an element has a value that no slice can have", "check the scanner's protocol"]
            }
            Self::DicomPixels => {
                ["E-DICOM-06", "the pixels are not grey values of 8 or 16 bits", "none: such images are not segmented"]
            }
            Self::DicomSize => {
                ["E-DICOM-07", "the image has more pixels than allowed", "allow more with slices.max_pixels"]
            }
            Self::DicomModality => {
                ["E-DICOM-08", "the modality contradicts the kind of object", "check the scanner's protocol"]
            }
            Self::GeometryAxis => {
                ["E-GEOM-03", "the slice is sagittal or coronal", "send axial slices: the networks know no others"]
            }
            Self::SeriesDuplicate => {
                ["E-SERIES-01", "the instance was already received in this series", "none: the first one counts"]
            }
            Self::SeriesPlace => [
                "E-SERIES-02",
                "another slice of the series lies at the same place",
                "send echoes and phases as series of their own",
            ],
            Self::SeriesUneven => [
                "E-SERIES-03",
                "the slices lie unevenly, so they make no volume",
                "see whether slices are missing; DICOM SEG holds uneven slices too",
            ],
            Self::SeriesFull => [
                "E-SERIES-04",
                "more slices or open series than allowed",
                "allow more with series.max_slices or series.max_open",
            ],
            Self::SeriesIncomplete => [
                "E-SERIES-05",
                "slices of the series were refused or dropped, so nothing of it was written",
                "see each slice's code; series.incomplete = \"mark\" writes such series and says so in them",
            ],
            Self::SeriesOrigin => {
                ["E-SERIES-06", "the series cannot be written in this form", "DICOM objects need DICOM sources"]
            }
            Self::SeriesMixed => [
                "E-SERIES-07",
                "the series already holds another patient, study, modality or frame of reference",
                "see who gives UIDs: a series belongs to one of each",
            ],
            Self::LateDropped => [
                "E-LATE-01",
                "the slice missed its deadline and was dropped",
                "send fewer slices per second, allow more time, or use a faster machine",
            ],
            Self::LateOverflow => [
                "E-LATE-02",
                "too many slices waited, and the oldest was dropped",
                "send fewer slices per second, or allow more with slices.backlog",
            ],
            Self::LateFailed => [
                "E-LATE-03",
                "an earlier slice of the series missed its deadline, and slices.late is fail-closed",
                "send the series again",
            ],
            Self::LateStale => [
                "E-LATE-04",
                "the label map came after its deadline and is flagged as stale",
                "do not use it where time matters",
            ],
            Self::StateWrite => ["E-STATE-01", "the state folder cannot be written", "check space and permissions"],
            Self::StateDamaged => {
                ["E-STATE-02", "a file of the state folder is damaged", "it was set aside: send the series again"]
            }
            Self::NetAssociation => {
                ["E-NET-01", "an association was refused", "check titles, addresses and the most associations"]
            }
            Self::NetProtocol => [
                "E-NET-02",
                "a peer broke the protocol, went away or fell silent",
                "check the network and the other side's log",
            ],
            Self::SendRefused => [
                "E-SEND-01",
                "a destination refused an object for good",
                "see the note beside it in the queue's folder refused",
            ],
            Self::SendQueue => [
                "E-SEND-02",
                "the outgoing queue is full or cannot be written",
                "check the destination, space and destination.queue_mb",
            ],
            Self::Stopping => ["E-STOP-01", "the service is ending", "send again when it is back"],
        }
    }

    /// The stable name, e.g. `E-MODEL-04`.
    pub const fn name(self) -> &'static str {
        self.entry()[0]
    }

    /// What it means.
    pub const fn meaning(self) -> &'static str {
        self.entry()[1]
    }

    /// What to do about it.
    pub const fn advice(self) -> &'static str {
        self.entry()[2]
    }
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::Code;

    /// Names are for ever. A new code is added here by hand; an old line is never edited.
    #[test]
    fn names_are_unique_and_those_of_the_first_release() {
        let names: Vec<_> = Code::ALL.iter().map(|code| code.name()).collect();
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
        assert_eq!(Code::ModelVersion.name(), "E-MODEL-04");
        assert_eq!(Code::SelfTestDigest.name(), "E-SELFTEST-01");
        assert_eq!(Code::SliceNotHounsfield.name(), "E-SLICE-02");
        assert_eq!(Code::VolumePartial.name(), "E-SEGMENT-01");
        assert!(Code::ALL.is_sorted(), "a code is missing from ALL or out of order");
    }
}
