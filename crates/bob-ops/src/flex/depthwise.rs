//! Depthwise convolutions, channels last: the vectors run along the channels, so any stride and dilation is as fast.
//!
//! A task takes some channels and rows of an image and copies what they meet (see [`super::bands`]). In the copy, which
//! has the padding too, all results of a row meet the same kernel pixels, and neighbours meet neighbours.
#![expect(unsafe_code, reason = "vector instructions")]

use std::cell::RefCell;
use std::ops::Range;

use rayon::prelude::*;

use super::bands::{LINE, Layout, Line};
use super::buffer::Shared;
use super::isa::Isa;
use super::patches::Geometry;
use super::vector::{Kernel, Vector, prefetch, run};

/// Lines of channels that a task takes at most: the fewer, the shorter are the runs of memory that it reads and writes.
const BLOCK: usize = 9;
/// Tasks to split into, at least, where there are rows enough.
const TASKS: usize = 16;
/// Lines that a task copies at once, unless a single row needs more: a part of the second-level cache.
const BAND: usize = 8192;
/// Rows of results that are summed for one line of channels before the next line, as they meet much of the same.
const ROWS: usize = 4;
/// Results of a row that are summed side by side; half as many where no more are left.
const GROUP: usize = 14;

thread_local! {
    /// The copies of a task, kept for the next.
    static COPIES: RefCell<Vec<Line>> = const { RefCell::new(Vec::new()) };
}

/// The first `len` lines of `copies`, which hold anything.
fn room(copies: &mut Vec<Line>, len: usize) -> &mut [Line] {
    if copies.len() < len {
        copies.resize(len, Line::ZERO);
    }
    &mut copies[..len]
}

/// The channels of every task: whole lines, and as evenly as these allow.
fn blocks(channels: usize) -> Vec<Range<usize>> {
    let lines = channels.div_ceil(LINE);
    pieces(0..channels, LINE * lines.div_ceil(lines.div_ceil(BLOCK))).collect()
}

/// The rows of every task: in `least` bands or more, so many that one asks for few `lines`, and as evenly as whole rows
/// allow.
fn bands(rows: usize, least: usize, lines: impl Fn(Range<usize>) -> usize) -> Vec<Range<usize>> {
    let fits = |bands: &usize| lines(0..rows.div_ceil(*bands)) <= BAND;
    let bands = (least..rows).find(fits).unwrap_or(rows);
    pieces(0..rows, rows.div_ceil(bands)).collect()
}

/// A range in pieces of `most`, but for the last.
fn pieces(range: Range<usize>, most: usize) -> impl Iterator<Item = Range<usize>> {
    let starts = range.clone().step_by(most);
    starts.map(move |start| start..range.end.min(start + most))
}

/// The rows of a map with all the zeros that the output's pixels see at their sides.
fn seen(geometry: &Geometry, channels: usize) -> Layout {
    let last = (geometry.output[1] - 1) * geometry.stride[1] + (geometry.kernel[1] - 1) * geometry.dilation[1];
    Layout {
        size: geometry.input,
        channels,
        before: geometry.before[1],
        pixels: last + 1,
        stride: 1,
    }
}

/// # Shapes
///   - x: `[batch, height, width, channels]`
///   - weight: `[kernel_height, kernel_width, channels]`
///   - out: `[batch, output_height, output_width, channels]`
pub(super) fn forward(
    x: &[f32],
    weight: &[f32],
    geometry: &Geometry,
    channels: usize,
    out: &mut [f32],
    finish: &(dyn Fn(usize, usize, &mut [f32]) + Sync),
) {
    forward_with(Isa::best(), x, weight, geometry, channels, out, finish);
}

