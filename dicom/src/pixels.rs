//! Pixels as they are stored, whatever the transfer syntax.

use dicom_dictionary_std::{tags, uids};
use dicom_object::DefaultDicomObject;
use dicom_pixeldata::PixelDecoder;

use crate::{
    Fault,
    image::{number, text},
};

/// Pixels of one instance at most: 2,048 slices of 512 x 512, a GiB of 16 bits.
const MOST: u64 = 1 << 29;

/// Lossless and near-lossless.
const JPEG_LS: [&str; 2] = [uids::JPEGLS_LOSSLESS, uids::JPEGLS_NEAR_LOSSLESS];

/// Stored values of all frames.
pub struct Stored {
    /// Columns and rows.
    pub size: [usize; 2],
    /// `[frame][row][column]`.
    pub values: Vec<i32>,
}

/// Decodes all frames.
///
/// # Errors
/// [`Fault`]: colour, other depths than 8 and 16 bits, too many pixels, too few values, or a transfer syntax that is not decoded.
pub fn stored(object: &DefaultDicomObject) -> Result<Stored, Fault> {
    let form = Form::new(object)?;
    let syntax = object.meta().transfer_syntax.trim_end_matches('\0');
    let words = match JPEG_LS.contains(&syntax) {
        true => jpeg_ls(object, &form)?,
        false => decoded(object, &form)?,
    };
    // What lies beside the stored bits is no part of the value (PS3.5 8.1.1).
    let (drop, keep) = (form.high_bit + 1 - form.bits, 32 - form.bits);
    let value = |word: u16| {
        let top = u32::from(word >> drop) << keep;
        if form.signed { (top as i32) >> keep } else { (top >> keep) as i32 }
    };
    Ok(Stored { size: form.size, values: words.into_iter().take(form.pixels()).map(value).collect() })
}

/// Columns, rows and frames that an instance says it has, before anything is decoded.
///
/// # Errors
/// As [`stored`], for what its elements alone tell.
pub fn extent(object: &DefaultDicomObject) -> Result<[usize; 3], Fault> {
    Form::new(object).map(|form| [form.size[0], form.size[1], form.frames])
}

/// What the elements beside the pixels say of them.
struct Form {
    size: [usize; 2],
    frames: usize,
    /// 8 or 16.
    allocated: u32,
    /// Of these, the bits of a value: not 0, and with `high_bit` within them.
    bits: u32,
    high_bit: u32,
    signed: bool,
}

impl Form {
    /// Looks at the elements alone, so that nothing is allocated for an image that is refused.
    fn new(object: &DefaultDicomObject) -> Result<Self, Fault> {
        let of = |tag, default: u64| number(object, tag).map_or(default, |value| value.max(0.) as u64);
        let [frames, rows, columns] = [of(tags::NUMBER_OF_FRAMES, 1), of(tags::ROWS, 0), of(tags::COLUMNS, 0)];
        match frames.checked_mul(rows).and_then(|pixels| pixels.checked_mul(columns)) {
            Some(0) => return Err(Fault::Missing("Rows, Columns")),
            Some(pixels) if pixels <= MOST => {}
            _ => return Err(Fault::Size { frames, columns, rows, most: MOST }),
        }
        let photometric =
            text(object, tags::PHOTOMETRIC_INTERPRETATION).ok_or(Fault::Missing("PhotometricInterpretation"))?;
        let [samples, allocated] = [of(tags::SAMPLES_PER_PIXEL, 1), of(tags::BITS_ALLOCATED, 0)];
        let bits = of(tags::BITS_STORED, allocated);
        let high_bit = of(tags::HIGH_BIT, bits.saturating_sub(1));
        let sound = bits > 0 && bits <= allocated && high_bit < allocated && high_bit + 1 >= bits;
        if samples != 1 || photometric != "MONOCHROME2" || ![8, 16].contains(&allocated) || !sound {
            return Err(Fault::Pixels(format!(
                "{photometric}, {samples} samples of {allocated} bits, {bits} of them stored below bit {high_bit}"
            )));
        }
        Ok(Self {
            size: [columns as usize, rows as usize],
            frames: frames as usize,
            allocated: allocated as u32,
            bits: bits as u32,
            high_bit: high_bit as u32,
            signed: of(tags::PIXEL_REPRESENTATION, 0) == 1,
        })
    }

    fn pixels(&self) -> usize {
        self.size[0] * self.size[1] * self.frames
    }
}

/// By the decoders of dicom-rs.
fn decoded(object: &DefaultDicomObject, form: &Form) -> Result<Vec<u16>, Fault> {
    let decoded = object.decode_pixel_data().map_err(|error| Fault::Unreadable(chain(&error)))?;
    let words: Vec<u16> = match decoded.bits_allocated() {
        8 => decoded.data().iter().map(|&byte| byte.into()).collect(),
        _ => decoded.data_ow(),
    };
    if u32::from(decoded.bits_allocated()) != form.allocated || words.len() < form.pixels() {
        let found = format!("{} values of {} bits", words.len(), decoded.bits_allocated());
        return Err(Fault::Pixels(format!("{found} for {} pixels of {}", form.pixels(), form.allocated)));
    }
    Ok(words)
}

/// Lossless and near-lossless JPEG-LS, which dicom-rs leaves to a C++ library.
fn jpeg_ls(object: &DefaultDicomObject, form: &Form) -> Result<Vec<u16>, Fault> {
    let pixels = object.element_opt(tags::PIXEL_DATA).ok().flatten().ok_or(Fault::Missing("PixelData"))?;
    let fragments = pixels.fragments().unwrap_or_default();
    let whole;
    let frames: Vec<&[u8]> = match form.frames {
        1 => {
            whole = fragments.concat();
            vec![&whole]
        }
        frames if frames == fragments.len() => fragments.iter().map(Vec::as_slice).collect(),
        frames => return Err(Fault::Unreadable(format!("{frames} JPEG-LS frames in {} fragments", fragments.len()))),
    };
    let [columns, rows] = form.size.map(|side| side as u32);
    let mut words = vec![];
    for frame in frames {
        let unreadable = |reason: String| Fault::Unreadable(format!("JPEG-LS: {reason}"));
        let (values, width, height) =
            decode_padded(frame, columns, rows).map_err(|error| unreadable(error.to_string()))?;
        if [width, height] != [columns, rows] || values.len() != form.size[0] * form.size[1] {
            return Err(unreadable(format!("{width} x {height} pixels, expected {columns} x {rows}")));
        }
        words.extend(values);
    }
    Ok(words)
}

/// Some encoders fill a scan up with a zero byte, which the decoder does not expect before the marker of the end.
fn decode_padded(frame: &[u8], columns: u32, rows: u32) -> Result<(Vec<u16>, u32, u32), jpegls::CodecError> {
    const END: [u8; 2] = [0xff, 0xd9];
    let result = jpegls::decode(frame, columns, rows);
    let end = frame.windows(2).rposition(|pair| pair == END);
    match end.filter(|&end| end > 0 && frame[end - 1] == 0) {
        Some(end) if result.is_err() => jpegls::decode(&[&frame[..end - 1], &END].concat(), columns, rows),
        _ => result,
    }
}

/// The decoder's words with their causes.
pub fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
