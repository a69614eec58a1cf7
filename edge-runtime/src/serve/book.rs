//! The book of open series: whose they are, which of their instances came, and where their slices lie.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use contract::Modality;
use dicom::{Frame, Identity};
use dicom_object::InMemDicomObject;

use super::{config::SeriesConfig, refusal::Refusal, spool::Kept, ticket::Waiter};
use crate::Code;

/// Two slices lie at the same place if they are this close, mm.
const SAME_MM: f64 = 1e-2;
/// Unreadable instances of series without a readable one that are remembered.
const EARLY: usize = 256;

/// Series that are not yet written.
pub struct Book {
    max_slices: usize,
    max_open: usize,
    quiet: Duration,
    pages: Mutex<Pages>,
}

#[derive(Default)]
struct Pages {
    open: HashMap<Arc<str>, Open>,
    /// Series, instance and time of what could not be read before anything of its series was.
    early: VecDeque<(String, String, Instant)>,
}

/// What there is of an instance besides its slices.
#[derive(Clone, Debug, Default)]
pub struct Held {
    /// The file that keeps it.
    pub kept: Option<Arc<Kept>>,
    /// Ends when all its label maps exist.
    pub waiter: Option<Arc<Waiter>>,
}

/// One series.
struct Open {
    first: Identity,
    modality: Modality,
    /// Elements of its first instance, without the pixels: what is made of the series takes patient and study from there.
    header: Arc<InMemDicomObject>,
    instances: HashMap<String, Held>,
    /// Of each slice.
    places: Vec<Place>,
    /// Instances that could not be read although they belong to it.
    unreadable: HashSet<String>,
}

/// Where a slice lies.
struct Place {
    directions: [f64; 6],
    first_mm: [f64; 3],
}

impl Book {
    /// With the limits of a configuration.
    pub fn new(config: &SeriesConfig) -> Self {
        let quiet = Duration::from_secs(config.quiet_s);
        Self { max_slices: config.max_slices, max_open: config.max_open, quiet, pages: Mutex::default() }
    }

    /// Notes an instance in its series, all of it or nothing; returns the header of the series.
    ///
    /// # Errors
    /// [`Code::SeriesFull`], [`Code::SeriesMixed`], [`Code::SeriesDuplicate`] or [`Code::SeriesPlace`].
    pub fn enter(
        &self,
        identity: &Identity,
        modality: Modality,
        frames: &[Frame],
        header: InMemDicomObject,
        held: Held,
    ) -> Result<Arc<InMemDicomObject>, Refusal> {
        let mut pages = self.pages();
        let Pages { open, early } = &mut *pages;
        let page = open.get(identity.series.as_str());
        if page.is_none() && open.len() >= self.max_open {
            return Err(Refusal::new(Code::SeriesFull, format!("{} series are open (series.max_open)", open.len())));
        }
        page.map_or(Ok(()), |page| page.check(identity, modality))?;
        let before = page.map_or(&[][..], |page| &page.places);
        let slices = before.len() + frames.len();
        if slices > self.max_slices {
            return Err(Refusal::new(Code::SeriesFull, format!("slice {slices} of a series (series.max_slices)")));
        }
        let places = vacant(before, identity, frames)?;
        let page = open.entry(identity.series.as_str().into()).or_insert_with(|| {
            let mut unreadable = HashSet::new();
            early.retain(|(series, instance, since)| {
                let ours = *series == identity.series;
                if ours && since.elapsed() < self.quiet {
                    unreadable.insert(instance.clone());
                }
                !ours
            });
            let first = identity.clone();
            Open { first, modality, header: header.into(), instances: HashMap::new(), places: vec![], unreadable }
        });
        page.places.extend(places);
        page.unreadable.remove(&identity.sop_instance);
        page.instances.insert(identity.sop_instance.clone(), held);
        Ok(page.header.clone())
    }

    /// Whether an instance of a series could be taken as far as the number of open series goes.
    pub fn admits(&self, series: &str) -> bool {
        let pages = self.pages();
        pages.open.contains_key(series) || pages.open.len() < self.max_open
    }

