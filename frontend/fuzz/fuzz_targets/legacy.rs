//! The legacy format: the input is what follows the magic number.
#![no_main]

mod read;

const MAGIC: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| read::read([MAGIC, bytes].concat()));
