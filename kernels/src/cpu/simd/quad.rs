//! Vectors of sixteen in four registers of four.

/// Lanes 0 to 3, 4 to 7, 8 to 11, and 12 to 15.
#[derive(Debug, Clone, Copy)]
pub struct Quad<R>(pub R, pub R, pub R, pub R);

impl<R: Copy> Quad<R> {
    #[inline(always)]
    pub(super) fn splat(r: R) -> Self {
        Self(r, r, r, r)
    }

    #[inline(always)]
    pub(super) fn map(self, f: impl Fn(R) -> R) -> Self {
        Self(f(self.0), f(self.1), f(self.2), f(self.3))
    }

    #[inline(always)]
    pub(super) fn zip(self, b: Self, f: impl Fn(R, R) -> R) -> Self {
        Self(
            f(self.0, b.0),
            f(self.1, b.1),
            f(self.2, b.2),
            f(self.3, b.3),
        )
    }

    #[inline(always)]
    pub(super) fn zip3(self, b: Self, c: Self, f: impl Fn(R, R, R) -> R) -> Self {
        Self(
            f(self.0, b.0, c.0),
            f(self.1, b.1, c.1),
            f(self.2, b.2, c.2),
            f(self.3, b.3, c.3),
        )
    }

    /// Rows become columns, by a function that does so with four rows of four.
    #[inline(always)]
    pub(super) fn transpose(rows: [Self; 16], four: impl Fn([R; 4]) -> [R; 4]) -> [Self; 16] {
        let mut out = rows;
        for i in 0..4 {
            // Four rows become lanes 4 i to 4 i + 3 of every column.
            let [a, b, c, d] = [
                rows[4 * i],
                rows[4 * i + 1],
                rows[4 * i + 2],
                rows[4 * i + 3],
            ];
            let blocks = [
                four([a.0, b.0, c.0, d.0]),
                four([a.1, b.1, c.1, d.1]),
                four([a.2, b.2, c.2, d.2]),
                four([a.3, b.3, c.3, d.3]),
            ];
            for (column, &lanes) in blocks.as_flattened().iter().enumerate() {
                match i {
                    0 => out[column].0 = lanes,
                    1 => out[column].1 = lanes,
                    2 => out[column].2 = lanes,
                    _ => out[column].3 = lanes,
                }
            }
        }
        out
    }
}