    /// Notes that an instance of a series came and could not be read. It may come again in better form.
    pub fn unreadable(&self, series: &str, instance: &str) {
        let Pages { open, early } = &mut *self.pages();
        match open.get_mut(series) {
            Some(page) => {
                page.unreadable.insert(instance.to_owned());
            }
            None => {
                if early.len() >= EARLY {
                    early.pop_front();
                }
                early.push_back((series.to_owned(), instance.to_owned(), Instant::now()));
            }
        }
    }

    /// What there is of an instance of an open series.
    pub fn held(&self, series: &str, instance: &str) -> Option<Held> {
        self.pages().open.get(series)?.instances.get(instance).cloned()
    }

    /// Closes a series of which so many slices have come out of the loop, so that it may come again; `None` if more have
    /// gone in, else how many of its instances could not be read.
    pub fn close(&self, series: &str, out: usize) -> Option<usize> {
        let mut pages = self.pages();
        if pages.open.get(series).is_some_and(|page| page.places.len() > out) {
            return None;
        }
        Some(pages.open.remove(series).map_or(0, |page| page.unreadable.len()))
    }

    /// Series that are not over.
    pub fn len(&self) -> usize {
        self.pages().open.len()
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    /// Whether an instance is of this patient, study, modality and frame of reference, and new.
    fn check(&self, identity: &Identity, modality: Modality) -> Result<(), Refusal> {
        let Identity { patient, study, frame_of_reference, .. } = &self.first;
        let theirs = (&identity.patient, &identity.study, &identity.frame_of_reference, modality);
        if (patient, study, frame_of_reference, self.modality) != theirs {
            // No names: lines are read by people who need not know them.
            let instance = &identity.sop_instance;
            let found = format!("instance {instance} is of another patient, study, modality or frame of reference");
            return Err(Refusal::new(Code::SeriesMixed, found));
        }
        match self.instances.contains_key(&identity.sop_instance) {
            true => Err(Refusal::new(Code::SeriesDuplicate, format!("instance {}", identity.sop_instance))),
            false => Ok(()),
        }
    }
}

/// Places of frames, if nothing lies there yet, another of the frames neither.
fn vacant(before: &[Place], identity: &Identity, frames: &[Frame]) -> Result<Vec<Place>, Refusal> {
    let mut places: Vec<Place> = vec![];
    for Frame { plane, .. } in frames {
        let ([a, b, c], [d, e, f]) = (plane.along, plane.down);
        let place = Place { directions: [a, b, c, d, e, f], first_mm: plane.first_mm };
        if before.iter().chain(&places).any(|taken| taken.is(&place)) {
            let found = format!("instance {} at {:.2?} mm", identity.sop_instance, plane.first_mm);
            return Err(Refusal::new(Code::SeriesPlace, found));
        }
        places.push(place);
    }
    Ok(places)
}

impl Place {
    /// Whether it is the same, but for the digits that scanners round away.
    fn is(&self, other: &Self) -> bool {
        let near = |a: &[f64], b: &[f64], most: f64| a.iter().zip(b).all(|(a, b)| (a - b).abs() <= most);
        near(&self.directions, &other.directions, 1e-3) && near(&self.first_mm, &other.first_mm, SAME_MM)
    }
}

#[cfg(test)]
mod tests {
    use dicom::Plane;

    use super::*;

    fn book(max_slices: usize, max_open: usize) -> Book {
        Book { max_slices, max_open, quiet: Duration::from_secs(60), pages: Mutex::default() }
    }

    fn identity(series: &str, number: usize) -> Identity {
        Identity {
            sop_class: "1.2".into(),
            sop_instance: format!("{series}.{number}"),
            series: series.into(),
            study: "1.9".into(),
            patient: "7".into(),
            frame_of_reference: None,
            number: None,
        }
    }

