//! The general form: pixels reach their windows, and channels their heads, by one `Gather` of
//! (pixel, head) pieces each for q, k and v, and leave by another for each grouping, so a runtime
//! copies contiguous pieces. Both groupings are one batch of windows.
//!
//! Padded tokens are all alike: one row of zeros in front of the projections stands for all of
//! them, and cropping is not gathering them in the end.

use emoc_ir::Result;

use super::{
    super::{
        Layout::Rows,
        Lowering,
        layout::{Image, Stored},
        windows::{inverse, pixels_by_window},
    },
    Plan, word,
};

impl Lowering<'_> {
    /// The result is rows.
    pub(super) fn attend_in_pieces(&mut self, plan: &Plan, x: &Stored) -> Result<String> {
        let mut rows = x.get(&mut self.builder, Rows)?;
        let mut pixels = plan.image.pixels();
        if plan.is_padded() {
            rows = self.append_zero_row(plan, &rows);
            pixels += 1;
        }
        let into = self.indices_into_windows(plan);
        let [q, k, v] = plan.projections.each_ref().map(|p| {
            let y = self.project(plan, p, &rows);
            let pieces = pixels * plan.op.heads;
            let dims = [plan.image.n, pieces.into(), plan.head(p).into()];
            let part = |part: &str| plan.part(&format!("{}.{part}", p.part));
            let y = self.builder.reshape(&part("pieces"), &y, &dims);
            self.builder.gather(&part("windows"), &y, &into, 1)
        });
        // All three are [N, windows·heads, tokens, d].
        let name = plan.part("k.transpose");
        let k = self.builder.transpose(&name, &k, &[0, 1, 3, 2]);
        let probabilities = self.probabilities(plan, plan.name, &q, &k);
        let y = self.builder.matmul(&plan.part("mix"), &probabilities, &v);
        let y = self.counted(plan, y);
        let pieces = plan.groupings.len() * plan.windows() * plan.op.heads * plan.tokens();
        let dims = [plan.image.n, pieces.into(), plan.head_v.into()];
        let y = self.builder.reshape(&plan.part("pieces"), &y, &dims);
        let terms: Vec<_> = (0..plan.groupings.len())
            .map(|number| self.gather_from_windows(plan, number, &y))
            .collect();
        Ok(self.sum_rows(plan, terms))
    }

    /// Adds a row of zeros after the pixels of every image: the padded token.
    fn append_zero_row(&mut self, plan: &Plan, rows: &str) -> String {
        let Image { n, c, .. } = plan.image;
        let pixels = plan.image.pixels();
        let dims = [n, pixels.into(), c.into()];
        let x = self.builder.reshape(&plan.part("pad.images"), rows, &dims);
        let x = self.builder.pad(&plan.part("pad"), &x, &[0, 0, 0, 0, 1, 0]);
        let dims = [n.times(pixels + 1), c.into()];
        self.builder.reshape(&plan.part("pad.rows"), &x, &dims)
    }

    /// For every window of every grouping, head and token: the number of its (pixel, head).
    fn indices_into_windows(&mut self, plan: &Plan) -> String {
        let (heads, tokens) = (plan.op.heads, plan.tokens());
        let Image { h, w, .. } = plan.image;
        let row = |pixel: usize| {
            let (y, x) = (pixel / plan.padded[1], pixel % plan.padded[1]);
            if y < h && x < w { y * w + x } else { h * w }
        };
        let mut indices = Vec::new();
        for &grouping in plan.groupings {
            let order = pixels_by_window(grouping, plan.op.window, plan.padded);
            for window in order.chunks(tokens) {
                for head in 0..heads {
                    indices.extend(window.iter().map(|&pixel| row(pixel) * heads + head));
                }
            }
        }
        let words: Vec<_> = plan.groupings.iter().map(|&g| word(g)).collect();
        let name = plan.index_name(&format!("into_{}", words.join("_")));
        let windows = plan.groupings.len() * plan.windows();
        self.builder
            .indices(&name, &[windows * heads, tokens], &indices)
    }

    /// Picks every pixel's pieces, one for each head, out of the windows of a grouping.
    fn gather_from_windows(&mut self, plan: &Plan, number: usize, pieces: &str) -> String {
        let (heads, tokens) = (plan.op.heads, plan.tokens());
        let Image { h, w, .. } = plan.image;
        let grouping = plan.groupings[number];
        let places = inverse(&pixels_by_window(grouping, plan.op.window, plan.padded));
        let mut indices = Vec::with_capacity(h * w * heads);
        for pixel in 0..h * w {
            let place = places[pixel / w * plan.padded[1] + pixel % w];
            let window = number * plan.windows() + place / tokens;
            let piece = |head| (window * heads + head) * tokens + place % tokens;
            indices.extend((0..heads).map(piece));
        }
        let name = plan.index_name(&format!("from_{}_{number}", word(grouping)));
        let indices = self.builder.indices(&name, &[h * w, heads], &indices);
        let name = plan.part(word(grouping));
        self.builder.gather(&name, pieces, &indices, 1)
    }
}