fn forward_with(
    isa: Isa,
    x: &[f32],
    weight: &[f32],
    geometry: &Geometry,
    channels: usize,
    out: &mut [f32],
    finish: &(dyn Fn(usize, usize, &mut [f32]) + Sync),
) {
    if out.is_empty() {
        return;
    }
    let layout = Layout {
        stride: geometry.stride[1],
        ..seen(geometry, channels)
    };
    let [height, width] = geometry.kernel;
    let class = Class::new(
        &layout,
        [0..geometry.output[0], 0..geometry.output[1]],
        [1, 1],
        geometry.stride[0],
        (0..height).map(|i| (i, (i * geometry.dilation[0]) as isize - geometry.before[0] as isize)),
        (0..width).map(|j| (j, layout.place(j * geometry.dilation[1]))),
    );
    let sums = Sums {
        isa,
        map: x,
        layout,
        weight,
        kernel_width: width,
        batch: geometry.batch,
        size: geometry.output,
        classes: vec![class],
    };
    sums.compute(out, finish);
}

/// The gradient of `x`, into `out`, from that of the output.
pub(super) fn x_backward(grad: &[f32], weight: &[f32], geometry: &Geometry, channels: usize, out: &mut [f32]) {
    x_backward_with(Isa::best(), grad, weight, geometry, channels, out);
}

fn x_backward_with(isa: Isa, grad: &[f32], weight: &[f32], geometry: &Geometry, channels: usize, out: &mut [f32]) {
    if out.is_empty() {
        return;
    }
    let [height, width] = geometry.input;
    // The places along an axis at which an input pixel meets the kernel, each with the output pixel of that place.
    let met = |axis: usize, pixel: usize| {
        let stride = geometry.stride[axis] as isize;
        let [before, dilation] = [geometry.before[axis], geometry.dilation[axis]];
        (0..geometry.kernel[axis]).filter_map(move |k| {
            let position = (pixel + before) as isize - (k * dilation) as isize;
            (position.rem_euclid(stride) == 0).then(|| (k, position.div_euclid(stride)))
        })
    };
    let reach = (geometry.kernel[1] - 1) * geometry.dilation[1];
    let zeros = reach.saturating_sub(geometry.before[1]).div_ceil(geometry.stride[1]);
    let layout = Layout {
        size: geometry.output,
        channels,
        before: zeros,
        pixels: zeros + (width - 1 + geometry.before[1]) / geometry.stride[1] + 1,
        stride: 1,
    };
    let mut classes = Vec::new();
    // A stride may be longer than the map.
    for y in 0..geometry.stride[0].min(height) {
        for x in 0..geometry.stride[1].min(width) {
            classes.push(Class::new(
                &layout,
                [y..height, x..width],
                geometry.stride,
                1,
                met(0, y),
                met(1, x).map(|(j, x)| (j, (zeros as isize + x) as usize)),
            ));
        }
    }
    let sums = Sums {
        isa,
        map: grad,
        layout,
        weight,
        kernel_width: geometry.kernel[1],
        batch: geometry.batch,
        size: geometry.input,
        classes,
    };
    sums.compute(out, |_, _, _| {});
}

/// Results that meet the same kernel pixels: every `step`th pixel from the first.
struct Class {
    first: [usize; 2],
    step: [usize; 2],
    /// Results along a row.
    width: usize,
    /// Result `n` down meets row `n * stride + down[k]` of the map at row `k` of these kernel pixels.
    stride: usize,
    down: Vec<isize>,
    /// For every kernel pixel, row by row: lines from row `n * stride` of the map to what the first result meets.
    taps: Vec<isize>,
    /// For every kernel pixel: its row and column in the kernel.
    kernel: Vec<[usize; 2]>,
}

