//! Picture files as the official loader sees them: decoded to RGB bytes as PIL's
//! `Image.open(path).convert("RGB")` does, and found in folders as torchvision's `ImageFolder`
//! finds them.

#![warn(missing_docs)]
#![forbid(unsafe_code)]

mod decode;
mod folder;
mod format;
mod jpeg;

pub use decode::{Decoded, MAX_FILE_BYTES, MAX_PIXELS, decode, open};
pub use folder::{ImageFolder, Sample};
pub use format::Format;
