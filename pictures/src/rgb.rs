//! What PIL's `convert("RGB")` makes of every colour type.

use image::ColorType;

/// A decoder's bytes (16-bit samples in native order) as RGB. Alpha is dropped, not blended.
pub(crate) fn to_rgb(mut bytes: Vec<u8>, color: ColorType, narrow: fn(u16) -> u8) -> Vec<u8> {
    let channels = usize::from(color.channel_count());
    if usize::from(color.bytes_per_pixel()) == 2 * channels {
        let count = bytes.len() / 2;
        for i in 0..count {
            bytes[i] = narrow(u16::from_ne_bytes([bytes[2 * i], bytes[2 * i + 1]]));
        }
        bytes.truncate(count);
    }
    match channels {
        1 => bytes.iter().flat_map(|grey| [*grey; 3]).collect(),
        2 => {
            let (pixels, _) = bytes.as_chunks::<2>();
            pixels.iter().flat_map(|[grey, _]| [*grey; 3]).collect()
        }
        3 => bytes,
        _ => {
            let count = bytes.len() / 4;
            for i in 0..count {
                bytes.copy_within(4 * i..4 * i + 3, 3 * i);
            }
            bytes.truncate(3 * count);
            bytes
        }
    }
}

/// How PIL narrows 16-bit samples, mostly.
pub(crate) fn high_byte(sample: u16) -> u8 {
    (sample >> 8) as u8
}

/// How PIL narrows the samples of this PNG: grey without an alpha channel becomes an image of
/// integers, and these are clipped.
pub(crate) fn png_narrowing(bytes: &[u8]) -> fn(u16) -> u8 {
    const COLOUR_TYPE: usize = 25;
    const GREY: u8 = 0;
    if bytes.get(COLOUR_TYPE) == Some(&GREY) {
        |sample| sample.min(255) as u8
    } else {
        high_byte
    }
}

/// The highest level of R, G and B in a BMP of 16 bits per pixel.
pub(crate) fn bmp_levels(bytes: &[u8]) -> Option<[u16; 3]> {
    const BITFIELDS: u32 = 3;
    let long = |at: usize| Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
    let (header, bits, compression) = (long(14)?, long(28)? & 0xFFFF, long(30)?);
    if header < 40 || bits != 16 {
        return None;
    }
    let six_bits_of_green = compression == BITFIELDS && long(58)? == 0x7E0;
    Some([31, if six_bits_of_green { 63 } else { 31 }, 31])
}

/// `image` scales few levels to 255 and rounds to the nearest, PIL rounds down.
pub(crate) fn round_down(rgb: &mut [u8], levels: [u16; 3]) {
    for pixel in rgb.chunks_exact_mut(3) {
        for (byte, most) in pixel.iter_mut().zip(levels) {
            let level = (u16::from(*byte) * most + 127) / 255;
            *byte = (level * 255 / most) as u8;
        }
    }
}
