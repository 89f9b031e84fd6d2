//! The test transform of the published EMOv2 accuracy, equal to Pillow and torchvision bit for bit.
//!
//! A picture is resized until it just covers `int(H / 0.875) x int(W / 0.875)` (bicubic with
//! antialias), cropped at the centre to `H x W`, divided by 255 and normalised with ImageNet's
//! mean and standard deviation. For a square target this is torchvision's `Resize(int(size /
//! 0.875), BICUBIC)`, `CenterCrop(size)`, `ToTensor()`, `Normalize(MEAN, STD)` on a PIL image.
//! The rule for other targets is emoc's own; torchvision has none.
//!
//! ```
//! use emoc_preprocess::{Picture, Transform};
//!
//! # fn main() -> Result<(), emoc_preprocess::Error> {
//! let rgb = vec![128; 640 * 427 * 3]; // what a decoder returns: rows of R, G, B bytes
//! let picture = Picture::new(640, 427, &rgb)?;
//! let transform = Transform::new(224, 224)?;
//! let input = transform.apply(&picture); // [3, 224, 224] float32, for the network
//! assert_eq!(input.len(), 3 * 224 * 224);
//! # Ok(())
//! # }
//! ```
//!
//! # What the caller does
//!
//! Decoding belongs to the caller, and so do three decisions that PIL's `convert("RGB")` makes:
//! grey is repeated into the three channels, alpha is dropped (not blended), 16-bit samples
//! become 8-bit. EXIF orientation is not applied: PIL's `Image.open` does not apply it either.
//! With the `image` crate, `image::open(path)?.to_rgb8()` does all of this for 8-bit files.
//!
//! # How equal
//!
//! The crop equals Pillow's in every byte and the tensor equals torchvision's in every bit, given
//! the same decoded bytes. PNG decoders agree; JPEG decoders round differently. On three photos
//! `image` 0.25 and Pillow's libjpeg-turbo differ in 1 to 10 % of the decoded bytes by at most 4
//! levels of 255, and the crops in 2 to 9 % by at most 3 (the tests print it).
//!
//! Pillow means 13.0, the release of the reference: it resizes vertically first when the height
//! shrinks by more than twice as many pixels as the width (pictures about twice as tall as wide),
//! and so does this crate. Releases before it always resize horizontally first; for such pictures
//! they give other bytes than 13.0, by at most 3 levels in a tenth to a fifth of the crop.
//!
//! # Limits
//!
//! A picture's sides are at most [`MAX_PICTURE_SIDE`], a target's at most [`MAX_TARGET_SIDE`].
//! The resized picture is never built: only what the crop needs is computed, so memory stays in
//! proportion to the picture given plus the crop asked for, whatever the aspect ratio.
//!
//! Module paths are relative (`super::`), so that these files also work as a module of another crate.

#![forbid(unsafe_code)]

mod error;
mod geometry;
mod picture;
mod resample;
mod transform;

pub use error::Error;
pub use geometry::{Geometry, MAX_TARGET_SIDE};
pub use picture::{MAX_PICTURE_SIDE, Picture};
pub use transform::{MEAN, STD, Transform};
