//! What manifests, metadata and `--json` say about a network, and the way back from it.

use emoc_frontend::emo2::{Architecture, Geometry, LocalNorm, Model, Variant, variant};
use emoc_ir::{Diagnostic, Dim, Result, ops::Attention};
use serde::{Deserialize, Serialize};

/// A network without its weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NetworkRecord {
    pub name: String,
    /// The published variant; none for a network of the user's own.
    pub variant: Option<String>,
    pub input_size: [usize; 2],
    pub batch: BatchRecord,
    pub window: usize,
    /// None for a backbone.
    pub classes: Option<usize>,
    pub stem: usize,
    pub depths: [usize; 4],
    pub dims: [usize; 4],
    pub mids: [[usize; 2]; 4],
    pub kernels: [usize; 4],
    pub dim_heads: [usize; 4],
    pub attention: AttentionRecord,
    pub local_norm: LocalNormRecord,
}

/// Images per inference.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum BatchRecord {
    Fixed(usize),
    Symbolic(Dynamic),
}

/// The word for a batch that the user of the artifact chooses.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dynamic {
    Dynamic,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AttentionRecord {
    Hybrid,
    Remote,
    Close,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LocalNormRecord {
    BatchNorm,
    LayerNorm,
}

impl NetworkRecord {
    pub fn of(model: &Model) -> Self {
        let Architecture {
            variant,
            stem,
            depths,
            dims,
            mids,
            kernels,
            dim_heads,
            attention,
            local_norm,
            classes,
        } = model.architecture.clone();
        Self {
            name: model.graph.name.clone(),
            variant: variant.map(|row| row.name.to_owned()),
            input_size: model.geometry.input_size,
            batch: match model.geometry.batch {
                Dim::Fixed(n) => BatchRecord::Fixed(n),
                Dim::Batch(_) => BatchRecord::Symbolic(Dynamic::Dynamic),
            },
            window: model.geometry.window,
            classes,
            stem,
            depths,
            dims,
            mids,
            kernels,
            dim_heads,
            attention: match attention {
                Attention::Hybrid | Attention::CloseTwice => AttentionRecord::Hybrid,
                Attention::Remote => AttentionRecord::Remote,
                Attention::Close => AttentionRecord::Close,
            },
            local_norm: match local_norm {
                LocalNorm::BatchNorm => LocalNormRecord::BatchNorm,
                LocalNorm::LayerNorm => LocalNormRecord::LayerNorm,
            },
        }
    }

    /// The published variant that the record names.
    pub fn variant(&self) -> Option<&'static Variant> {
        self.variant.as_deref().and_then(variant)
    }

    pub fn attention(&self) -> Attention {
        match self.attention {
            AttentionRecord::Hybrid => Attention::Hybrid,
            AttentionRecord::Remote => Attention::Remote,
            AttentionRecord::Close => Attention::Close,
        }
    }

    /// The network's name for people: `EMOv2 5M at 224x224`.
    pub fn title(&self) -> String {
        let [height, width] = self.input_size;
        let name = match self.variant.as_deref() {
            None => self.name.clone(),
            Some(variant) => match variant.strip_prefix("emo1-") {
                Some(variant) => format!("EMOv1 {variant}"),
                None => format!("EMOv2 {variant}"),
            },
        };
        format!("{name} at {height}x{width}")
    }

    pub fn batch(&self) -> Dim {
        match self.batch {
            BatchRecord::Fixed(n) => Dim::Fixed(n),
            BatchRecord::Symbolic(_) => Dim::Batch(1),
        }
    }

    pub fn geometry(&self) -> Geometry {
        Geometry {
            input_size: self.input_size,
            batch: self.batch(),
            window: self.window,
        }
    }

    /// The architecture, if the numbers can be one: a record is read from files of any origin.
    ///
    /// # Errors
    /// Numbers that no network has.
    pub fn architecture(&self) -> Result<Architecture> {
        let within = |n: usize, most: usize| (1..=most).contains(&n);
        let stage = |i: usize| {
            within(self.depths[i], 100)
                && within(self.dims[i], 1 << 14)
                && self.mids[i].iter().all(|&mid| within(mid, 1 << 16))
                && within(self.kernels[i], 31)
                && within(self.dim_heads[i], self.dims[i])
                && self.dims[i].is_multiple_of(self.dim_heads[i])
        };
        let sane = within(self.stem, 1 << 14)
            && (0..4).all(stage)
            && self.classes.is_none_or(|classes| within(classes, 1 << 20));
        if !sane {
            return Err(Diagnostic::input("the metadata describes no network"));
        }
        Ok(Architecture {
            variant: self.variant(),
            stem: self.stem,
            depths: self.depths,
            dims: self.dims,
            mids: self.mids,
            kernels: self.kernels,
            dim_heads: self.dim_heads,
            attention: self.attention(),
            local_norm: match self.local_norm {
                LocalNormRecord::BatchNorm => LocalNorm::BatchNorm,
                LocalNormRecord::LayerNorm => LocalNorm::LayerNorm,
            },
            classes: self.classes,
        })
    }
}
