use std::fmt;

use super::{MAX_PICTURE_SIDE, MAX_TARGET_SIDE};

/// Why a picture or a target size was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// A side of the picture is zero or above [`MAX_PICTURE_SIDE`].
    PictureSize {
        /// In pixels.
        width: u32,
        /// In pixels.
        height: u32,
    },
    /// A side of the target is zero or above [`MAX_TARGET_SIDE`].
    TargetSize {
        /// In pixels.
        height: u32,
        /// In pixels.
        width: u32,
    },
    /// A buffer's length is not what the sizes beside it demand.
    Length {
        /// Which buffer: what it holds and in which layout.
        buffer: &'static str,
        /// In elements.
        expected: u64,
        /// In elements.
        found: u64,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PictureSize { width, height } => write!(
                f,
                "a picture of {width}x{height} pixels (width x height) cannot be used: \
                 each side must be 1 to {MAX_PICTURE_SIDE}"
            ),
            Self::TargetSize { height, width } => write!(
                f,
                "a target of {height}x{width} pixels (height x width) cannot be used: \
                 each side must be 1 to {MAX_TARGET_SIDE}"
            ),
            Self::Length {
                buffer,
                expected,
                found,
            } => {
                write!(
                    f,
                    "{buffer} must have {expected} elements, but {found} were given"
                )
            }
        }
    }
}

impl std::error::Error for Error {}

/// Refuses a buffer whose length does not match.
pub(super) fn check_length(buffer: &'static str, expected: u64, found: usize) -> Result<(), Error> {
    let found = found as u64;
    if expected == found {
        Ok(())
    } else {
        Err(Error::Length {
            buffer,
            expected,
            found,
        })
    }
}
