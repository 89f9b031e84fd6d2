//! How weights are laid out for the kernels of [`cpu`](crate::cpu).

use alloc::{vec, vec::Vec};

use crate::cpu::{LANES, panels};

/// Where logical channels stand in a packed map: groups of equal size (the heads of an
/// attention), each padded with zero channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Channels {
    /// Channels of a group.
    pub group: usize,
    /// Channels a group takes in the packed map.
    pub padded: usize,
    /// Groups.
    pub groups: usize,
}

impl Channels {
    /// `count` channels, one after the other.
    pub const fn plain(count: usize) -> Self {
        Self {
            group: count,
            padded: count,
            groups: 1,
        }
    }

    /// `heads` groups of `size` channels, each padded to whole panels.
    pub const fn heads(heads: usize, size: usize) -> Self {
        Self {
            group: size,
            padded: size.next_multiple_of(LANES),
            groups: heads,
        }
    }

    /// Logical channels.
    pub const fn count(self) -> usize {
        self.groups * self.group
    }

    /// Channels of the packed map, padding between groups included.
    pub const fn packed(self) -> usize {
        self.groups * self.padded
    }

    /// Where channel `index` stands.
    pub const fn position(self, index: usize) -> usize {
        index / self.group * self.padded + index % self.group
    }
}

/// One value per channel as `[panels][16]`: biases, factors.
pub fn vector(values: &[f32], channels: Channels) -> Vec<f32> {
    let mut packed = vec![0.0; panels(channels.packed()) * LANES];
    for (index, &value) in values.iter().enumerate() {
        packed[channels.position(index)] = value;
    }
    packed
}

/// A `[outputs][inputs]` matrix as `[output panels][packed inputs][16]`, for `Pointwise`.
pub fn pointwise(weight: &[f32], outputs: Channels, inputs: Channels) -> Vec<f32> {
    let depth = inputs.packed();
    let mut packed = vec![0.0; panels(outputs.packed()) * depth * LANES];
    for (row, values) in weight.chunks_exact(inputs.count()).enumerate() {
        let output = outputs.position(row);
        let panel = &mut packed[output / LANES * depth * LANES..][..depth * LANES];
        for (index, &value) in values.iter().enumerate() {
            panel[inputs.position(index) * LANES + output % LANES] = value;
        }
    }
    packed
}

/// `[channels][taps]` filters as `[panels][taps][16]`, for `Depthwise` (taps: rows, columns) and
/// `Stem` (taps: planes, rows, columns).
pub fn filters(weight: &[f32], channels: Channels) -> Vec<f32> {
    let taps = weight.len() / channels.count();
    let mut packed = vec![0.0; panels(channels.packed()) * taps * LANES];
    for (index, filter) in weight.chunks_exact(taps).enumerate() {
        let channel = channels.position(index);
        let panel = &mut packed[channel / LANES * taps * LANES..][..taps * LANES];
        for (tap, &value) in filter.iter().enumerate() {
            panel[tap * LANES + channel % LANES] = value;
        }
    }
    packed
}
