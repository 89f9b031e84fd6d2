//! The static memory plan: where in one arena every map of an inference lies.

use emoc_kernels::cpu::{LANES, Shape, panels};

use super::lower::{Form, Head, Mixer, Network};

/// Something that lives from one step to another, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Buffer {
    pub len: usize,
    pub first: usize,
    pub last: usize,
}

/// An offset for each buffer, such that no two that live at the same time overlap, and the length
/// of the arena. The largest are placed first, each at the lowest place that is free.
pub fn place(buffers: &[Buffer]) -> (Vec<usize>, usize) {
    let mut order: Vec<_> = (0..buffers.len()).collect();
    order.sort_by_key(|&index| (std::cmp::Reverse(buffers[index].len), index));
    let mut offsets = vec![0; buffers.len()];
    let mut placed: Vec<usize> = Vec::new();
    for index in order {
        let buffer = buffers[index];
        let meets = |other: &Buffer| buffer.first <= other.last && other.first <= buffer.last;
        let mut taken: Vec<_> = placed
            .iter()
            .filter(|&&other| meets(&buffers[other]))
            .map(|&other| (offsets[other], offsets[other] + buffers[other].len))
            .collect();
        taken.sort_unstable();
        let mut offset = 0;
        for (start, end) in taken {
            if start >= offset + buffer.len {
                break;
            }
            offset = offset.max(end);
        }
        offsets[index] = offset;
        placed.push(index);
    }
    let ends = buffers.iter().zip(&offsets);
    let end = ends.map(|(buffer, offset)| offset + buffer.len).max();
    (offsets, end.unwrap_or(0))
}

/// Offsets of the maps of a block; 0 for one that the block has not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BlockMemory {
    pub x: usize,
    pub normed: usize,
    pub qk: usize,
    pub v: usize,
    pub mixed: usize,
    pub hidden: usize,
    pub y: usize,
}

/// Offsets of everything, in values.
pub struct Plan {
    pub stem: usize,
    pub local: usize,
    /// Of the first block of each stage, and of the others.
    pub stages: Vec<[BlockMemory; 2]>,
    /// Of the normed map, the pooled one and the logits.
    pub head: [usize; 3],
    /// Length of the arena.
    pub len: usize,
}

/// Lengths of the maps that live inside a block only: normed, qk, v, mixed, hidden.
fn inner(form: &Form) -> [usize; 5] {
    let hidden = form.output_map().packed_len(form.mid);
    match &form.mixer {
        Mixer::Expand(_) => {
            let normed = form
                .norm
                .as_ref()
                .map_or(0, |_| form.map.packed_len(form.inputs));
            let kept = form.kept_expansion();
            let mixed = kept.map_or(0, |map| map.packed_len(form.mid));
            [normed, 0, 0, mixed, hidden]
        }
        Mixer::Attention { op, dim_qk, .. } => {
            let [bottom, right] = op.padding(form.map.height, form.map.width);
            let padded = Shape::new(form.map.height + bottom, form.map.width + right);
            let normed = form
                .norm
                .as_ref()
                .map_or(0, |_| padded.packed_len(form.inputs));
            let qk = padded.packed_len(2 * op.heads * dim_qk);
            [
                normed,
                qk,
                padded.packed_len(form.mid),
                form.map.packed_len(form.mid),
                hidden,
            ]
        }
    }
}

/// Lays out all maps of a network.
pub fn plan(network: &Network) -> Plan {
    let mut buffers = Vec::new();
    let mut add = |len: usize, first: usize, last: usize| {
        buffers.push(Buffer { len, first, last });
        buffers.len() - 1
    };
    let half = network.stem_map();
    let stem = add(half.packed_len(network.stem.channels), 0, 1);
    let local = add(half.packed_len(network.local.channels), 1, 2);
    // The steps: stem, local, then three for each stage (first block up to its projection, that
    // projection, other blocks), then the head's. A first block's input is not needed any more
    // when its result is written: at 112x112 that is a fifth of the arena.
    let mut maps = vec![local];
    let mut inside = Vec::new();
    for (index, stage) in network.stages.iter().enumerate() {
        let step = 2 + 3 * index;
        let form = &stage.first.form;
        maps.push(add(
            form.output_map().packed_len(form.outputs),
            step + 1,
            step + 3,
        ));
        let forms = [Some(form), stage.rest.first().map(|block| &block.form)];
        inside.push([0, 1].map(|which: usize| {
            let lens = forms[which].map_or([0; 5], inner);
            let (first, last) = [(step, step + 1), (step + 2, step + 2)][which];
            lens.map(|len| add(len, first, last))
        }));
    }
    let step = 2 + 3 * network.stages.len();
    let head = network.head.as_ref().map(|head| head_lens(network, head));
    let head = head.unwrap_or_default();
    let head = [0, 1, 2].map(|at| add(head[at], step + at, step + at + 1));
    let (offsets, len) = place(&buffers);
    let at = |index: usize| {
        if buffers[index].len == 0 {
            0
        } else {
            offsets[index]
        }
    };
    let block = |stage: usize, which: usize| {
        let [normed, qk, v, mixed, hidden] = inside[stage][which].map(at);
        BlockMemory {
            x: at(maps[stage + which]),
            normed,
            qk,
            v,
            mixed,
            hidden,
            y: at(maps[stage + 1]),
        }
    };
    Plan {
        stem: at(stem),
        local: at(local),
        stages: (0..network.stages.len())
            .map(|s| [block(s, 0), block(s, 1)])
            .collect(),
        head: head.map(at),
        len,
    }
}

fn head_lens(network: &Network, head: &Head) -> [usize; 3] {
    let map = network.last_map();
    let channels = panels(head.channels) * LANES;
    [
        map.packed_len(head.channels),
        channels,
        panels(head.classes) * LANES,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_lives_at_the_same_time_does_not_overlap(
            buffers in prop::collection::vec((0..50usize, 0..10usize, 0..4usize), 0..20)
        ) {
            let buffers: Vec<_> = buffers
                .into_iter()
                .map(|(len, first, steps)| Buffer { len, first, last: first + steps })
                .collect();
            let (offsets, total) = place(&buffers);
            for (i, a) in buffers.iter().enumerate() {
                prop_assert!(offsets[i] + a.len <= total);
                for (j, b) in buffers.iter().enumerate().skip(i + 1) {
                    let alive = a.first <= b.last && b.first <= a.last;
                    let apart = offsets[i] + a.len <= offsets[j] || offsets[j] + b.len <= offsets[i];
                    prop_assert!(!alive || apart || a.len == 0 || b.len == 0, "{i} and {j}");
                }
            }
        }
    }

    #[test]
    fn places_that_are_free_again_are_used() {
        let buffer = |len, first, last| Buffer { len, first, last };
        let (offsets, len) = place(&[buffer(4, 0, 1), buffer(4, 1, 2), buffer(4, 2, 3)]);
        assert_eq!((offsets, len), (vec![0, 4, 0], 8));
    }
}
