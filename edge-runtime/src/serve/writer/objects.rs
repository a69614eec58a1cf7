//! What is made of slices and series: segmentations and pictures, as DICOM objects.

use chrono::{Datelike, Local, Timelike};
use contract::Modality;
use dicom::{Capture, DicomDate, DicomTime, Maker};
use dicom_object::{DefaultDicomObject, InMemDicomObject};
use volume::overlay::{Picture, Window};

use super::{SliceJob, Writer};
use crate::{
    Code,
    serve::{
        config::Form,
        refusal::Refusal,
        series::{Finished, Panel},
        ticket::{Origin, Ticket},
    },
};

/// Longer side of a panel in a secondary capture, and panels in a row.
const PANEL_SIDE: usize = 384;
const PANEL_COLUMNS: usize = 3;
/// Numbers of the series that are made: far from those of scanners.
const SEG_SERIES: u32 = 9_001;
const SLICE_SERIES: u32 = 9_002;
const CAPTURE_SERIES: u32 = 9_003;

impl Writer<'_> {
    pub fn segmentation(&self, finished: &Finished, form: Form) -> Result<DefaultDicomObject, Refusal> {
        let labelled = finished.slices.iter().filter(|slice| slice.outcome.has_labels());
        let mut labels: Vec<_> = labelled.map(|slice| (&*slice.ticket, slice.runs.labels())).collect();
        // The same slices in whatever order they came are the same object, with the same UID.
        labels.sort_by_cached_key(|(ticket, _)| ticket.name());
        let description = finished.warning().unwrap_or_else(|| "Organs, segmented by a network".into());
        self.segment(&labels, form, &description, SEG_SERIES, "Gantry organs")
    }

    pub fn slice_segmentation(&self, job: &SliceJob, form: Form) -> Result<DefaultDicomObject, Refusal> {
        let Origin::Dicom { orientation, .. } = &job.ticket.origin else { return Err(no_dicom()) };
        let labels = [(&*job.ticket, orientation.to_image(&job.panel.labels))];
        let description = if job.stale { "Came after its deadline" } else { "Organs of one slice" };
        self.segment(&labels, form, description, SLICE_SERIES, "Gantry organs, single slices")
    }

    fn segment<'a>(
        &self,
        labelled: &'a [(&Ticket, Vec<u8>)],
        form: Form,
        description: &str,
        number: u32,
        series: &str,
    ) -> Result<DefaultDicomObject, Refusal> {
        let slice = |(ticket, labels): &'a (&Ticket, Vec<u8>)| match &ticket.origin {
            Origin::Dicom { place, .. } => Ok(dicom::Slice { plane: *place, source: source(ticket)?, labels }),
            Origin::Nifti { .. } => Err(no_dicom()),
        };
        let slices = labelled.iter().map(slice).collect::<Result<Vec<_>, _>>()?;
        let header = labelled.first().map(|(ticket, _)| header(ticket)).ok_or_else(no_labels)??;
        let form = match form {
            Form::Binary => dicom::Form::Binary,
            Form::Labelmap => dicom::Form::LabelMap,
        };
        dicom::segmentation(header, &slices, self.labels, &self.maker(number, series), description, form)
            .map_err(|fault| Refusal::new(Code::SeriesOrigin, fault))
    }

    /// A picture of the slices with most of the organs; none where no organ was found.
    pub fn capture(&self, finished: &Finished, modality: Modality) -> Result<Option<DefaultDicomObject>, Refusal> {
        let Some(first) = finished.panels.first() else { return Ok(None) };
        let header = header(&finished.slices[first.slice].ticket)?;
        let mut panels: Vec<&Panel> = finished.panels.iter().collect();
        let height = |panel: &&Panel| match &finished.slices[panel.slice].ticket.origin {
            Origin::Dicom { place, .. } => place.height_mm([0., 0., 1.]),
            Origin::Nifti { z, .. } => *z as f64,
        };
        panels.sort_by(|a, b| height(a).total_cmp(&height(b)));
        let pictures =
            panels.iter().map(|panel| self.draw(panel, modality, PANEL_SIDE)).collect::<Result<Vec<_>, _>>()?;
        let montage = Picture::montage(&pictures, PANEL_COLUMNS).map_err(|fault| Refusal::new(Code::Output, fault))?;
        let sources = panels.iter().map(|panel| source(&finished.slices[panel.slice].ticket));
        let sources = sources.collect::<Result<Vec<_>, _>>()?;
        let warning = finished.warning().map(|warning| format!(". {warning}")).unwrap_or_default();
        let derivation = format!("Organs found by the network {} {}{warning}", self.network.name, self.network.version);
        let shown =
            Capture { pictures: &[montage], sources: &sources, derivation: &derivation, burned_in_annotation: false };
        let maker = self.maker(CAPTURE_SERIES, "Gantry organs, picture");
        dicom::capture(header, &shown, &maker).map(Some).map_err(|fault| Refusal::new(Code::SeriesOrigin, fault))
    }

    fn maker<'b>(&'b self, series_number: u32, series_description: &'b str) -> Maker<'b> {
        let now = Local::now();
        let (month, day) = (now.month() as u8, now.day() as u8);
        let time = DicomTime::from_hms(now.hour() as u8, now.minute() as u8, now.second() as u8);
        let midnight = || DicomTime::from_h(0).expect("midnight is a time");
        Maker {
            manufacturer: "Gantry",
            model: "gantry-edge",
            serial: "0",
            software: env!("CARGO_PKG_VERSION"),
            algorithm: &self.network.name,
            version: &self.network.version,
            series_number,
            series_description,
            date: DicomDate::from_ymd(now.year() as u16, month, day).expect("a calendar gives dates"),
            time: time.unwrap_or_else(|_| midnight()),
        }
    }

    /// A slice with its organs.
    pub fn draw(&self, panel: &Panel, modality: Modality, side: usize) -> Result<Picture, Refusal> {
        let window = Window::of(modality, &panel.raw);
        Picture::slice(&panel.raw, Some(&panel.labels), panel.plane, window, self.labels, side)
            .map_err(|fault| Refusal::new(Code::Output, fault))
    }
}

fn header(ticket: &Ticket) -> Result<&InMemDicomObject, Refusal> {
    match &ticket.origin {
        Origin::Dicom { header, .. } => Ok(header),
        Origin::Nifti { .. } => Err(no_dicom()),
    }
}

fn source(ticket: &Ticket) -> Result<dicom::Source<'_>, Refusal> {
    match &ticket.origin {
        Origin::Dicom { identity, frame, .. } => {
            Ok(dicom::Source { sop_class: &identity.sop_class, sop_instance: &identity.sop_instance, frame: *frame })
        }
        Origin::Nifti { .. } => Err(no_dicom()),
    }
}

fn no_dicom() -> Refusal {
    Refusal::new(Code::SeriesOrigin, "a NIfTI volume has no patient and no study: expected DICOM")
}

fn no_labels() -> Refusal {
    Refusal::new(Code::SeriesOrigin, "no slice of the series has a label map")
}
