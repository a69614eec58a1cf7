//! The input of the self-test: codes that every machine can make without a file.

use crate::Modality;

/// Fills an image with codes: noise on a coarse checkerboard, so that every layer sees edges and every code occurs.
/// The same for a given modality and size on every machine.
pub fn codes(modality: Modality, height: usize, width: usize, image: &mut [i8]) {
    // xorshift64 (Marsaglia 2003); any seed but 0 will do.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 + modality.index() as u64;
    for (index, code) in image.iter_mut().enumerate() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let (row, column) = (index / width % height, index % width);
        let tile = if (row / 16 + column / 16) % 2 == 0 { -48 } else { 48 };
        let noise = (state >> 56) as i32 - 128;
        *code = (tile + noise * 2 / 3).clamp(-128, 127) as i8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_occurs_and_the_modalities_differ() {
        let (mut ct, mut mr) = ([0; 128 * 128], [0; 128 * 128]);
        codes(Modality::Ct, 128, 128, &mut ct);
        codes(Modality::Mr, 128, 128, &mut mr);
        assert!((i8::MIN..=i8::MAX).all(|code| ct.contains(&code)));
        assert_ne!(ct, mr);
        assert_eq!(ct[..8], CT_START);
    }

    /// Computed by hand (in Python) from the definition. Another value is another contract: raise [`crate::VERSION`].
    const CT_START: [i8; 8] = [13, -66, -51, -101, -104, -33, -31, 11];
}
