use std::fmt;

/// The kinds of picture file that are read, recognised by their first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Format {
    /// ISO/IEC 10918-1, baseline or progressive.
    Jpeg,
    /// Portable Network Graphics.
    Png,
    /// Lossy or lossless.
    WebP,
    /// Windows bitmap.
    Bmp,
}

impl Format {
    /// What a file that starts with `bytes` is. A file's name is not asked.
    pub(crate) fn recognise(bytes: &[u8]) -> Option<Self> {
        if bytes.starts_with(b"\xff\xd8\xff") {
            Some(Self::Jpeg)
        } else if bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
            Some(Self::Png)
        } else if bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP") {
            Some(Self::WebP)
        } else if bytes.starts_with(b"BM") {
            Some(Self::Bmp)
        } else {
            None
        }
    }

    /// Whether a file of this format ends before it says that it does, where the decoder would not
    /// mind: one fills up with grey what a JPEG lacks. Pillow refuses both.
    pub(crate) fn is_cut_short(self, bytes: &[u8]) -> bool {
        match self {
            Self::Jpeg => !has_end_of_image(bytes),
            Self::WebP => riff_size(bytes).is_none_or(|size| size > bytes.len() as u64 - 8),
            // These decoders notice.
            Self::Png | Self::Bmp => false,
        }
    }
}

fn riff_size(bytes: &[u8]) -> Option<u64> {
    let size = bytes.get(4..8)?.try_into().ok()?;
    Some(u64::from(u32::from_le_bytes(size)))
}

/// Walks the markers of a JPEG.
fn has_end_of_image(bytes: &[u8]) -> bool {
    const END_OF_IMAGE: u8 = 0xD9;
    let mut rest = bytes;
    while let Some(at) = memchr::memchr(0xFF, rest) {
        rest = &rest[at + 1..];
        let Some(marker) = rest.first() else {
            break;
        };
        match *marker {
            END_OF_IMAGE => return true,
            // A stuffed byte of the coded data; padding; what stands alone: TEM, restarts, the
            // start of an image.
            0 | 0xFF | 0x01 | 0xD0..=0xD8 => {}
            _ => {
                let length = rest.get(1..3).and_then(<[u8]>::first_chunk::<2>);
                let length = length.map_or(0, |bytes| usize::from(u16::from_be_bytes(*bytes)));
                rest = rest.get(1 + length..).unwrap_or_default();
            }
        }
    }
    false
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Jpeg => "JPEG",
            Self::Png => "PNG",
            Self::WebP => "WebP",
            Self::Bmp => "BMP",
        })
    }
}
