//! [`Tensor`]: name, element type, shape, and bytes that are read when asked for.

use std::{borrow::Cow, sync::Arc};

use emoc_ir::{DType, Diagnostic, Result};
use half::{bf16, f16};
use sha2::{Digest, Sha256};

use crate::source::{Content, Source, hex};

/// One tensor of a checkpoint. Cloning is cheap: the bytes stay in the (memory-mapped) file,
/// which lives as long as any of its tensors.
#[derive(Debug, Clone)]
pub struct Tensor {
    name: String,
    dtype: DType,
    shape: Vec<usize>,
    data: Data,
}

#[derive(Debug, Clone)]
enum Data {
    /// Contiguous, row-major, little-endian.
    Owned(Arc<[u8]>),
    Stored(View),
}

/// Where a tensor's elements lie in a record. Checked when the checkpoint is opened: every
/// element is inside the record.
#[derive(Debug, Clone)]
pub(crate) struct View {
    pub source: Arc<Source>,
    pub record: usize,
    /// Bytes before the first element.
    pub offset: usize,
    /// Elements to skip per axis; 0 repeats.
    pub strides: Vec<usize>,
}

impl Tensor {
    pub(crate) fn stored(name: String, dtype: DType, shape: Vec<usize>, view: View) -> Self {
        let data = Data::Stored(view);
        Self {
            name,
            dtype,
            shape,
            data,
        }
    }

    /// A tensor from contiguous, row-major, little-endian bytes.
    ///
    /// # Errors
    /// The number of bytes is not what `dtype` and `shape` need.
    pub fn from_bytes(
        name: impl Into<String>,
        dtype: DType,
        shape: &[usize],
        bytes: impl Into<Arc<[u8]>>,
    ) -> Result<Self> {
        let (name, bytes) = (name.into(), bytes.into());
        let sizes = shape.iter().copied().chain([dtype.size()]);
        let needed = sizes.into_iter().try_fold(1, usize::checked_mul);
        if needed != Some(bytes.len()) {
            let found = bytes.len();
            return Err(Diagnostic::internal(format!(
                "{found} bytes are given for a tensor of {dtype} {shape:?}"
            ))
            .key(name));
        }
        Ok(Self {
            name,
            dtype,
            shape: shape.to_vec(),
            data: Data::Owned(bytes),
        })
    }

    /// The path of keys from the root of the checkpoint, joined with `/`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Sizes of the axes, outermost first; empty for a scalar.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Number of elements.
    pub fn numel(&self) -> usize {
        // An empty axis comes first: the other sizes may be anything, their product too.
        match self.shape.contains(&0) {
            true => 0,
            false => self.shape.iter().product(),
        }
    }

    /// Number of bytes of the contiguous tensor.
    pub fn byte_len(&self) -> usize {
        self.numel() * self.dtype.size()
    }

