//! One file to RGB bytes.

use std::{
    error::Error,
    fs::{self, File},
    io::{self, Cursor, Read},
    path::Path,
};

use emoc_ir::{Diagnostic, Result};
use emoc_preprocess::Picture;
use image::{
    ImageDecoder, ImageError, Limits,
    codecs::{bmp::BmpDecoder, jpeg::JpegDecoder, png::PngDecoder, webp::WebPDecoder},
    metadata::Orientation,
};

use super::{
    Format,
    rgb::{bmp_levels, high_byte, png_narrowing, round_down, to_rgb},
};

/// The most pixels of a picture: twice PIL's `Image.MAX_IMAGE_PIXELS`, above which PIL refuses.
pub const MAX_PIXELS: u64 = 2 * 89_478_485;

/// The largest file that is read: the largest picture in the widest layout fits with room to spare.
pub const MAX_FILE_BYTES: u64 = 1 << 31;

/// What a decoder may allocate beside the pixels, where it can be told: a PNG's colour profile and
/// one of its rows.
const MAX_EXTRA: u64 = 128 << 20;

/// A decoded picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoded {
    /// In pixels, as stored: before any rotation.
    pub width: u32,
    /// In pixels, as stored.
    pub height: u32,
    /// Rows from top to bottom, `[height, width, 3]`.
    pub rgb: Vec<u8>,
    /// What the file is, whatever its name.
    pub format: Format,
    /// The file's EXIF orientation, 2 to 8, if it asks for a rotation or reflection. It was *not*
    /// applied, as the official loader does not apply it.
    pub orientation: Option<u8>,
}

impl Decoded {
    /// The picture for [`emoc_preprocess::Transform`].
    ///
    /// # Errors
    ///
    /// If the fields were changed such that `rgb` no longer has `width * height * 3` bytes.
    pub fn picture(&self) -> Result<Picture<'_>> {
        Picture::new(self.width, self.height, &self.rgb)
            .map_err(|error| Diagnostic::input(error.to_string()))
    }
}

/// Reads and decodes a picture file.
///
/// # Errors
///
/// If `path` is not a regular file or cannot be read, and as [`decode`]. Each names the file.
pub fn open(path: &Path) -> Result<Decoded> {
    let bytes = read(path)?;
    decode(&bytes).map_err(|error| error.file(path))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let io = |error: io::Error| Diagnostic::io("read the picture", path, &error);
    // Asked before opening: opening a named pipe would wait for a writer.
    let metadata = fs::metadata(path).map_err(io)?;
    let refuse = |what: String| Err(Diagnostic::input(what).file(path));
    if metadata.is_dir() {
        return refuse("the picture is a folder, not a file".to_owned());
    }
    if !metadata.is_file() {
        return refuse("the picture is not a regular file".to_owned());
    }
    let mut bytes = Vec::new();
    // One byte more than allowed shows a file that is too large, or grows.
    let file = File::open(path).map_err(io)?;
    file.take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(io)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return refuse(format!(
            "the file has more than {MAX_FILE_BYTES} bytes, the most that a picture may have"
        ));
    }
    Ok(bytes)
}

/// Decodes the bytes of a picture file. The first frame of an animation is taken.
///
/// # Errors
///
/// If the bytes are no picture, end early, are damaged, or hold more than [`MAX_PIXELS`].
pub fn decode(bytes: &[u8]) -> Result<Decoded> {
    if bytes.is_empty() {
        return Err(Diagnostic::input("the picture is an empty file"));
    }
    let Some(format) = Format::recognise(bytes) else {
        return Err(Diagnostic::input(
            "no picture: neither JPEG, PNG, WebP nor BMP",
        ));
    };
    if format.is_cut_short(bytes) {
        return Err(truncated(format));
    }
    let reader = Cursor::new(bytes);
    let damaged = |error| damaged(format, &error);
    let mut decoded = match format {
        Format::Jpeg => finish(
            format,
            JpegDecoder::new(reader).map_err(damaged)?,
            high_byte,
        ),
        Format::Png => {
            let decoder = PngDecoder::with_limits(reader, limits()).map_err(damaged)?;
            finish(format, decoder, png_narrowing(bytes))
        }
        Format::WebP => finish(
            format,
            WebPDecoder::new(reader).map_err(damaged)?,
            high_byte,
        ),
        Format::Bmp => finish(format, BmpDecoder::new(reader).map_err(damaged)?, high_byte),
    }?;
    if format == Format::Bmp
        && let Some(levels) = bmp_levels(bytes)
    {
        round_down(&mut decoded.rgb, levels);
    }
    Ok(decoded)
}

fn limits() -> Limits {
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(MAX_EXTRA);
    limits
}

/// The header has been read: checks the size, then decodes.
fn finish(
    format: Format,
    mut decoder: impl ImageDecoder,
    narrow: fn(u16) -> u8,
) -> Result<Decoded> {
    let (width, height) = decoder.dimensions();
    if width == 0 || height == 0 {
        return Err(Diagnostic::input(format!(
            "the {format} picture is empty: {width}x{height} pixels"
        )));
    }
    if u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(Diagnostic::input(format!(
            "the {format} picture has {width}x{height} pixels; no more than {MAX_PIXELS} are read, as by PIL"
        ))
        .help("scale it down first"));
    }
    let damaged = |error| damaged(format, &error);
    decoder.set_limits(limits()).map_err(damaged)?;
    // Damaged EXIF data spoils no picture.
    let orientation = decoder.orientation().map_or(1, Orientation::to_exif);
    let color = decoder.color_type();
    let mut bytes = vec![0; decoder.total_bytes() as usize];
    decoder.read_image(&mut bytes).map_err(damaged)?;
    Ok(Decoded {
        width,
        height,
        rgb: to_rgb(bytes, color, narrow),
        format,
        orientation: Some(orientation).filter(|orientation| *orientation != 1),
    })
}

fn truncated(format: Format) -> Box<Diagnostic> {
    Diagnostic::input(format!("the {format} picture is truncated"))
        .help("copy or download the file again")
}

/// A decoder's error, without what the decoder puts around the cause.
fn damaged(format: Format, error: &ImageError) -> Box<Diagnostic> {
    let (what, cause) = match error {
        ImageError::IoError(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            return truncated(format);
        }
        ImageError::Limits(error) => ("takes too much memory", error.to_string()),
        ImageError::Unsupported(error) => ("is of a kind that is not read", error.to_string()),
        error => (
            "is damaged",
            error
                .source()
                .map_or_else(|| error.to_string(), |cause| cause.to_string()),
        ),
    };
    // Some causes are quoted strings with line ends in them.
    let cause: Vec<&str> = cause.split_whitespace().collect();
    let cause = cause.join(" ");
    Diagnostic::input(format!(
        "the {format} picture {what}: {}",
        cause.trim_matches('"')
    ))
}
