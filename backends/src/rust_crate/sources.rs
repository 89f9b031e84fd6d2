//! The files that are copied into every crate.

use crate::template::Template;

/// The files of a folder, by their paths in it.
macro_rules! files {
    ($folder:literal: $($path:literal)*) => {
        &[$(($path, include_str!(concat!("../../../", $folder, "/", $path)))),*]
    };
}

/// `kernels/src/cpu`, verbatim.
const KERNELS: &[(&str, &str)] = files!("kernels/src/cpu":
    "attention/chunk.rs"
    "attention/mod.rs"
    "attention/products.rs"
    "attention/single.rs"
    "attention/window.rs"
    "depthwise.rs"
    "engine.rs"
    "expand.rs"
    "head.rs"
    "isa.rs"
    "layer_norm.rs"
    "map.rs"
    "math.rs"
    "mod.rs"
    "pointwise.rs"
    "simd/avx2.rs"
    "simd/avx512.rs"
    "simd/mod.rs"
    "simd/neon.rs"
    "simd/portable.rs"
    "simd/quad.rs"
    "simd/wasm.rs"
    "slide.rs"
    "stem.rs"
    "threads/pool.rs"
    "threads.rs"
);

/// `preprocess/src`.
const PREPROCESS: &[(&str, &str)] = files!("preprocess/src":
    "error.rs" "geometry.rs" "lib.rs" "picture.rs" "resample.rs" "transform.rs"
);

/// The kernels, as `src/kernels/`.
pub fn kernels() -> impl Iterator<Item = (String, Vec<u8>)> {
    let file =
        |(path, text): &(&str, &str)| (format!("src/kernels/{path}"), text.as_bytes().into());
    KERNELS.iter().map(file)
}

/// The preprocessing, as `src/preprocess/`; its examples say the crate's name.
pub fn preprocess(template: &Template) -> impl Iterator<Item = (String, Vec<u8>)> {
    let name = template.fill("@{module}::preprocess");
    PREPROCESS.iter().map(move |(path, text)| {
        let path = if *path == "lib.rs" { "mod.rs" } else { path };
        let text = text.replace("emoc_preprocess", &name);
        (format!("src/preprocess/{path}"), text.into_bytes())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::{Path, PathBuf};

    fn found(folder: &Path, inside: &Path, paths: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let entry = entry.expect("an entry");
            let path = inside.join(entry.file_name());
            match entry.path().is_dir() {
                true => found(&entry.path(), &path, paths),
                false => paths.push(path),
            }
        }
    }

    #[test]
    fn no_file_is_forgotten() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        for (folder, files) in [("kernels/src/cpu", KERNELS), ("preprocess/src", PREPROCESS)] {
            let mut paths = Vec::new();
            found(&root.join(folder), Path::new(""), &mut paths);
            paths.sort();
            let listed: Vec<_> = files.iter().map(|(path, _)| PathBuf::from(path)).collect();
            assert_eq!(listed, paths, "{folder}");
        }
    }
}
