//! What `--help` shows: examples that work, and exit codes.

pub const EXIT_CODES: &str = "\
Exit codes:
  0   done
  1   an artifact disagrees with the reference; nothing was written
  2   the command line is wrong, or leaves something open
  3   an input is refused: not what it should be, damaged, or hostile
  4   the file system: missing, exists already, not writable, full
  5   a runtime that was asked for is not there
  70  a defect of emoc itself; please report it
  130, 143  interrupted (SIGINT, SIGTERM); nothing half-written is left";

pub const EXAMPLES: &str = "\
Examples:
  emoc inspect EMOv2_5M.pth
  emoc compile --checkpoint EMOv2_5M.pth --target onnx
  emoc compile --variant 5M --target onnx          # without a checkpoint: seeded weights
  emoc compile --checkpoint EMOv2_5M.pth --target rust
  emoc compile --checkpoint EMOv2_5M.pth --target tensorrt --precision f16
  emoc check emov2_5m_224.onnx --checkpoint EMOv2_5M.pth
  emoc run emov2_5m_224.onnx cat.jpg
  emoc eval emov2_5m_224.onnx --data imagenet
  emoc report emov2_5m_224.onnx --checkpoint EMOv2_5M.pth
";

pub const COMPILE_EXAMPLES: &str = "\
Examples:
  emoc compile --checkpoint EMOv2_5M.pth
      writes emov2_5m_224.onnx and emov2_5m_224.json, checked in every runtime found
  emoc compile --checkpoint latest_ckpt.pth --weights ema --output model.onnx --labels names.txt
  emoc compile --checkpoint detector.pth --input-size 300 --window 10
      a backbone without a head: outputs stage1 to stage4
  emoc compile --variant 5M --input-size 512 --batch dynamic
  emoc compile --checkpoint EMOv2_5M.pth --precision f16 --islands auto
  emoc compile --checkpoint EMOv2_5M.pth --target rust --weights-dtype f16
      writes the crate emov2-5m-224/, built with cargo and checked
  emoc compile --checkpoint EMOv2_5M.pth --target tensorrt --precision f16 --batch 1..8:4
      writes emov2_5m_224_tensorrt/, from which build.sh makes the engine on the GPU
  emoc compile --checkpoint EMOv2_5M.pth --print-after i2rmb --no-check > graph.emir
";

pub const INSPECT_EXAMPLES: &str = "\
Examples:
  emoc inspect EMOv2_5M.pth --input-size 512
  emoc inspect emov2_5m_224.onnx
  emoc inspect emov2-5m-224/                       # a Rust crate
  emoc inspect --variant 5M --graph > emov2_5m.emir
  emoc inspect any_checkpoint.pt --tensors --json
";

pub const CHECK_EXAMPLES: &str = "\
Examples:
  emoc check emov2_5m_224.onnx --checkpoint EMOv2_5M.pth
  emoc check emov2_5m_224.onnx --per-block         # compiled from seeded weights
  emoc check emov2-5m-224/ --checkpoint EMOv2_5M.pth
      builds the crate and runs it, as `cargo run` would: only for code that you trust
";

pub const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  emoc completions bash > ~/.local/share/bash-completion/completions/emoc
  emoc completions zsh > ~/.zfunc/_emoc
  emoc completions fish > ~/.config/fish/completions/emoc.fish
";
