
/// norm -> mean over the map -> classifier.
fn head(engine: &Engine, arena: &mut [f32], output: &mut Output) {
    let Head {
        map,
        channels,
        at: [x, normed, pooled, logits],
        ..
    } = HEAD;
    let pixel = Shape::new(1, 1);
    let mut from = (x, map, channels);
    if let Some(norm) = &HEAD.norm {
        let normed_at = (normed, map, channels);
        let [x, normed] = maps(arena, [from, normed_at]);
        norm.run(engine, x, map, normed, map);
        from = normed_at;
    }
    let [x, pooled_map] = maps(arena, [from, (pooled, pixel, channels)]);
    average_pool(engine, x, map, pooled_map);
    let classes = HEAD.linear.outputs;
    let places = [(pooled, pixel, channels), (logits, pixel, classes)];
    let [pooled, logits] = maps(arena, places);
    HEAD.linear.run(engine, pooled, 1, logits);
    output.0.copy_from_slice(&logits[..classes]);
}

/// What follows the last block.
struct Head {
    map: Shape,
    channels: usize,
    norm: Option<LayerNorm>,
    linear: Pointwise,
    /// Where the map, the normed map, its mean and the logits lie.
    at: [usize; 4],
}
