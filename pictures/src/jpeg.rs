//! What the JPEG decoder does not say: whether the file is whole.

/// Whether `bytes` end before the end-of-image marker. The decoder would fill up with grey what a
/// truncated file lacks; Pillow refuses it.
pub(crate) fn is_truncated(bytes: &[u8]) -> bool {
    let mut at = 2;
    loop {
        // Coded data and padding lie between markers: 0xFF, then neither 0 (a stuffed byte) nor 0xFF.
        let Some(step) = bytes.get(at..).and_then(|rest| {
            rest.windows(2)
                .position(|pair| pair[0] == 0xFF && pair[1] != 0 && pair[1] != 0xFF)
        }) else {
            return true;
        };
        let marker = bytes[at + step + 1];
        at += step + 2;
        match marker {
            0xD9 => return false,
            // TEM and restarts stand alone; a second start of image is not ours to refuse.
            0x01 | 0xD0..=0xD8 => {}
            _ => match bytes.get(at..at + 2) {
                Some(length) => at += usize::from(u16::from_be_bytes([length[0], length[1]])),
                None => return true,
            },
        }
    }
}
