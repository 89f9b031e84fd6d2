/// Width, height and interleaved bytes of the picture that the command line names.
fn picture() -> Result<(u32, u32, Vec<u8>), Box<dyn Error>> {
    match env::args_os().nth(1) {
        Some(path) => read_ppm(&fs::read(path)?),
        None => Ok((
            320,
            240,
            (0..320 * 240 * 3)
                .map(|i| (i / 3 % 320 / 2) as u8)
                .collect(),
        )),
    }
}

/// `P6 <width> <height> 255 <bytes>`, with comments from `#` to the end of a line.
fn read_ppm(bytes: &[u8]) -> Result<(u32, u32, Vec<u8>), Box<dyn Error>> {
    let mut at = 0;
    let mut word = || {
        while let Some(&byte) = bytes.get(at) {
            match byte {
                b'#' => at += bytes[at..].iter().take_while(|&&b| b != b'\n').count(),
                _ if byte.is_ascii_whitespace() => at += 1,
                _ => break,
            }
        }
        let start = at;
        at += bytes[at..]
            .iter()
            .take_while(|b| !b.is_ascii_whitespace())
            .count();
        std::str::from_utf8(&bytes[start..at]).map(str::to_owned)
    };
    let header = [word()?, word()?, word()?, word()?];
    let [magic, width, height, depth] = &header;
    if magic != "P6" || depth != "255" {
        return Err("the picture is no binary PPM of 8 bits".into());
    }
    let pixels = bytes.get(at + 1..).unwrap_or_default().to_vec();
    Ok((width.parse()?, height.parse()?, pixels))
}
