
/// What follows the depthwise convolution: a LayerNorm over all of its channels, an activation,
/// a skip.
struct Normed {
    norm: Norm,
    /// Heads, and channels of each without their padding.
    channels: [usize; 2],
    act: Act,
    /// Whether the convolution's input is added to the result.
    skip: bool,
}

impl Layers {
    fn local_norm(&mut self, form: &Form) -> LocalNorm {
        let Normed {
            ref norm,
            channels: [heads, channels],
            act,
            ..
        } = form.local_norm;
        let len = heads * panels(channels) * LANES;
        LocalNorm {
            norm: LayerNorm {
                channels,
                eps: norm.eps,
                weight: norm.weight.then(|| self.take(len)),
                bias: norm.bias.then(|| self.take(len)),
            },
            heads,
            act,
        }
    }
}

/// The expansion, its depthwise convolution and what follows that. The norm needs all channels
/// before anything can be added to one of them, so a skip is from a whole expanded map.
fn expand_normed(
    engine: &Engine,
    form: &Form,
    expansion: &Expansion,
    local_norm: &LocalNorm,
    from: (usize, Shape, usize),
    arena: &mut [f32],
    scratch: &mut [f32],
) {
    let [_, mid, _] = form.channels;
    let (map, out) = (form.map, form.local.output_shape(form.map));
    let hidden_at = (form.memory.hidden, out, mid);
    if form.local_norm.skip {
        let places = [from, (form.memory.mixed, map, mid), hidden_at];
        let [x, mixed, hidden] = maps(arena, places);
        expansion.expand.run(engine, x, map.pixels(), mixed);
        expansion.local.run(engine, mixed, map, hidden);
        local_norm.run(engine, hidden, out, Some(mixed));
    } else {
        let [x, hidden] = maps(arena, [from, hidden_at]);
        expansion.run(engine, x, map, hidden, scratch);
        local_norm.run(engine, hidden, out, None);
    }
}
