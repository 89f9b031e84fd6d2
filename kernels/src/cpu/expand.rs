//! An expansion and the depthwise convolution of it in one go.
//!
//! The expanded map is the largest of a network (4.8 MB at 112x112 in the 5M variant) and lives
//! for a moment only, so it is never written out: a task expands some rows of one or two panels
//! into a buffer that fits into the cache, filters them, and keeps the rows that the next ones
//! overlap with.

use core::ops::Range;

use super::{
    Depthwise, Engine, LANES, Pointwise, Shape, depthwise, engine::Shared, panels, pointwise,
};

/// A 1x1 expansion whose result is filtered while its rows are still in cache.
#[derive(Debug, Clone, Copy)]
pub struct Expansion {
    /// The expansion.
    pub expand: Pointwise,
    /// What filters its result; it has as many channels as the expansion has outputs.
    pub local: Depthwise,
}

/// Panels of the expanded map that one task computes at most.
const GROUP: usize = 2;

/// Rows of the result that each thread must have for the map to be shared out by rows: fewer, and
/// the rows that two neighbours both expand are too many.
const SEGMENT_ROWS: usize = 12;

/// Expanded values of one panel that a task keeps, unless fewer make no whole row of the result:
/// two panels fit into the second-level cache of every CPU of the last ten years.
const BUFFER: usize = 32 * 1024;

impl Expansion {
    /// Values of scratch that one thread needs for maps of `shape`.
    pub const fn scratch_len(&self, shape: Shape) -> usize {
        GROUP * self.buffer_rows(shape) * shape.width * LANES
    }

    /// Rows of the result that are filtered in one go.
    const fn band(&self, shape: Shape) -> usize {
        let Depthwise { kernel, stride, .. } = self.local;
        let rows = BUFFER / (shape.width * LANES);
        if rows <= kernel {
            1
        } else {
            (rows - kernel) / stride + 1
        }
    }

    /// Rows of the expanded map that are kept.
    const fn buffer_rows(&self, shape: Shape) -> usize {
        let Depthwise { kernel, stride, .. } = self.local;
        let rows = (self.band(shape) - 1) * stride + kernel;
        if rows < shape.height {
            rows
        } else {
            shape.height
        }
    }

    /// From the packed map `input` of `shape` to the packed map `output` with the channels of
    /// the expansion and the shape of the depthwise convolution's result.
    pub fn run(
        &self,
        engine: &Engine,
        input: &[f32],
        shape: Shape,
        output: &mut [f32],
        scratch: &mut [f32],
    ) {
        let out = self.local.output_shape(shape);
        let count = panels(self.expand.outputs);
        assert_eq!(self.expand.outputs, self.local.channels);
        assert_eq!(input.len(), shape.packed_len(self.expand.inputs));
        assert_eq!(output.len(), out.packed_len(self.local.channels));
        let threads = engine.threads.count();
        // A thread has some rows of all panels, and finds them in its own cache when it projects
        // them. Small maps are shared out by panels.
        let segments = if out.height >= SEGMENT_ROWS * threads {
            threads
        } else {
            1
        };
        // Two panels share what is read of the input; single ones are shared out more evenly.
        let group = if segments == threads || count >= 16 * threads {
            GROUP
        } else {
            1
        };
        let groups = count.div_ceil(group);
        let output = Shared::new(output);
        engine.run(segments * groups, scratch, |task, scratch| {
            let (segment, first) = (task / groups, task % groups * group);
            let edge = |segment| out.height * segment / segments;
            let task = Task {
                layer: self,
                engine,
                input,
                shape,
                output: &output,
                panels: first..count.min(first + group),
                rows: edge(segment)..edge(segment + 1),
            };
            // SAFETY: no other task has these rows of these panels.
            unsafe { task.compute(scratch) };
        });
    }
}

