// Shared by the targets: opens a checkpoint and does everything a command would do with it.

use emoc_frontend::{Checkpoint, Choice, StateDict};

/// Must neither panic nor take long, whatever the bytes.
pub fn read(bytes: Vec<u8>) {
    let Ok(checkpoint) = Checkpoint::from_bytes(bytes) else {
        return;
    };
    for tensor in checkpoint.tensors() {
        let bytes = tensor.bytes();
        if let Ok(bytes) = bytes {
            assert_eq!(bytes.len(), tensor.byte_len());
        }
        let _ = tensor.to_f32();
    }
    for choice in [Choice::Net, Choice::Ema] {
        if let Ok(dict) = StateDict::choose(&checkpoint, choice) {
            let _ = dict.sha256();
        }
    }
}
