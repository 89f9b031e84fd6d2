//! One window over the whole map: nothing has to be gathered.
//!
//! The projections are 1x1 convolutions. Their results `[N, heads·d, H·W]` are split into heads
//! as they stand, and `v · probabilitiesᵀ` is an image `[N, heads·d, H, W]` again, so everything
//! stays channels first. Over as few pixels as such a map has, convolutions also run faster than
//! products of rows.

use emoc_ir::{Result, ops::Conv2d};

use super::{
    super::{Layout::Plain, Lowering, layout::Stored},
    Plan,
};

/// Swaps the last two of four axes.
const TRANSPOSE: &[i64] = &[0, 1, 3, 2];

impl Lowering<'_> {
    /// The result is a plain image.
    pub(super) fn attend_in_one_window(&mut self, plan: &Plan, x: &Stored) -> Result<String> {
        let x = x.get(&mut self.builder, Plain)?;
        let [q, k, v] = plan.projections.each_ref().map(|p| {
            let name = plan.part(p.part);
            let [outputs, inputs] = plan.dims(p);
            let dims = [outputs, inputs, 1, 1];
            let weight = self.builder.floats(&p.keys[0], &dims, &p.weight);
            let bias = self.bias(p);
            let weights: Vec<_> = [&weight].into_iter().chain(&bias).map(|w| &**w).collect();
            let conv = Conv2d::pointwise();
            let y = self.builder.conv(&name, &x, &weights, [1, 1], &conv);
            let y = self.activated(plan, p, y);
            let (heads, pixels) = (plan.op.heads, plan.image.pixels());
            let dims = [
                plan.image.n,
                heads.into(),
                plan.head(p).into(),
                pixels.into(),
            ];
            self.builder.reshape(&format!("{name}.heads"), &y, &dims)
        });
        let b = &mut self.builder;
        let q = b.transpose(&plan.part("q.transpose"), &q, TRANSPOSE);
        let probabilities = self.probabilities(plan, plan.name, &q, &k);
        let name = plan.part("softmax.transpose");
        let by_key = self.builder.transpose(&name, &probabilities, TRANSPOSE);
        let y = self.builder.matmul(&plan.part("mix"), &v, &by_key);
        let y = self.counted(plan, y);
        Ok(self
            .builder
            .reshape(plan.name, &y, &plan.wide().dims(Plain)))
    }
}