/// Some rows of some panels of the result.
struct Task<'a> {
    layer: &'a Expansion,
    engine: &'a Engine<'a>,
    input: &'a [f32],
    shape: Shape,
    /// The whole result.
    output: &'a Shared<'a>,
    panels: Range<usize>,
    rows: Range<usize>,
}

impl Task<'_> {
    /// Computes them.
    ///
    /// # Safety
    /// Nobody else uses these rows of these panels of the result meanwhile.
    unsafe fn compute(&self, buffer: &mut [f32]) {
        let Self { layer, shape, .. } = *self;
        let band = layer.band(shape);
        // Rows of the expanded map that the buffer holds.
        let mut held = 0..0;
        for start in self.rows.clone().step_by(band) {
            let rows = start..self.rows.end.min(start + band);
            let (_, first) = layer.local.inside(rows.start, shape.height);
            let (taps, last) = layer.local.inside(rows.end - 1, shape.height);
            let needed = first..last + taps.len();
            let kept = self.keep(&held, needed.start, buffer);
            self.expand(kept..needed.end, needed.start, buffer);
            held = needed;
            // SAFETY: they are among the task's rows.
            unsafe { self.filter(rows, &held, buffer) };
        }
    }

    /// Values between the buffer's panels.
    fn stride(&self) -> usize {
        self.layer.buffer_rows(self.shape) * self.shape.width * LANES
    }

    /// Moves the rows from `start` on, of those that are held, to the front; up to which row that
    /// is.
    fn keep(&self, held: &Range<usize>, start: usize, buffer: &mut [f32]) -> usize {
        let row = self.shape.width * LANES;
        let from = start.clamp(held.start, held.end);
        let moved = (from - held.start) * row..(held.end - held.start) * row;
        for panel in buffer
            .chunks_exact_mut(self.stride())
            .take(self.panels.len())
        {
            panel.copy_within(moved.clone(), 0);
        }
        held.end.max(start)
    }

    /// Expands these rows into a buffer that starts with row `first`.
    fn expand(&self, rows: Range<usize>, first: usize, buffer: &mut [f32]) {
        let Shape { width, .. } = self.shape;
        let stride = self.stride();
        let tiles = pointwise::Tiles {
            layer: &self.layer.expand,
            engine: self.engine,
            panels: self.panels.clone(),
            pixels: rows.len() * width,
            input: &self.input[rows.start * width * LANES..],
            input_stride: self.shape.pixels() * LANES,
            output: buffer[(rows.start - first) * width * LANES..].as_mut_ptr(),
            output_stride: stride,
            add: false,
            ahead: false,
            fetch: rows.start == 0 && self.layer.expand.streams(),
        };
        assert!(buffer.len() >= self.panels.len() * stride);
        assert!((rows.end - first) * width * LANES <= stride);
        // SAFETY: the buffer holds these rows of each panel, and is this task's alone.
        unsafe { tiles.compute() };
    }

    /// Filters the expanded rows that are held into these rows of the result.
    ///
    /// # Safety
    /// Nobody else uses them meanwhile.
    unsafe fn filter(&self, rows: Range<usize>, held: &Range<usize>, buffer: &[f32]) {
        let local = &self.layer.local;
        let out = local.output_shape(self.shape);
        let taps = local.kernel * local.kernel * LANES;
        let buffers = buffer.chunks_exact(self.stride());
        for (panel, buffer) in self.panels.clone().zip(buffers) {
            let start = (panel * out.height + rows.start) * out.width * LANES;
            let len = rows.len() * out.width * LANES;
            self.engine.isa.dispatch(depthwise::Rows {
                layer: local,
                weight: self.engine.weights(local.weight + panel * taps, taps),
                bias: self.engine.weights(local.bias + panel * LANES, LANES),
                input: &buffer[..held.len() * self.shape.width * LANES],
                first_row: held.start,
                shape: self.shape,
                // SAFETY: rows of a panel of the task, which nobody else uses.
                output: unsafe { self.output.part(start, len) },
                rows: rows.clone(),
            });
        }
    }
}
