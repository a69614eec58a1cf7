//! Colours as segmentations recommend them.

/// sRGB to linear light to XYZ, adapted to D50 (Bradford), as in ICC's sRGB profiles.
const TO_XYZ: [[f64; 3]; 3] = [
    [0.436_074_7, 0.385_064_9, 0.143_080_4],
    [0.222_504_5, 0.716_878_6, 0.060_616_9],
    [0.013_932_2, 0.097_104_5, 0.714_173_3],
];
/// XYZ of white, D50.
const WHITE: [f64; 3] = [0.964_22, 1., 0.825_21];

/// The PCS-values L*, a*, b* of an sRGB colour in 16 bits each (PS3.3 C.10.7.1.1): 0 is L* 0 and a*, b* -128; 65535 is L* 100
/// and a*, b* 127.
pub fn cielab([red, green, blue]: [u8; 3]) -> [u16; 3] {
    let linear = [red, green, blue].map(|value| {
        let value = f64::from(value) / 255.;
        if value <= 0.040_45 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
    });
    let [x, y, z] = [0, 1, 2].map(|axis| {
        let sum: f64 = TO_XYZ[axis].iter().zip(linear).map(|(weight, value)| weight * value).sum();
        let share = sum / WHITE[axis];
        if share > 216. / 24389. { share.cbrt() } else { (24389. / 27. * share + 16.) / 116. }
    });
    let scaled = |value: f64| value.round().clamp(0., 65535.) as u16;
    [scaled((116. * y - 16.) * 655.35), scaled((500. * (x - y) + 128.) * 257.), scaled((200. * (y - z) + 128.) * 257.)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grey_has_no_colour_and_primaries_are_where_icc_says() {
        assert_eq!(cielab([0; 3]), [0, 0x8080, 0x8080]);
        let [light, a, b] = cielab([255; 3]);
        assert!(light >= 65534 && a.abs_diff(0x8080) <= 2 && b.abs_diff(0x8080) <= 2, "{light} {a} {b}");
        // L*, a*, b* under D50 of red, green and blue.
        for (rgb, lab) in [
            ([255, 0, 0], [54.29, 80.81, 69.89]),
            ([0, 255, 0], [87.82, -79.29, 80.99]),
            ([0, 0, 255], [29.57, 68.30, -112.03]),
        ] {
            let [light, a, b] = cielab(rgb).map(f64::from);
            for (found, expected) in [light / 655.35, a / 257. - 128., b / 257. - 128.].iter().zip(lab) {
                assert!((found - expected).abs() < 0.02, "{rgb:?}: {found}, expected {expected}");
            }
        }
    }
}
