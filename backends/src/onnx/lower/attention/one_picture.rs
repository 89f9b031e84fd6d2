//! A single picture in whole windows: rows ordered by token first, `(token, window)`.
//!
//! The rows are put into the order of the first grouping once, before the projections; the second
//! grouping is one more `Gather` of whole rows each for q, k and v. `[tokens, windows·heads, d]`
//! is then a view, and its transposes with the tokens' axis moved to the end are absorbed by the
//! matrix products of runtimes that know strides: nothing is copied to separate the heads.

use emoc_ir::{Dim, Result};

use super::{
    super::{
        Layout::Rows,
        Lowering,
        layout::Stored,
        windows::{inverse, pixels_by_window},
    },
    Plan, word,
};

impl Lowering<'_> {
    /// The result is rows.
    pub(super) fn attend_in_one_picture(&mut self, plan: &Plan, x: &Stored) -> Result<String> {
        let rows = x.get(&mut self.builder, Rows)?;
        let first = by_token(plan, 0);
        let indices = self.row_indices(plan, &format!("into_{}", word(plan.groupings[0])), &first);
        let rows = self.builder.gather(&plan.part("rows"), &rows, &indices, 0);
        let project = |p| self.project(plan, p, &rows);
        let qkv = plan.projections.each_ref().map(project);
        let mut terms = vec![self.attend_by_token(plan, 0, &qkv)];
        if let Some(&grouping) = plan.groupings.get(1) {
            // Where the rows of the second grouping are in the order of the first.
            let places = inverse(&first);
            let order: Vec<_> = by_token(plan, 1).iter().map(|&row| places[row]).collect();
            let what = format!("{}_to_{}", word(plan.groupings[0]), word(grouping));
            let indices = self.row_indices(plan, &what, &order);
            let qkv = std::array::from_fn(|i| {
                let part = plan.projections[i].part;
                let name = plan.part(&format!("{}.{part}.rows", word(grouping)));
                self.builder.gather(&name, &qkv[i], &indices, 0)
            });
            terms.push(self.attend_by_token(plan, 1, &qkv));
        }
        Ok(self.sum_rows(plan, terms))
    }

    fn row_indices(&mut self, plan: &Plan, what: &str, rows: &[usize]) -> String {
        let name = plan.index_name(what);
        self.builder.indices(&name, &[rows.len()], rows)
    }

    /// Attention in one grouping; rows of q, k, v in the order `(token, window)`. The result is
    /// `[pixels, heads, d]`.
    fn attend_by_token(&mut self, plan: &Plan, number: usize, qkv: &[String; 3]) -> String {
        let grouping = plan.groupings[number];
        let part = |part: &str| plan.part(&format!("{}.{part}", word(grouping)));
        let (tokens, batch) = (plan.tokens(), plan.windows() * plan.op.heads);
        let [q, k, v] = std::array::from_fn(|i| {
            let p = &plan.projections[i];
            let dims = [tokens, batch, plan.head(p)].map(Dim::Fixed);
            let view = self.builder.reshape(&part(p.part), &qkv[i], &dims);
            // q and v [windows·heads, tokens, d], k [windows·heads, d, tokens].
            let perm = if p.part == "k" { [1, 2, 0] } else { [1, 0, 2] };
            let name = part(&format!("{}.transpose", p.part));
            self.builder.transpose(&name, &view, &perm)
        });
        let probabilities = self.probabilities(plan, &plan.part(word(grouping)), &q, &k);
        let y = self.builder.matmul(&part("mix"), &probabilities, &v);
        let y = self.counted(plan, y);
        let dims = [batch * tokens, plan.head_v].map(Dim::Fixed);
        let pieces = self.builder.reshape(&part("pieces"), &y, &dims);
        let places = inverse(&pixels_by_window(grouping, plan.op.window, plan.padded));
        let piece = |place: &usize| {
            let (window, token) = (place / tokens, place % tokens);
            let heads = plan.op.heads;
            (0..heads).map(move |head| (window * heads + head) * tokens + token)
        };
        let indices: Vec<_> = places.iter().flat_map(piece).collect();
        let name = plan.index_name(&format!("from_{}", word(grouping)));
        let dims = [plan.image.pixels(), plan.op.heads];
        let indices = self.builder.indices(&name, &dims, &indices);
        self.builder
            .gather(&plan.part(word(grouping)), &pieces, &indices, 0)
    }
}

/// The pixels in the order `(token, window)` of a grouping.
fn by_token(plan: &Plan, number: usize) -> Vec<usize> {
    let order = pixels_by_window(plan.groupings[number], plan.op.window, plan.padded);
    let (tokens, windows) = (plan.tokens(), plan.windows());
    let rows = (0..tokens).flat_map(|token| (0..windows).map(move |window| (token, window)));
    rows.map(|(token, window)| order[window * tokens + token])
        .collect()
}
