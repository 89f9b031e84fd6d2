//! The shape of a packed map.

/// Channels of a panel.
pub const LANES: usize = 16;

/// Panels that hold `channels` channels.
pub const fn panels(channels: usize) -> usize {
    channels.div_ceil(LANES)
}

/// Height and width of a map in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Rows.
    pub height: usize,
    /// Pixels of a row.
    pub width: usize,
}

impl Shape {
    /// A map of `height` rows of `width` pixels.
    pub const fn new(height: usize, width: usize) -> Self {
        Self { height, width }
    }

    /// Number of pixels.
    pub const fn pixels(self) -> usize {
        self.height * self.width
    }

    /// Length in float32 of a packed map with `channels` channels.
    pub const fn packed_len(self, channels: usize) -> usize {
        panels(channels) * self.pixels() * LANES
    }
}