impl Class {
    /// `down` and `along` are the rows and the columns of the kernel pixels in the kernel, each with the row, and the
    /// place in a row of the map, that the first result meets.
    fn new(
        layout: &Layout,
        [rows, columns]: [Range<usize>; 2],
        step: [usize; 2],
        stride: usize,
        down: impl Iterator<Item = (usize, isize)>,
        along: impl Iterator<Item = (usize, usize)>,
    ) -> Self {
        let width = columns.len().div_ceil(step[1]);
        let along: Vec<_> = along.collect();
        assert!(along.iter().all(|(_, place)| place + width <= layout.row()));
        let mut class = Self {
            first: [rows.start, columns.start],
            step,
            width,
            stride,
            down: Vec::new(),
            taps: Vec::new(),
            kernel: Vec::new(),
        };
        for (i, y) in down {
            class.down.push(y);
            for (j, place) in &along {
                class.taps.push(y * layout.row() as isize + *place as isize);
                class.kernel.push([i, *j]);
            }
        }
        class
    }

    /// The results down that are in some rows.
    fn within(&self, rows: &Range<usize>) -> Range<usize> {
        let [before, until] = [rows.start, rows.end].map(|y| y.saturating_sub(self.first[0]).div_ceil(self.step[0]));
        before..until
    }

    /// The kernel pixels at which the results of row `n` meet some rows of the map.
    fn met(&self, n: usize, rows: &Range<isize>) -> Range<usize> {
        let met = |down: &isize| rows.contains(&((n * self.stride) as isize + down));
        let first = self.down.iter().position(met).unwrap_or(self.down.len());
        let count = self.down[first..].iter().take_while(|down| met(down)).count();
        let columns = self.taps.len() / self.down.len().max(1);
        first * columns..(first + count) * columns
    }
}

/// Results that are sums, over kernel pixels, of a map's pixels times weights.
struct Sums<'a> {
    isa: Isa,
    map: &'a [f32],
    layout: Layout,
    weight: &'a [f32],
    kernel_width: usize,
    /// Images, and height and width of the results.
    batch: usize,
    size: [usize; 2],
    /// All together every result once.
    classes: Vec<Class>,
}

impl Sums<'_> {
    /// Compute the results into `out`; `finish` sees every finished piece of a pixel, as `(pixel, first channel,
    /// values)`.
    fn compute(&self, out: &mut [f32], finish: impl Fn(usize, usize, &mut [f32]) + Sync) {
        let channels = self.layout.channels;
        let [height, width] = self.size;
        assert_eq!(out.len(), self.batch * height * width * channels);
        let out = Shared::new(out);
        let weights = self.weights();
        let blocks = blocks(channels);
        let lines = blocks[0].len().div_ceil(LINE);
        let least = TASKS.div_ceil(self.batch * blocks.len());
        let bands = bands(height, least, |rows| lines * self.read(&rows).len() * self.layout.row());
        let tasks = blocks.len() * bands.len();
        (0..self.batch * tasks)
            .into_par_iter()
            .with_max_len(1)
            .for_each(|task| {
                let (image, task) = (task / tasks, task % tasks);
                let (block, rows) = (&blocks[task / bands.len()], &bands[task % bands.len()]);
                let read = self.read(rows);
                let plane = read.len() * self.layout.row();
                COPIES.with_borrow_mut(|copies| {
                    let copies = room(copies, block.len().div_ceil(LINE) * plane + GROUP);
                    self.layout
                        .pack(self.isa, self.map, image, read.clone(), block.clone(), copies);
                    let task = Task {
                        sums: self,
                        copies,
                        read,
                        weights: &weights,
                        out: &out,
                        image,
                        rows: rows.clone(),
                        block: block.clone(),
                    };
                    // SAFETY: the rows and channels are within the output, whose length is asserted, and no other task has
                    // them; their copy has a group of lines behind it; packing asserts that the instruction set is here.
                    unsafe { run(self.isa, task) };
                });
                for pixel in (image * height + rows.start) * width..(image * height + rows.end) * width {
                    let piece = pixel * channels + block.start..pixel * channels + block.end;
                    // SAFETY: these channels of these rows belong to this task alone.
                    finish(pixel, block.start, unsafe { out.slice(piece) });
                }
            });
    }

    /// The rows of the map that some rows of results meet.
    fn read(&self, rows: &Range<usize>) -> Range<isize> {
        let [mut start, mut end] = [self.layout.size[0] as isize, 0];
        for class in &self.classes {
            let n = class.within(rows);
            for down in class.down.iter().filter(|_| !n.is_empty()) {
                start = start.min((n.start * class.stride) as isize + down);
                end = end.max(((n.end - 1) * class.stride) as isize + down + 1);
            }
        }
        let [start, end] = [start, end].map(|y| y.clamp(0, self.layout.size[0] as isize));
        start..end.max(start)
    }

    /// The weights, line of channels by line, class by class, kernel pixel by kernel pixel.
    fn weights(&self) -> Vec<Line> {
        let channels = self.layout.channels;
        let taps: Vec<usize> = self
            .classes
            .iter()
            .flat_map(|class| &class.kernel)
            .map(|[i, j]| i * self.kernel_width + j)
            .collect();
        let mut weights = Vec::with_capacity(taps.len() * channels.div_ceil(LINE));
        for first in (0..channels).step_by(LINE) {
            weights.extend(taps.iter().map(|tap| {
                let start = tap * channels;
                Line::of(&self.weight[start + first..start + channels.min(first + LINE)])
            }));
        }
        weights
    }
}

