use super::error::{Error, check_length};

/// The longest side of a picture that is accepted, in pixels.
///
/// Pillow keeps these coordinates in float32, which is exact up to here.
pub const MAX_PICTURE_SIDE: u32 = 1 << 24;

/// A decoded picture: rows from top to bottom, pixels from left to right, bytes R, G, B.
#[derive(Debug, Clone, Copy)]
pub struct Picture<'a> {
    width: u32,
    height: u32,
    rgb: &'a [u8],
}

impl<'a> Picture<'a> {
    /// Borrows `rgb`, of shape `[height, width, 3]`, without padding between the rows.
    ///
    /// # Errors
    ///
    /// [`Error::PictureSize`] if a side is zero or above [`MAX_PICTURE_SIDE`];
    /// [`Error::Length`] if `rgb` does not have `width * height * 3` bytes.
    pub fn new(width: u32, height: u32, rgb: &'a [u8]) -> Result<Self, Error> {
        let side = 1..=MAX_PICTURE_SIDE;
        if !side.contains(&width) || !side.contains(&height) {
            return Err(Error::PictureSize { width, height });
        }
        // At most 3 * 2^48: no overflow, whatever the width of usize.
        let expected = u64::from(width) * u64::from(height) * 3;
        check_length("an RGB picture [height, width, 3]", expected, rgb.len())?;
        Ok(Self { width, height, rgb })
    }

    /// In pixels.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// In pixels.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// The bytes of row `y`, of shape `[width, 3]`.
    pub(super) fn row(&self, y: usize) -> &'a [u8] {
        let stride = self.width as usize * 3;
        &self.rgb[y * stride..][..stride]
    }
}