    fn frames(heights_mm: &[f64]) -> Vec<Frame> {
        let frame = |&height_mm: &f64| Frame {
            plane: Plane {
                size: [1, 1],
                spacing_mm: [1.; 2],
                along: [1., 0., 0.],
                down: [0., 1., 0.],
                first_mm: [0., 0., height_mm],
            },
            slope: 1.,
            intercept: 0.,
            stored: vec![0],
        };
        heights_mm.iter().map(frame).collect()
    }

    fn code(result: Result<(), Refusal>) -> Code {
        result.unwrap_err().code
    }

    fn enter(book: &Book, identity: &Identity, modality: Modality, at: &[f64]) -> Result<(), Refusal> {
        let header = InMemDicomObject::new_empty();
        book.enter(identity, modality, &frames(at), header, Held::default()).map(|_| ())
    }

    #[test]
    fn what_is_refused_opens_no_series_and_takes_no_place() {
        let book = book(2, 1);
        let enter = |series, number, at: &[f64]| enter(&book, &identity(series, number), Modality::Ct, at);
        assert_eq!(code(enter("1.1", 1, &[0., 0.])), Code::SeriesPlace);
        assert_eq!(code(enter("1.1", 1, &[0., 1., 2.])), Code::SeriesFull);
        assert_eq!(book.len(), 0);
        enter("1.2", 1, &[0.]).unwrap();
        assert_eq!(code(enter("1.1", 1, &[0.])), Code::SeriesFull);
        assert_eq!(code(enter("1.2", 1, &[5.])), Code::SeriesDuplicate);
        assert_eq!(code(enter("1.2", 2, &[0.005])), Code::SeriesPlace);
        enter("1.2", 3, &[5.]).unwrap();
        assert_eq!(code(enter("1.2", 4, &[6.])), Code::SeriesFull);
        assert_eq!(book.close("1.2", 1), None, "one is in the loop");
        assert_eq!(book.close("1.2", 2), Some(0));
        enter("1.1", 1, &[0.]).unwrap();
    }

    #[test]
    fn a_series_has_one_patient_study_modality_and_frame_of_reference() {
        let book = book(9, 9);
        let enter = |identity: &Identity, modality, at| enter(&book, identity, modality, &[at]);
        let one = identity("1.1", 1);
        enter(&one, Modality::Ct, 0.).unwrap();
        let other = identity("1.1", 2);
        assert_eq!(
            code(enter(&Identity { patient: "8".into(), ..other.clone() }, Modality::Ct, 1.)),
            Code::SeriesMixed
        );
        assert_eq!(
            code(enter(&Identity { study: "1.8".into(), ..other.clone() }, Modality::Ct, 1.)),
            Code::SeriesMixed
        );
        let elsewhere = Identity { frame_of_reference: Some("1.7".into()), ..other.clone() };
        assert_eq!(code(enter(&elsewhere, Modality::Ct, 1.)), Code::SeriesMixed);
        assert_eq!(code(enter(&other, Modality::Mr, 1.)), Code::SeriesMixed);
        enter(&other, Modality::Ct, 1.).unwrap();
    }

    #[test]
    fn unreadable_instances_count_until_they_come_again_in_better_form() {
        let book = book(9, 9);
        // Before anything of the series could be read, and of a series that never comes.
        book.unreadable("1.1", "1.1.1");
        book.unreadable("1.1", "1.1.2");
        (0..2 * EARLY).for_each(|number| book.unreadable("1.7", &number.to_string()));
        book.unreadable("1.1", "1.1.1");
        enter(&book, &identity("1.1", 3), Modality::Ct, &[3.]).unwrap();
        book.unreadable("1.1", "1.1.4");
        book.unreadable("1.1", "1.1.5");
        enter(&book, &identity("1.1", 5), Modality::Ct, &[5.]).unwrap();
        // 1 and 4; 2 was long ago, and 5 came again.
        assert_eq!(book.close("1.1", 2), Some(2));
        assert_eq!(book.close("1.1", 0), Some(0));
    }
}
