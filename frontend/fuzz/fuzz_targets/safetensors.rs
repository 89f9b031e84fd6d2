//! safetensors: the input is the JSON header, with its length before it and some data behind.
#![no_main]

mod read;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let header = [b"{", bytes].concat();
    let length = (header.len() as u64).to_le_bytes();
    read::read([&length[..], &header, &[0; 64]].concat());
});
