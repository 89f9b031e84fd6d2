//! Picture files as the official loader sees them: decoded to RGB bytes as PIL's
//! `Image.open(path).convert("RGB")` does, and found in folders as torchvision's `ImageFolder`
//! finds them.
//!
//! JPEG, PNG, WebP and BMP are recognised by their content. Alpha is dropped (not blended), grey
//! repeated, palettes are looked up; of 16-bit samples the high byte is kept, but 16-bit grey is
//! clipped to 255, as PIL does. The first frame of an animation is taken. EXIF orientation is
//! not applied, since PIL does not apply it, and reported.
//!
//! # How equal to Pillow 13.0
//!
//! PNG, WebP (lossy too) and BMP: in every byte (`tests/pillow.rs`, and photos). JPEG decoders
//! round differently: on photos `image` 0.25 and Pillow's libjpeg-turbo differ in 0.4 to 1.2 % of
//! the bytes with full-size chroma and in 1.2 to 16 % with halved chroma, nearly all by one
//! level, at most by 5 of 255. The last row of a picture whose height ends inside a block of
//! halved chroma can differ by more, as it is interpolated from beyond the edge: up to 9 levels
//! in noise.
//!
//! What Pillow refuses is refused: truncated files, more than [`MAX_PIXELS`]. A little more is: a
//! PNG whose data is whole but not its end, checksums that are wrong, JPEG of 12 bits or with
//! arithmetic coding.

#![warn(missing_docs)]
#![forbid(unsafe_code)]

mod decode;
mod folder;
mod format;
mod rgb;

pub use decode::{Decoded, MAX_FILE_BYTES, MAX_PIXELS, decode, open};
pub use folder::{ImageFolder, Sample, class_names};
pub use format::Format;
