//! The zip container: the input is the file. Start from small files of `torch.save`.
#![no_main]

mod read;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| read::read(bytes.to_vec()));