/// Some rows and channels of an image's results.
struct Task<'a> {
    sums: &'a Sums<'a>,
    /// Rows `read` of the map.
    copies: &'a [Line],
    read: Range<isize>,
    weights: &'a [Line],
    out: &'a Shared<'a>,
    image: usize,
    rows: Range<usize>,
    block: Range<usize>,
}

impl Kernel for Task<'_> {
    /// # Safety
    /// The rows and channels are within the output and nobody else has them, and `copies` has a group of lines beyond
    /// the rows.
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let Sums {
            layout, size, classes, ..
        } = self.sums;
        let plane = self.read.len() * layout.row();
        let taps = self.weights.len() / layout.channels.div_ceil(LINE);
        for rows in pieces(self.rows.clone(), ROWS) {
            for (line, first) in self.block.clone().step_by(LINE).enumerate() {
                let copies = self.copies[line * plane..].as_ptr();
                let mut weights = &self.weights[first / LINE * taps..][..taps];
                for class in classes {
                    let (of_class, others) = weights.split_at(class.taps.len());
                    weights = others;
                    for n in class.within(&rows) {
                        let met = class.met(n, &self.read);
                        let top = ((n * class.stride) as isize - self.read.start) * layout.row() as isize;
                        let y = class.first[0] + n * class.step[0];
                        let pixel = (self.image * size[0] + y) * size[1] + class.first[1];
                        let row = Row {
                            from: copies.wrapping_offset(top),
                            taps: &class.taps[met.clone()],
                            weights: &of_class[met],
                            // SAFETY: the pixel and the channel are within the output.
                            out: unsafe { self.out.pointer().add(pixel * layout.channels + first) },
                            step: class.step[1] * layout.channels,
                            ahead: ROWS * size[1] * layout.channels,
                            channels: LINE.min(self.block.end - first),
                        };
                        // SAFETY: the caller's. The row of the map that a tap in `met` meets is in `read`, and its class
                        // asserts that the row has a line for every result.
                        unsafe { row.sum::<V>(class.width) };
                    }
                }
            }
        }
    }
}

/// A row of results for a line of channels.
struct Row<'a> {
    from: *const Line,
    /// Lines from `from` to what the first result meets.
    taps: &'a [isize],
    weights: &'a [Line],
    out: *mut f32,
    /// Values of `out` from one result to the next.
    step: usize,
    /// Values of `out` to the results whose memory is fetched meanwhile: nobody else sees that they will be written, as
    /// they are written a line of channels at a time.
    ahead: usize,
    channels: usize,
}

