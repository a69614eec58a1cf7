//! Building data sets: an element takes its value representation from the dictionary.

use dicom_core::{DataElement, PrimitiveValue, VR, dictionary::DataDictionary, value::DataSetSequence};
use dicom_dictionary_std::{StandardDataDictionary, tags};
use dicom_object::{InMemDicomObject, Tag};

/// Bytes of an element at most: an even number of 32 bits that is not all ones.
pub const MOST: usize = 0xffff_fffe;
/// Characters of a decimal string at most (PS3.5 6.2).
const DECIMAL: usize = 16;

/// Puts an element.
pub fn put(object: &mut InMemDicomObject, tag: Tag, value: impl Into<PrimitiveValue>) {
    object.put(DataElement::new(tag, representation(tag), value.into()));
}

/// Puts a sequence.
pub fn put_items(object: &mut InMemDicomObject, tag: Tag, items: Vec<InMemDicomObject>) {
    object.put(DataElement::new(tag, VR::SQ, DataSetSequence::from(items)));
}

/// Puts a sequence of one item.
pub fn put_item(object: &mut InMemDicomObject, tag: Tag, item: InMemDicomObject) {
    put_items(object, tag, vec![item]);
}

/// A data set of one element.
pub fn of(tag: Tag, value: impl Into<PrimitiveValue>) -> InMemDicomObject {
    let mut object = InMemDicomObject::new_empty();
    put(&mut object, tag, value);
    object
}

/// Bytes of pixels, to an even length (PS3.5 7.1.1).
pub fn put_pixels(object: &mut InMemDicomObject, mut bytes: Vec<u8>) {
    if bytes.len() % 2 == 1 {
        bytes.push(0);
    }
    object.put(DataElement::new(tags::PIXEL_DATA, VR::OB, PrimitiveValue::from(bytes)));
}

/// Several texts.
pub fn texts(values: &[&str]) -> PrimitiveValue {
    PrimitiveValue::Strs(values.iter().map(|&value| value.to_owned()).collect())
}

/// Numbers as decimal strings.
pub fn decimals(values: &[f64]) -> PrimitiveValue {
    PrimitiveValue::Strs(values.iter().map(|&value| decimal(value)).collect())
}

/// A coded concept (PS3.3 8.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code<'a> {
    /// Within the scheme; up to 16 characters.
    pub value: &'a str,
    /// Who coded it, such as `SCT` for SNOMED CT.
    pub scheme: &'static str,
    /// In words; up to 64 characters.
    pub meaning: &'a str,
}

impl Code<'_> {
    /// As an item of a sequence.
    pub fn item(self) -> InMemDicomObject {
        let mut item = of(tags::CODE_VALUE, self.value);
        put(&mut item, tags::CODING_SCHEME_DESIGNATOR, self.scheme);
        put(&mut item, tags::CODE_MEANING, self.meaning);
        item
    }
}

fn representation(tag: Tag) -> VR {
    StandardDataDictionary.by_tag(tag).map_or(VR::UN, |entry| entry.vr.relaxed())
}

/// The shortest decimal string that gives the number back, or the nearest of 16 characters. A number read from a decimal
/// string comes back as itself.
fn decimal(value: f64) -> String {
    let shortest = [format!("{value}"), format!("{value:e}")];
    if let Some(text) = shortest.into_iter().find(|text| text.len() <= DECIMAL) {
        return text;
    }
    let rounded = (0..DECIMAL).flat_map(|digits| [format!("{value:.digits$}"), format!("{value:.digits$e}")]);
    let off = |text: &String| text.parse::<f64>().map_or(f64::INFINITY, |read| (read - value).abs());
    let fitting = rounded.filter(|text| text.len() <= DECIMAL);
    fitting.min_by(|a, b| off(a).total_cmp(&off(b))).expect("an exponent without digits always fits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_fits_comes_back_as_itself() {
        for text in ["0", "1", "-0.5", "0.482421875", "1.2345678901e-05", "-629.04", "-1234567.890123", "1e300"] {
            let value: f64 = text.parse().unwrap();
            let written = decimal(value);
            assert!(written.len() <= DECIMAL, "{written}");
            assert_eq!(written.parse(), Ok(value), "{written}");
        }
    }

    #[test]
    fn a_number_that_does_not_fit_loses_only_its_last_digits() {
        for value in [1. / 3., -1. / 3., -2. / 3. * 1e-7, 1e5 / 7., -1e20 / 3., f64::MIN_POSITIVE, -f64::MAX] {
            let written = decimal(value);
            assert!(written.len() <= DECIMAL, "{written}");
            let off = (written.parse::<f64>().unwrap() - value).abs();
            assert!(off <= 1e-8 * value.abs(), "{value:e}: {written}");
        }
        assert_eq!(decimal(1. / 3.), "0.33333333333333");
    }
}
