//! Window partition and merge, as a gather of pixels between transposes of rank 4.
//!
//! The textbook form is one transpose of rank 7, which Core ML and many NPUs refuse. Pixels are
//! gathered in the order of the windows instead, so no tensor has more than four axes.

use emoc_ir::{
    Dim, NodeId, Result, Value,
    ops::{Grouping, Windows},
};

use super::{Layout::Plain, Lowering};

/// The pixels (row-major in a `height` x `width` map) of every window, window after window.
pub(super) fn pixels_by_window(
    grouping: Grouping,
    [window_h, window_w]: [usize; 2],
    [height, width]: [usize; 2],
) -> Vec<usize> {
    let (down, across) = (height / window_h, width / window_w);
    // The coordinate of a token of a window along one axis with `count` windows of `size`.
    let place = |window: usize, token: usize, size: usize, count: usize| match grouping {
        Grouping::Close => window * size + token,
        Grouping::Remote => token * count + window,
    };
    let mut pixels = Vec::with_capacity(height * width);
    for window in 0..down * across {
        for token in 0..window_h * window_w {
            let y = place(window / across, token / window_w, window_h, down);
            let x = place(window % across, token % window_w, window_w, across);
            pixels.push(y * width + x);
        }
    }
    pixels
}

/// Where each pixel went: the inverse of a permutation.
pub(super) fn inverse(order: &[usize]) -> Vec<usize> {
    let mut places = vec![0; order.len()];
    for (place, &pixel) in order.iter().enumerate() {
        places[pixel] = place;
    }
    places
}

fn is_identity(order: &[usize]) -> bool {
    order
        .iter()
        .enumerate()
        .all(|(place, &pixel)| place == pixel)
}

/// Sizes of a partition.
struct Sizes {
    n: Dim,
    heads: usize,
    channels: usize,
    windows: usize,
    tokens: usize,
}

impl Sizes {
    /// The sizes for the image `value`.
    fn of(lowering: &Lowering, windows: &Windows, value: Value) -> Result<Self> {
        let image = lowering.image(value)?;
        let tokens = windows.window[0] * windows.window[1];
        Ok(Self {
            n: image.n,
            heads: windows.heads,
            channels: image.c / windows.heads,
            windows: image.h * image.w / tokens,
            tokens,
        })
    }

    fn pixels(&self) -> [Dim; 3] {
        let Self {
            n,
            heads,
            channels,
            windows,
            tokens,
        } = *self;
        [n, (heads * channels).into(), (windows * tokens).into()]
    }

    fn windows_inside(&self) -> [Dim; 4] {
        let Self {
            n,
            heads,
            channels,
            windows,
            tokens,
        } = *self;
        [n, (heads * channels).into(), windows.into(), tokens.into()]
    }

    fn windows_outside(&self) -> [Dim; 4] {
        let Self {
            n,
            heads,
            channels,
            windows,
            tokens,
        } = *self;
        [
            n.times(windows),
            heads.into(),
            channels.into(),
            tokens.into(),
        ]
    }
}

impl Lowering<'_> {
    pub(super) fn window_partition(
        &mut self,
        id: NodeId,
        windows: &Windows,
        x: Value,
    ) -> Result<()> {
        let name = self.name(id.into());
        let part = |part: &str| format!("{name}.{part}");
        let sizes = Sizes::of(self, windows, x)?;
        let image = self.image(x)?;
        let order = pixels_by_window(windows.grouping, windows.window, [image.h, image.w]);
        let x = self.plain(x)?;
        let mut y = self.builder.reshape(&part("pixels"), &x, &sizes.pixels());
        y = self.reorder(&part("gather"), &y, &order, windows, [image.h, image.w]);
        // [N, heads·c, windows, tokens]
        y = self
            .builder
            .reshape(&part("windows"), &y, &sizes.windows_inside());
        y = self.builder.transpose(&part("outside"), &y, &[0, 2, 1, 3]);
        // [N·windows, heads, c, tokens]
        y = self
            .builder
            .reshape(&part("heads"), &y, &sizes.windows_outside());
        y = self.builder.transpose(&name, &y, &[0, 1, 3, 2]);
        self.bind(id, Plain, y);
        Ok(())
    }

    pub(super) fn window_merge(&mut self, id: NodeId, windows: &Windows, x: Value) -> Result<()> {
        let name = self.name(id.into());
        let part = |part: &str| format!("{name}.{part}");
        let sizes = Sizes::of(self, windows, id.into())?;
        let image = self.image(id.into())?;
        let order = pixels_by_window(windows.grouping, windows.window, [image.h, image.w]);
        let x = self.plain(x)?;
        let mut y = self.builder.transpose(&part("channels"), &x, &[0, 1, 3, 2]);
        let outside = [
            sizes.n,
            sizes.windows.into(),
            (sizes.heads * sizes.channels).into(),
            sizes.tokens.into(),
        ];
        y = self.builder.reshape(&part("heads"), &y, &outside);
        y = self.builder.transpose(&part("inside"), &y, &[0, 2, 1, 3]);
        y = self.builder.reshape(&part("pixels"), &y, &sizes.pixels());
        y = self.reorder(
            &part("gather"),
            &y,
            &inverse(&order),
            windows,
            [image.h, image.w],
        );
        y = self.builder.reshape(&name, &y, &image.dims(Plain));
        self.bind(id, Plain, y);
        Ok(())
    }

    /// Puts the pixels of `[N, C, pixels]` in another order.
    fn reorder(
        &mut self,
        name: &str,
        x: &str,
        order: &[usize],
        windows: &Windows,
        [height, width]: [usize; 2],
    ) -> String {
        if is_identity(order) {
            return x.to_string();
        }
        let indices: Vec<_> = order.iter().map(|&pixel| pixel as i64).collect();
        let grouping = match windows.grouping {
            Grouping::Close => "close",
            Grouping::Remote => "remote",
        };
        let [h, w] = windows.window;
        let constant = format!("const.{grouping}_{h}x{w}_of_{height}x{width}");
        let indices = self.builder.ints(&constant, &indices);
        self.builder.gather(name, x, &indices, 2)
    }
}