impl Row<'_> {
    /// # Safety
    /// At every tap there are `width` lines with what the results meet, and a group of any lines behind them; from `out`
    /// on, the channels of all results are in memory, and nobody else has them.
    #[inline(always)]
    unsafe fn sum<V: Vector>(&self, width: usize) {
        let mut first = 0;
        while first < width {
            let left = width - first;
            for channel in (0..self.channels).step_by(V::LANES) {
                // SAFETY: the caller's: the first result of a group is within the row.
                unsafe {
                    if left > GROUP / 2 {
                        self.group::<V, GROUP>(first, left, channel);
                    } else {
                        self.group::<V, { GROUP / 2 }>(first, left, channel);
                    }
                }
            }
            first += if left > GROUP / 2 { GROUP } else { GROUP / 2 };
        }
    }

    /// The results from `first` on, of which `left` are in the row, for a vector of channels.
    ///
    /// # Safety
    /// As [`Self::sum`].
    #[inline(always)]
    unsafe fn group<V: Vector, const RESULTS: usize>(&self, first: usize, left: usize, channel: usize) {
        // SAFETY: the caller's.
        unsafe {
            let mut sums = [V::splat(0.0); RESULTS];
            let from = self.from.wrapping_add(first);
            for (tap, weight) in self.taps.iter().zip(self.weights) {
                let from = from.wrapping_offset(*tap).cast::<f32>().add(channel);
                let weight = V::load(weight.0.as_ptr().add(channel));
                for (result, sum) in sums.iter_mut().enumerate() {
                    *sum = V::load(from.add(result * LINE)).mul_add(weight, *sum);
                }
            }
            let count = self.channels - channel;
            for (result, sum) in sums.into_iter().enumerate() {
                if result < left {
                    let out = self.out.add((first + result) * self.step + channel);
                    prefetch(out.wrapping_add(self.ahead));
                    if count < V::LANES {
                        sum.store_first(out, count);
                    } else {
                        sum.store(out);
                    }
                }
            }
        }
    }
}

/// Lines of both maps over which the gradient of the weight is summed in registers: most of the first-level cache.
const NEAR: usize = 640;

/// The gradient of the weight, `[kernel_height, kernel_width, channels]`, into `out`, from that of the output.
pub(super) fn weight_backward(x: &[f32], grad: &[f32], geometry: &Geometry, channels: usize, out: &mut [f32]) {
    weight_backward_with(Isa::best(), x, grad, geometry, channels, out);
}