    /// The elements, contiguous, row-major and little-endian. Borrowed from the file where they
    /// lie there like that; views (offset, strides, expanded) are copied exactly.
    ///
    /// # Errors
    /// The checksum of the record is wrong, or its compressed data is damaged.
    pub fn bytes(&self) -> Result<Cow<'_, [u8]>> {
        let view = match &self.data {
            Data::Owned(bytes) => return Ok(Cow::Borrowed(bytes)),
            Data::Stored(view) => view,
        };
        let content = self.content(view)?;
        let (run, outer) = self.runs(view);
        if outer == 0 {
            let span = view.offset..view.offset + run;
            return Ok(match content {
                Content::Borrowed(bytes) => Cow::Borrowed(&bytes[span]),
                Content::Shared(bytes) => Cow::Owned(bytes[span].to_vec()),
            });
        }
        let mut bytes = Vec::with_capacity(self.byte_len());
        self.for_each_run(view, &content, |run| bytes.extend_from_slice(run));
        Ok(Cow::Owned(bytes))
    }

    /// SHA-256 of [`Self::bytes`], in lower-case hexadecimal, without holding them in memory.
    ///
    /// # Errors
    /// As [`Self::bytes`].
    pub fn sha256(&self) -> Result<String> {
        let mut hasher = Sha256::new();
        self.digest_into(&mut hasher)?;
        Ok(hex(&hasher.finalize()))
    }

    /// Feeds the bytes to a running digest and gives the pages read back.
    pub(crate) fn digest_into(&self, hasher: &mut Sha256) -> Result<()> {
        match &self.data {
            Data::Owned(bytes) => hasher.update(bytes),
            Data::Stored(view) => {
                let content = self.content(view)?;
                self.for_each_run(view, &content, |run| hasher.update(run));
                view.source.release(view.record);
            }
        }
        Ok(())
    }

    /// The elements as `f32`: `F16` and `BF16` are widened exactly, `F64` is rounded once to
    /// nearest even. The pages read are given back.
    ///
    /// # Errors
    /// The element type is not a floating-point type, or as [`Self::bytes`].
    pub fn to_f32(&self) -> Result<Vec<f32>> {
        let bytes = self.bytes()?;
        let values = match self.dtype {
            DType::F32 => elements(&bytes, f32::from_le_bytes).collect(),
            DType::F16 => elements(&bytes, f16::from_le_bytes)
                .map(f32::from)
                .collect(),
            DType::BF16 => elements(&bytes, bf16::from_le_bytes)
                .map(f32::from)
                .collect(),
            DType::F64 => elements(&bytes, f64::from_le_bytes)
                .map(|x| x as f32)
                .collect(),
            other => {
                return Err(self.locate(Diagnostic::input(format!(
                    "the tensor holds {other}, a floating-point tensor is needed"
                ))));
            }
        };
        if let Data::Stored(view) = &self.data {
            view.source.release(view.record);
        }
        Ok(values)
    }

    /// The elements as numbers; none for types that [`DType::numbers`] does not take. The pages
    /// read are given back.
    ///
    /// # Errors
    /// As [`Self::bytes`].
    pub fn to_f64(&self) -> Result<Option<Vec<f64>>> {
        let numbers = self.dtype.numbers(&self.bytes()?);
        if let Data::Stored(view) = &self.data {
            view.source.release(view.record);
        }
        Ok(numbers)
    }

    fn content<'a>(&self, view: &'a View) -> Result<Content<'a>> {
        let content = view.source.content(view.record);
        content.map_err(|error| self.locate(error))
    }

    fn locate(&self, error: Box<Diagnostic>) -> Box<Diagnostic> {
        let error = error.key(self.name.clone());
        match &self.data {
            Data::Stored(view) => match view.source.path() {
                Some(path) => error.file(path),
                None => error,
            },
            Data::Owned(_) => error,
        }
    }

    /// Length in bytes of the longest piece that is contiguous in the record, and the number of
    /// leading axes that must be counted through to visit all pieces.
    fn runs(&self, view: &View) -> (usize, usize) {
        if self.numel() == 0 {
            return (0, 0);
        }
        let mut run = 1;
        let mut outer = self.shape.len();
        while outer > 0 {
            let (size, stride) = (self.shape[outer - 1], view.strides[outer - 1]);
            // The stride of an axis of size 1 is never used.
            if size != 1 && stride != run {
                break;
            }
            run *= size;
            outer -= 1;
        }
        (run * self.dtype.size(), outer)
    }

    /// Visits the tensor's bytes in row-major order, piece by contiguous piece.
    fn for_each_run(&self, view: &View, content: &[u8], mut visit: impl FnMut(&[u8])) {
        let (run, outer) = self.runs(view);
        if run == 0 {
            return;
        }
        let item = self.dtype.size();
        let mut index = vec![0; outer];
        let mut start = view.offset;
        loop {
            visit(&content[start..start + run]);
            // Count up, the last axis fastest.
            let mut axis = outer;
            loop {
                if axis == 0 {
                    return;
                }
                axis -= 1;
                let step = view.strides[axis] * item;
                index[axis] += 1;
                if index[axis] < self.shape[axis] {
                    start += step;
                    break;
                }
                start -= (self.shape[axis] - 1) * step;
                index[axis] = 0;
            }
        }
    }
}

/// Decodes little-endian elements of `N` bytes.
fn elements<'a, const N: usize, T>(
    bytes: &'a [u8],
    decode: impl Fn([u8; N]) -> T + 'a,
) -> impl Iterator<Item = T> + 'a {
    let (chunks, _) = bytes.as_chunks::<N>();
    chunks.iter().map(move |&chunk| decode(chunk))
}
