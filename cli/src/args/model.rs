//! What a checkpoint does not say about its network, and how it is typed.

use clap::{
    Args, ValueEnum,
    builder::{PossibleValuesParser, TypedValueParser},
};
use emoc_frontend::{
    Choice,
    emo2::{self, VARIANTS, Variant},
};
use emoc_ir::{Diagnostic, Dim, ops::Attention};

/// What the weights do not say.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Network")]
pub struct ModelArgs {
    /// The published variant; needed only without a checkpoint
    #[arg(long, value_parser = variant_parser(), ignore_case = true)]
    pub variant: Option<&'static Variant>,
    /// Which weights of a trainer's file: the network's, or their moving average (`net_E`)
    #[arg(long, value_enum)]
    pub weights: Option<Weights>,
    /// Input height and width in pixels: 224, or 300x200 [default: 224]
    #[arg(long, value_name = "H[xW]", value_parser = input_size)]
    pub input_size: Option<[usize; 2]>,
    /// Side of the attention windows; 0 is one window over the whole map [default: 8 at 256 and
    /// 512, otherwise 7]
    #[arg(long, value_name = "N")]
    pub window: Option<u16>,
    /// Images per inference: a number, or `dynamic`; for TensorRT also 1..8:4, from 1 to 8 and
    /// fastest for 4 [default: 1]
    #[arg(long, value_name = "N|dynamic|MIN..MAX[:OPT]", value_parser = batch)]
    pub batch: Option<BatchArg>,
    /// Seed of the weights without a checkpoint [default: 0]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Channels of one q or k head in stages 3 and 4, for a network that is not published
    #[arg(long, value_name = "A,B", value_parser = dim_head)]
    pub dim_head: Option<[usize; 2]>,
    /// Which windows attend, for a network that is not published
    #[arg(long, value_enum)]
    pub attention: Option<AttentionArg>,
    /// Accept weights with NaN, infinity or a negative variance
    #[arg(long)]
    pub allow_nonfinite: bool,
    /// Refuse the checkpoint unless the file, or the content of its weights, has this SHA-256
    #[arg(long, value_name = "HEX", value_parser = sha256)]
    pub expect_sha256: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Weights {
    /// The network's own
    Net,
    /// Their exponential moving average
    Ema,
}

impl From<Weights> for Choice {
    fn from(weights: Weights) -> Self {
        match weights {
            Weights::Net => Choice::Net,
            Weights::Ema => Choice::Ema,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AttentionArg {
    /// EMOv2: the sum of both
    Hybrid,
    /// EMOv1: dilated windows
    Remote,
    /// Contiguous windows
    Close,
}

impl From<AttentionArg> for Attention {
    fn from(attention: AttentionArg) -> Self {
        match attention {
            AttentionArg::Hybrid => Attention::Hybrid,
            AttentionArg::Remote => Attention::Remote,
            AttentionArg::Close => Attention::Close,
        }
    }
}

fn variant_parser() -> impl TypedValueParser<Value = &'static Variant> {
    PossibleValuesParser::new(VARIANTS.iter().map(|row| row.name))
        .try_map(|name| emo2::variant(&name).ok_or("no such variant"))
}

/// Height and width, as they are typed.
pub fn input_size(text: &str) -> Result<[usize; 2], String> {
    let side = |side: &str| {
        let pixels = side.parse().ok().filter(|&pixels| pixels > 0);
        pixels.ok_or_else(|| "a size is 224, or 300x200 (height x width)".to_owned())
    };
    match text.split_once(['x', 'X']) {
        Some((height, width)) => Ok([side(height)?, side(width)?]),
        None => side(text).map(|side| [side, side]),
    }
}

impl ModelArgs {
    /// The first of these flags that is given.
    pub fn first_given(&self) -> Option<&'static str> {
        let flags = [
            ("--variant", self.variant.is_some()),
            ("--weights", self.weights.is_some()),
            ("--input-size", self.input_size.is_some()),
            ("--window", self.window.is_some()),
            ("--batch", self.batch.is_some()),
            ("--seed", self.seed.is_some()),
            ("--dim-head", self.dim_head.is_some()),
            ("--attention", self.attention.is_some()),
            ("--allow-nonfinite", self.allow_nonfinite),
            ("--expect-sha256", self.expect_sha256.is_some()),
        ];
        let given = flags.iter().find(|(_, given)| *given);
        given.map(|&(flag, _)| flag)
    }

    /// A range of batches is what an engine is built for, and nothing else.
    ///
    /// # Errors
    /// There is one.
    pub fn refuse_range(&self) -> emoc_ir::Result<()> {
        match self.batch {
            Some(BatchArg::Range { .. }) => {
                let message = "a range of batches is for compile --target tensorrt";
                Err(Diagnostic::usage(message).help("--batch dynamic takes any number of images"))
            }
            _ => Ok(()),
        }
    }
}

/// Images per inference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchArg {
    /// That many.
    Fixed(usize),
    /// Any number.
    Dynamic,
    /// Any number, of which a TensorRT engine takes this range.
    Range { min: usize, opt: usize, max: usize },
}

impl BatchArg {
    /// The first axis of the input.
    pub fn dim(self) -> Dim {
        match self {
            BatchArg::Fixed(images) => Dim::Fixed(images),
            BatchArg::Dynamic | BatchArg::Range { .. } => Dim::Batch(1),
        }
    }
}

impl From<Dim> for BatchArg {
    fn from(dim: Dim) -> Self {
        dim.fixed().map_or(BatchArg::Dynamic, BatchArg::Fixed)
    }
}

fn batch(text: &str) -> Result<BatchArg, String> {
    let number = |text: &str| text.parse().ok().filter(|&images| images > 0);
    let range = |(min, rest): (&str, &str)| {
        let (max, opt) = rest.split_once(':').unwrap_or((rest, rest));
        let (min, opt, max) = (number(min)?, number(opt)?, number(max)?);
        let rising = min <= opt && opt <= max;
        rising.then_some(BatchArg::Range { min, opt, max })
    };
    let batch = match (text, text.split_once("..")) {
        ("dynamic", _) => Some(BatchArg::Dynamic),
        (_, Some(parts)) => range(parts),
        (_, None) => number(text).map(BatchArg::Fixed),
    };
    batch.ok_or_else(|| {
        "a batch is a number from 1, `dynamic`, or for TensorRT 1..8:4, the middle of which is last"
            .to_owned()
    })
}

/// Channels of a head, as they are typed.
pub fn dim_head(text: &str) -> Result<[usize; 2], String> {
    let number = |text: &str| text.trim().parse().ok().filter(|&n: &usize| n > 0);
    let pair = text
        .split_once(',')
        .and_then(|(third, fourth)| Some([number(third)?, number(fourth)?]));
    pair.ok_or_else(|| "two numbers are needed, for stages 3 and 4: 20,20".to_owned())
}

fn sha256(text: &str) -> Result<String, String> {
    let hex = text.to_ascii_lowercase();
    let fits = hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit());
    fits.then_some(hex)
        .ok_or_else(|| "a SHA-256 is 64 hexadecimal digits".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        for (text, expected) in [
            ("224", Some([224, 224])),
            ("300x200", Some([300, 200])),
            ("0", None),
            ("300x", None),
            ("x", None),
            ("-1", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(input_size(text).ok(), expected, "--input-size {text}");
        }
        let range = |min, opt, max| BatchArg::Range { min, opt, max };
        for (text, expected) in [
            ("1", Some(BatchArg::Fixed(1))),
            ("dynamic", Some(BatchArg::Dynamic)),
            ("1..8:4", Some(range(1, 4, 8))),
            ("2..8", Some(range(2, 8, 8))),
            ("0", None),
            ("N", None),
            ("0..8", None),
            ("4..2", None),
            ("1..8:9", None),
            ("1..8:", None),
            ("..", None),
        ] {
            assert_eq!(batch(text).ok(), expected, "--batch {text}");
        }
        for (text, expected) in [("20,20", Some([20, 20])), ("20", None), ("0,8", None)] {
            assert_eq!(dim_head(text).ok(), expected, "--dim-head {text}");
        }
    }
}