fn weight_backward_with(isa: Isa, x: &[f32], grad: &[f32], geometry: &Geometry, channels: usize, out: &mut [f32]) {
    if out.is_empty() {
        return;
    }
    let taps = geometry.kernel[0] * geometry.kernel[1];
    let x_layout = seen(geometry, channels);
    let grad_layout = Layout {
        size: geometry.output,
        channels,
        before: 0,
        pixels: geometry.output[1],
        stride: 1,
    };
    // The rows that some rows of the output see, those of padding too.
    let read = |rows: &Range<usize>| {
        let last = (rows.end - 1) * geometry.stride[0] + (geometry.kernel[0] - 1) * geometry.dilation[0];
        let before = geometry.before[0] as isize;
        (rows.start * geometry.stride[0]) as isize - before..(last + 1) as isize - before
    };
    let blocks = blocks(channels);
    let lines = blocks[0].len().div_ceil(LINE);
    let least = TASKS.div_ceil(geometry.batch.max(1) * blocks.len());
    let bands = bands(geometry.output[0], least, |rows| {
        lines * (read(&rows).len() * x_layout.row() + rows.len() * grad_layout.row())
    });
    // Every task has sums of its own, so there are no more than are asked for.
    let all = geometry.batch * bands.len();
    let parts: Vec<_> = pieces(0..all, all.div_ceil(TASKS.div_ceil(blocks.len())).max(1)).collect();
    let sums: Vec<Vec<Line>> = (0..blocks.len() * parts.len())
        .into_par_iter()
        .with_max_len(1)
        .map(|task| {
            let (block, part) = (&blocks[task / parts.len()], &parts[task % parts.len()]);
            let lines = block.len().div_ceil(LINE);
            let mut sums = vec![Line::ZERO; lines * taps];
            COPIES.with_borrow_mut(|copies| {
                for band in part.clone() {
                    let (image, rows) = (band / bands.len(), &bands[band % bands.len()]);
                    let seen = read(rows);
                    let split = lines * seen.len() * x_layout.row();
                    let copies = room(copies, split + lines * rows.len() * grad_layout.row());
                    let (x_copy, grad_copy) = copies.split_at_mut(split);
                    x_layout.pack(isa, x, image, seen, block.clone(), x_copy);
                    grad_layout.pack(
                        isa,
                        grad,
                        image,
                        rows.start as isize..rows.end as isize,
                        block.clone(),
                        grad_copy,
                    );
                    let products = Products {
                        geometry,
                        x: x_copy,
                        x_row: x_layout.row(),
                        grad: grad_copy,
                        rows: rows.clone(),
                        sums: &mut sums,
                    };
                    // SAFETY: the copies are of these rows and of all that they see, a plane for every line of sums;
                    // packing asserts that the instruction set is here.
                    unsafe { run(isa, products) };
                }
            });
            sums
        })
        .collect();
    out.par_chunks_mut(channels).enumerate().for_each(|(tap, out)| {
        out.fill(0.0);
        for (block, sums) in blocks.iter().zip(sums.chunks(parts.len().max(1))) {
            for part in sums {
                for (out, line) in out[block.clone()].chunks_mut(LINE).zip(part.chunks_exact(taps)) {
                    for (out, sum) in out.iter_mut().zip(line[tap].0) {
                        *out += sum;
                    }
                }
            }
        }
    });
}

/// Some rows of the output's gradient, multiplied with what they see and added to the sums of all kernel pixels.
struct Products<'a> {
    geometry: &'a Geometry,
    /// What the rows see, line of channels by line, from the first on; and lines of one row.
    x: &'a [Line],
    x_row: usize,
    /// The rows of the gradient.
    grad: &'a [Line],
    rows: Range<usize>,
    /// For every line of channels: all kernel pixels.
    sums: &'a mut [Line],
}

impl Kernel for Products<'_> {
    /// # Safety
    /// Both copies have all of their rows for every line of channels.
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let Geometry {
            kernel,
            stride,
            dilation,
            output,
            ..
        } = *self.geometry;
        let taps = kernel[0] * kernel[1];
        let planes = self.x.chunks_exact(self.x.len() * taps / self.sums.len());
        let planes = planes.zip(self.grad.chunks_exact(self.grad.len() * taps / self.sums.len()));
        let more = stride[0] * self.x_row + output[1];
        let near = (NEAR.saturating_sub((kernel[0] - 1) * dilation[0] * self.x_row) / more).max(1);
        for (sums, (x, grad)) in self.sums.chunks_exact_mut(taps).zip(planes) {
            let plane = Plane {
                geometry: self.geometry,
                x,
                x_row: self.x_row,
                grad,
                first: self.rows.start,
            };
            for rows in pieces(self.rows.clone(), near) {
                let mut j = 0;
                while j < kernel[1] {
                    let columns = match kernel[1] - j {
                        7.. => 7,
                        5.. => 5,
                        3.. => 3,
                        _ => 1,
                    };
                    let mut i = 0;
                    while i < kernel[0] {
                        let (rows, at) = (rows.clone(), [i, j]);
                        // SAFETY: the caller's; the kernel has so many rows and columns from here.
                        unsafe {
                            i += match (columns, kernel[0] - i) {
                                (7, 2..) => plane.add::<V, 2, 7>(rows, at, sums),
                                (7, _) => plane.add::<V, 1, 7>(rows, at, sums),
                                (5, 3..) => plane.add::<V, 3, 5>(rows, at, sums),
                                (5, 2) => plane.add::<V, 2, 5>(rows, at, sums),
                                (5, _) => plane.add::<V, 1, 5>(rows, at, sums),
                                (3, 3..) => plane.add::<V, 3, 3>(rows, at, sums),
                                (3, _) => plane.add::<V, 1, 3>(rows, at, sums),
                                (_, 5..) => plane.add::<V, 5, 1>(rows, at, sums),
                                _ => plane.add::<V, 1, 1>(rows, at, sums),
                            };
                        }
                    }
                    j += columns;
                }
            }
        }
    }
}

