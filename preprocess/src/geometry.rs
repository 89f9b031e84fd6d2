use super::Picture;
use super::error::Error;

/// The longest side of a target that is accepted, in pixels: a crop of at most 48 MiB and a
/// tensor of at most 192 MiB.
pub const MAX_TARGET_SIDE: u32 = 4096;

/// Where the crop lies in the resized picture, in pixels. See [`Transform::geometry`].
///
/// [`Transform::geometry`]: super::Transform::geometry
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Width of the whole picture after the resize. u64, since a narrow picture is enlarged.
    pub resized_width: u64,
    /// Height of the whole picture after the resize.
    pub resized_height: u64,
    /// Columns left of the crop.
    pub left: u64,
    /// Rows above the crop.
    pub top: u64,
}

/// Refuses a target that is empty or too large.
pub(super) fn check_target(height: u32, width: u32) -> Result<(), Error> {
    let side = 1..=MAX_TARGET_SIDE;
    if side.contains(&height) && side.contains(&width) {
        Ok(())
    } else {
        Err(Error::TargetSize { height, width })
    }
}

/// The smallest size of the picture's aspect ratio that covers the target divided by 0.875, and
/// the centre of it.
///
/// Everything is done in integers. Python computes `int(size / 0.875)` and `int(size * long /
/// short)` in float64, but these quotients are too far from the next integer to be rounded up to
/// it (numerators are below 2^53), so that both agree.
pub(super) fn geometry(picture: &Picture<'_>, height: u32, width: u32) -> Geometry {
    let (w, h) = (u64::from(picture.width()), u64::from(picture.height()));
    let (cover_w, cover_h) = (u64::from(width) * 8 / 7, u64::from(height) * 8 / 7);
    // The side that needs the larger scale becomes exactly its cover; the other is rounded down,
    // and still covers.
    let (resized_width, resized_height) = if cover_h * w >= cover_w * h {
        (cover_h * w / h, cover_h)
    } else {
        (cover_w, cover_w * h / w)
    };
    Geometry {
        resized_width,
        resized_height,
        left: half_to_even(resized_width - u64::from(width)),
        top: half_to_even(resized_height - u64::from(height)),
    }
}

/// Python's `round(n / 2)`: a half goes to the even neighbour (0.5 to 0, 1.5 to 2, 2.5 to 2).
fn half_to_even(n: u64) -> u64 {
    n / 2 + u64::from(n % 4 == 3)
}
