//! The pickle machine: the input is `data.pkl` of a zip file with one storage of 64 bytes.
#![no_main]

mod read;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    read::read(zip(&[("a/data.pkl", bytes), ("a/data/0", &[0; 64])]));
});

/// A stored zip file without checksums.
fn zip(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut directory = Vec::new();
    for (name, data) in members {
        let offset = out.len() as u32;
        let size = (data.len() as u32).to_le_bytes();
        let lengths = [name.len() as u8, 0, 0, 0];
        // Flags, method, time, date and CRC are 0.
        let shared = [&[0; 12][..], &size, &size, &lengths].concat();
        out.extend([b"PK\x03\x04\0\0", &shared[..], name.as_bytes(), data].concat());
        directory.extend([b"PK\x01\x02\0\0\0\0", &shared[..], &[0; 10]].concat());
        directory.extend([&offset.to_le_bytes(), name.as_bytes()].concat());
    }
    let (start, size) = (out.len() as u32, directory.len() as u32);
    let count = [members.len() as u8, 0];
    out.extend(directory);
    out.extend([b"PK\x05\x06\0\0\0\0", &count[..], &count].concat());
    out.extend([size.to_le_bytes(), start.to_le_bytes()].concat());
    out.extend([0, 0]);
    out
}