/// The copies for one line of channels.
struct Plane<'a> {
    geometry: &'a Geometry,
    x: &'a [Line],
    x_row: usize,
    grad: &'a [Line],
    /// The first row of the gradient.
    first: usize,
}

impl Plane<'_> {
    /// Add the products over some rows for `ROWS` by `COLUMNS` pixels of the kernel; gives `ROWS`.
    ///
    /// # Safety
    /// The copies have these rows and all that they see, and the kernel these pixels.
    #[inline(always)]
    unsafe fn add<V: Vector, const ROWS: usize, const COLUMNS: usize>(
        &self,
        rows: Range<usize>,
        [i, j]: [usize; 2],
        sums: &mut [Line],
    ) -> usize {
        let Geometry {
            input,
            output,
            kernel,
            stride,
            before,
            dilation,
            ..
        } = *self.geometry;
        // Other rows meet only padding.
        let start = before[0]
            .saturating_sub((i + ROWS - 1) * dilation[0])
            .div_ceil(stride[0]);
        let end = (before[0] + input[0])
            .saturating_sub(i * dilation[0])
            .div_ceil(stride[0]);
        let [down, along] = [dilation[0] * self.x_row * LINE, dilation[1] * LINE];
        for lane in (0..LINE).step_by(V::LANES) {
            // SAFETY: the caller's.
            unsafe {
                let mut found = [[V::splat(0.0); COLUMNS]; ROWS];
                for y in rows.start.max(start)..rows.end.min(end) {
                    let row = (y - self.first) * stride[0] + i * dilation[0];
                    let mut x = self
                        .x
                        .as_ptr()
                        .add(row * self.x_row + j * dilation[1])
                        .cast::<f32>()
                        .add(lane);
                    let mut grad = self
                        .grad
                        .as_ptr()
                        .add((y - self.first) * output[1])
                        .cast::<f32>()
                        .add(lane);
                    for _ in 0..output[1] {
                        let gradient = V::load(grad);
                        for (r, found) in found.iter_mut().enumerate() {
                            for (c, found) in found.iter_mut().enumerate() {
                                *found = V::load(x.add(r * down + c * along)).mul_add(gradient, *found);
                            }
                        }
                        x = x.wrapping_add(stride[1] * LINE);
                        grad = grad.wrapping_add(LINE);
                    }
                }
                for (r, found) in found.into_iter().enumerate() {
                    for (c, found) in found.into_iter().enumerate() {
                        let sum = sums[(i + r) * kernel[1] + j + c].0.as_mut_ptr().add(lane);
                        V::splat(1.0).mul_add(V::load(sum), found).store(sum);
                    }
                }
            }
        }
        ROWS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(isa: Isa, geometry: Geometry, channels: usize) {
        let value = |i: usize| ((i * 37 + 11) % 101) as f32 / 50.0 - 1.0;
        // Added to every finished value, which has to be once.
        let mark = |i: usize| (i % 7) as f32;
        let [height, width] = geometry.input;
        let [kernel_height, kernel_width] = geometry.kernel;
        let x: Vec<f32> = (0..geometry.batch * height * width * channels).map(value).collect();
        let weight: Vec<f32> = (0..kernel_height * kernel_width * channels)
            .map(|i| value(i * 7))
            .collect();
        let grad: Vec<f32> = (0..geometry.outputs() * channels).map(|i| value(i * 3)).collect();
        let mut found = [vec![9.0; grad.len()], vec![9.0; x.len()], vec![9.0; weight.len()]];
        let mut expected = [vec![0.0_f64; grad.len()], vec![0.0; x.len()], vec![0.0; weight.len()]];
        let [out, x_grad, weight_grad] = &mut found;
        forward_with(isa, &x, &weight, &geometry, channels, out, &|pixel, first, values| {
            for (channel, value) in (first..).zip(values) {
                *value += mark(pixel * channels + channel);
            }
        });
        x_backward_with(isa, &grad, &weight, &geometry, channels, x_grad);
        weight_backward_with(isa, &x, &grad, &geometry, channels, weight_grad);
        for (i, expected) in expected[0].iter_mut().enumerate() {
            *expected = f64::from(mark(i));
        }
        let [output_height, output_width] = geometry.output;
        for image in 0..geometry.batch {
            for oy in 0..output_height {
                for ox in 0..output_width {
                    for [i, j] in geometry.taps() {
                        let Some([y, x_at]) = geometry.pixel([oy, ox], [i, j]) else {
                            continue;
                        };
                        for c in 0..channels {
                            let at = ((image * output_height + oy) * output_width + ox) * channels + c;
                            let from = ((image * height + y) * width + x_at) * channels + c;
                            let tap = (i * kernel_width + j) * channels + c;
                            expected[0][at] += f64::from(x[from]) * f64::from(weight[tap]);
                            expected[1][from] += f64::from(grad[at]) * f64::from(weight[tap]);
                            expected[2][tap] += f64::from(x[from]) * f64::from(grad[at]);
                        }
                    }
                }
            }
        }
        for (what, (found, expected)) in found.iter().zip(&expected).enumerate() {
            for (found, expected) in found.iter().zip(expected) {
                let error = (f64::from(*found) - expected).abs();
                assert!(
                    error < 1e-5 * (10.0 + expected.abs()),
                    "{isa:?} {geometry:?}, {channels} channels, {what}: {found} for {expected}"
                );
            }
        }
    }

    fn geometry(
        batch: usize,
        input: [usize; 2],
        kernel: usize,
        stride: usize,
        zeros: [usize; 2],
        dilation: usize,
    ) -> Geometry {
        let [before, after] = zeros;
        Geometry {
            batch,
            input,
            output: input.map(|size| (size + before + after - dilation * (kernel - 1) - 1) / stride + 1),
            kernel: [kernel; 2],
            stride: [stride; 2],
            before: [before; 2],
            dilation: [dilation; 2],
        }
    }

    #[test]
    fn every_instruction_set_convolves() {
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_here()) {
            for channels in [1, 7, 16, 40, 130, 200] {
                for (kernel, stride, zeros, dilation) in [
                    (3, 1, [1, 1], 1),
                    (7, 1, [3, 3], 1),
                    (5, 2, [1, 2], 1),
                    (3, 2, [0, 0], 1),
                    (9, 1, [0, 0], 1),
                    (3, 1, [0, 0], 2),
                    (3, 3, [2, 0], 2),
                    (2, 4, [0, 1], 1),
                ] {
                    check(isa, geometry(2, [11, 13], kernel, stride, zeros, dilation), channels);
                }
            }
            // Several bands; kernels that are larger than the map, strides that are, and no map at all.
            for (batch, input, kernel, stride, zeros) in [
                (1, [90, 100], 3, 1, [1, 1]),
                (2, [90, 101], 5, 2, [2, 1]),
                (2, [3, 2], 7, 1, [3, 3]),
                (1, [2, 3], 3, 5, [4, 4]),
                (1, [0, 3], 3, 1, [2, 1]),
                (0, [5, 5], 3, 1, [1, 1]),
            ] {
                check(isa, geometry(batch, input, kernel, stride, zeros, 1), 18);
            }
        }
    }
}
