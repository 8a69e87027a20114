//! Depthwise convolutions, channels last: the vectors run along the channels, so any stride and dilation is as fast.
#![expect(unsafe_code, reason = "vector instructions")]

use std::ops::Range;

use rayon::prelude::*;

use super::isa::Isa;
use super::patches::Geometry;
use super::vector::{Kernel, Vector, run};

/// A kernel pixel as a line of output pixels meets it.
#[derive(Clone)]
struct Tap {
    /// Where the value for output pixel 0 would be; outside the buffer where that pixel does not meet the tap.
    from: isize,
    /// Where the weights begin.
    weight: usize,
    /// Output pixels that meet it.
    pixels: Range<usize>,
}

/// Pixels that are summed side by side.
const SIDE_BY_SIDE: usize = 4;

/// `out[n * out_step + c] = Σ from[tap + n * step + c] · weight[tap + c]` for `pixels` values of `n`.
struct Line<'a> {
    isa: Isa,
    from: &'a [f32],
    step: usize,
    weight: &'a [f32],
    taps: &'a [Tap],
    pixels: usize,
    channels: usize,
}

/// Some pixels of a line, which all meet the same taps.
struct Pixels<'a> {
    line: &'a Line<'a>,
    /// Where the values of the first pixel and the weights of every tap begin.
    taps: &'a [[usize; 2]],
    count: usize,
    out: *mut f32,
    out_step: usize,
}

impl Kernel for Pixels<'_> {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        // SAFETY: the caller's.
        unsafe { self.line.pixels::<V>(self.taps, self.count, self.out, self.out_step) }
    }
}

impl Line<'_> {
    /// Compute the line into `out`, whose pixels are `out_step` apart.
    fn compute(&self, out: &mut [f32], out_step: usize) {
        let inside = self.taps.iter().fold(0..self.pixels, |inside, tap| {
            inside.start.max(tap.pixels.start)..inside.end.min(tap.pixels.end)
        });
        let inside = if inside.is_empty() { 0..0 } else { inside };
        let mut some = Vec::with_capacity(self.taps.len());
        let mut n = 0;
        while n < self.pixels {
            let count = if inside.contains(&n) { inside.len() } else { 1 };
            // From the first value to the end of the last pixel.
            let span = |step: usize| (count - 1).checked_mul(step)?.checked_add(self.channels);
            some.clear();
            let met = self.taps.iter().filter(|tap| tap.pixels.contains(&n));
            some.extend(met.map(|tap| {
                let from = usize::try_from(tap.from + (n * self.step) as isize).expect("the pixel meets the tap");
                let last = span(self.step).and_then(|span| from.checked_add(span));
                assert!(last.is_some_and(|last| last <= self.from.len()));
                assert!(tap.weight + self.channels <= self.weight.len());
                [from, tap.weight]
            }));
            let out = &mut out[n * out_step..];
            assert!(span(out_step).is_some_and(|last| last <= out.len()));
            let pixels = Pixels {
                line: self,
                taps: &some,
                count,
                out: out.as_mut_ptr(),
                out_step,
            };
            // SAFETY: every tap's values, weights and the output are within their slices, as asserted, and the
            // instruction set is here.
            unsafe { run(self.isa, pixels) };
            n += count;
        }
    }

    /// # Safety
    /// For every tap and pixel, `channels` values lie in `from`, in `weight` and, from `out`, in memory that is ours;
    /// the processor has the instruction set of `V`.
    #[inline(always)]
    unsafe fn pixels<V: Vector>(&self, taps: &[[usize; 2]], count: usize, out: *mut f32, out_step: usize) {
        let mut n = 0;
        while n < count {
            let left = count - n;
            // SAFETY: the caller's, for the pixels from `n`.
            unsafe {
                let out = out.add(n * out_step);
                if left >= SIDE_BY_SIDE {
                    self.channels::<V, SIDE_BY_SIDE>(taps, n, out, out_step);
                    n += SIDE_BY_SIDE;
                } else {
                    self.channels::<V, 1>(taps, n, out, out_step);
                    n += 1;
                }
            }
        }
    }

    /// # Safety
    /// As [`Self::pixels`], for pixels `n..n + PIXELS`.
    #[inline(always)]
    unsafe fn channels<V: Vector, const PIXELS: usize>(
        &self,
        taps: &[[usize; 2]],
        n: usize,
        out: *mut f32,
        out_step: usize,
    ) {
        let mut channel = 0;
        while channel < self.channels {
            let left = self.channels - channel;
            // SAFETY: the caller's, for the channels from `channel`.
            unsafe {
                let out = out.add(channel);
                if left >= 4 * V::LANES {
                    self.sum::<V, PIXELS, 4>(taps, n, channel, out, out_step);
                    channel += 4 * V::LANES;
                } else if left >= V::LANES {
                    self.sum::<V, PIXELS, 1>(taps, n, channel, out, out_step);
                    channel += V::LANES;
                } else {
                    self.sum_first::<V, PIXELS>(taps, n, channel, left, out, out_step);
                    channel = self.channels;
                }
            }
        }
    }

    /// # Safety
    /// As [`Self::pixels`], for `PIXELS` pixels and `VECTORS` vectors of channels.
    #[inline(always)]
    unsafe fn sum<V: Vector, const PIXELS: usize, const VECTORS: usize>(
        &self,
        taps: &[[usize; 2]],
        n: usize,
        channel: usize,
        out: *mut f32,
        out_step: usize,
    ) {
        // SAFETY: the caller's.
        unsafe {
            let mut sums = [[V::splat(0.0); VECTORS]; PIXELS];
            for [from, weight] in taps {
                let from = self.from.as_ptr().add(from + n * self.step + channel);
                let weight = self.weight.as_ptr().add(weight + channel);
                let weights: [V; VECTORS] = std::array::from_fn(|v| V::load(weight.add(v * V::LANES)));
                for (pixel, sums) in sums.iter_mut().enumerate() {
                    let from = from.add(pixel * self.step);
                    for v in 0..VECTORS {
                        sums[v] = V::load(from.add(v * V::LANES)).mul_add(weights[v], sums[v]);
                    }
                }
            }
            for (pixel, sums) in sums.into_iter().enumerate() {
                for (v, sum) in sums.into_iter().enumerate() {
                    sum.store(out.add(pixel * out_step + v * V::LANES));
                }
            }
        }
    }

    /// # Safety
    /// As [`Self::pixels`], for `PIXELS` pixels and the last `left` channels.
    #[inline(always)]
    unsafe fn sum_first<V: Vector, const PIXELS: usize>(
        &self,
        taps: &[[usize; 2]],
        n: usize,
        channel: usize,
        left: usize,
        out: *mut f32,
        out_step: usize,
    ) {
        // SAFETY: the caller's.
        unsafe {
            let mut sums = [V::splat(0.0); PIXELS];
            for [from, weight] in taps {
                let from = self.from.as_ptr().add(from + n * self.step + channel);
                let weights = V::load_first(self.weight.as_ptr().add(weight + channel), left);
                for (pixel, sum) in sums.iter_mut().enumerate() {
                    *sum = V::load_first(from.add(pixel * self.step), left).mul_add(weights, *sum);
                }
            }
            for (pixel, sum) in sums.into_iter().enumerate() {
                sum.store_first(out.add(pixel * out_step), left);
            }
        }
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
    let [height, width] = geometry.input;
    let [output_height, output_width] = geometry.output;
    if out.is_empty() {
        return;
    }
    out.par_chunks_mut(output_width * channels)
        .enumerate()
        .for_each(|(line, out)| {
            let (image, oy) = (line / output_height, line % output_height);
            let taps: Vec<Tap> = geometry
                .taps()
                .into_iter()
                .filter_map(|[i, j]| {
                    let y = geometry.meets_row(oy, i)?;
                    let shift = (j * geometry.dilation[1]) as isize - geometry.before[1] as isize;
                    Some(Tap {
                        from: (((image * height + y) * width) as isize + shift) * channels as isize,
                        weight: (i * geometry.kernel[1] + j) * channels,
                        pixels: pixels_within(shift, geometry.stride[1], width, output_width),
                    })
                })
                .collect();
            Line {
                isa,
                from: x,
                step: geometry.stride[1] * channels,
                weight,
                taps: &taps,
                pixels: output_width,
                channels,
            }
            .compute(out, channels);
            for (x, out) in out.chunks_exact_mut(channels).enumerate() {
                finish(line * output_width + x, 0, out);
            }
        });
}

/// The `n` of `0..count` with `0 <= shift + n * stride < len`.
fn pixels_within(shift: isize, stride: usize, len: usize, count: usize) -> Range<usize> {
    let first = (-shift).max(0) as usize;
    let end = (len as isize - shift).max(0) as usize;
    first.div_ceil(stride).min(count)..end.div_ceil(stride).min(count)
}

/// The gradient of `x`, into `out`, from that of the output.
pub(super) fn x_backward(grad: &[f32], weight: &[f32], geometry: &Geometry, channels: usize, out: &mut [f32]) {
    x_backward_with(Isa::best(), grad, weight, geometry, channels, out);
}

fn x_backward_with(isa: Isa, grad: &[f32], weight: &[f32], geometry: &Geometry, channels: usize, out: &mut [f32]) {
    let [height, width] = geometry.input;
    let [output_height, output_width] = geometry.output;
    let [stride_down, stride_along] = geometry.stride;
    if out.is_empty() {
        return;
    }
    out.par_chunks_mut(width * channels)
        .enumerate()
        .for_each(|(line, out)| {
            let (image, y) = (line / height, line % height);
            // Pixels of a row with one remainder meet the same kernel columns, at outputs that are side by side.
            for first in 0..stride_along.min(width) {
                let pixels = (width - first).div_ceil(stride_along);
                let taps: Vec<Tap> = geometry
                    .taps()
                    .into_iter()
                    .filter_map(|[i, j]| {
                        let down = (y + geometry.before[0]).checked_sub(i * geometry.dilation[0])?;
                        if down % stride_down != 0 || down / stride_down >= output_height {
                            return None;
                        }
                        let along = (first + geometry.before[1]) as isize - (j * geometry.dilation[1]) as isize;
                        if along.rem_euclid(stride_along as isize) != 0 {
                            return None;
                        }
                        let shift = along.div_euclid(stride_along as isize);
                        let row = (image * output_height + down / stride_down) * output_width;
                        Some(Tap {
                            from: (row as isize + shift) * channels as isize,
                            weight: (i * geometry.kernel[1] + j) * channels,
                            pixels: pixels_within(shift, 1, output_width, pixels),
                        })
                    })
                    .collect();
                Line {
                    isa,
                    from: grad,
                    step: channels,
                    weight,
                    taps: &taps,
                    pixels,
                    channels,
                }
                .compute(&mut out[first * channels..], stride_along * channels);
            }
        });
}

/// The gradient of the weight, `[kernel_height, kernel_width, channels]`, into `out`, from that of the output; the map
/// must be padded already (`geometry.before` is zero).
pub(super) fn weight_backward(x: &[f32], grad: &[f32], geometry: &Geometry, channels: usize, out: &mut [f32]) {
    weight_backward_with(Isa::best(), x, grad, geometry, channels, out);
}

/// Channels that one task takes: whole cache lines of every pixel.
const CHANNELS: usize = 64;

fn weight_backward_with(isa: Isa, x: &[f32], grad: &[f32], geometry: &Geometry, channels: usize, out: &mut [f32]) {
    let [kernel_height, kernel_width] = geometry.kernel;
    if out.is_empty() {
        return;
    }
    assert_eq!(
        x.len(),
        geometry.batch * geometry.input[0] * geometry.input[1] * channels
    );
    assert_eq!(grad.len(), geometry.outputs() * channels);
    assert_eq!(geometry.before, [0, 0], "the map is padded");
    let blocks = channels.div_ceil(CHANNELS);
    let parts: Vec<Vec<f32>> = (0..kernel_height * blocks)
        .into_par_iter()
        .map(|task| {
            let (i, first) = (task / blocks, task % blocks * CHANNELS);
            let count = CHANNELS.min(channels - first);
            let mut sums = vec![0.0; kernel_width * count];
            let row = KernelRow {
                x,
                grad,
                geometry,
                channels,
                i,
                first,
                count,
            };
            // SAFETY: the instruction set is here; the sizes of the maps are asserted above, and the row is within the
            // kernel and its channels within the map.
            unsafe { run(isa, (row, &mut sums[..])) };
            sums
        })
        .collect();
    for (task, part) in parts.into_iter().enumerate() {
        let (i, first) = (task / blocks, task % blocks * CHANNELS);
        for (j, sums) in part.chunks_exact(part.len() / kernel_width).enumerate() {
            let start = (i * kernel_width + j) * channels + first;
            out[start..start + sums.len()].copy_from_slice(sums);
        }
    }
}

/// One row of the kernel for a block of channels.
struct KernelRow<'a> {
    x: &'a [f32],
    grad: &'a [f32],
    geometry: &'a Geometry,
    channels: usize,
    i: usize,
    first: usize,
    count: usize,
}

impl Kernel for (KernelRow<'_>, &mut [f32]) {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        // SAFETY: the caller's.
        unsafe { self.0.sum::<V>(self.1) }
    }
}

impl KernelRow<'_> {
    /// # Safety
    /// The maps have the sizes of the geometry, the row and the channels are within it, and the processor has the
    /// instruction set of `V`.
    #[inline(always)]
    unsafe fn sum<V: Vector>(&self, sums: &mut [f32]) {
        let [height, width] = self.geometry.input;
        let [output_height, output_width] = self.geometry.output;
        for line in 0..self.geometry.batch * output_height {
            let (image, oy) = (line / output_height, line % output_height);
            let y = oy * self.geometry.stride[0] + self.i * self.geometry.dilation[0];
            let x = (image * height + y) * width * self.channels + self.first;
            let grad = line * output_width * self.channels + self.first;
            let mut j = 0;
            while j < self.geometry.kernel[1] {
                let mut channel = 0;
                let columns = match self.geometry.kernel[1] - j {
                    7.. => 7,
                    5.. => 5,
                    3.. => 3,
                    _ => 1,
                };
                while channel < self.count {
                    let left = self.count - channel;
                    let x = x + j * self.geometry.dilation[1] * self.channels + channel;
                    let sums = &mut sums[j * self.count + channel..];
                    let grad = grad + channel;
                    // SAFETY: the caller's: `left` channels from here are within the maps, for all columns and pixels.
                    unsafe {
                        channel += match (columns, left >= 2 * V::LANES) {
                            (7, true) => self.line::<V, 7, 2>(x, grad, left, sums),
                            (7, false) => self.line::<V, 7, 1>(x, grad, left, sums),
                            (5, true) => self.line::<V, 5, 2>(x, grad, left, sums),
                            (5, false) => self.line::<V, 5, 1>(x, grad, left, sums),
                            (3, true) => self.line::<V, 3, 2>(x, grad, left, sums),
                            (3, false) => self.line::<V, 3, 1>(x, grad, left, sums),
                            (_, true) => self.line::<V, 1, 2>(x, grad, left, sums),
                            (_, false) => self.line::<V, 1, 1>(x, grad, left, sums),
                        };
                    }
                }
                j += columns;
            }
        }
    }

    /// Add the sums over one line of output pixels for `COLUMNS` columns of the kernel; gives the channels it took.
    ///
    /// # Safety
    /// From `x` and `grad`, `min(left, VECTORS * LANES)` channels of every pixel that is met are within the maps.
    #[inline(always)]
    unsafe fn line<V: Vector, const COLUMNS: usize, const VECTORS: usize>(
        &self,
        x: usize,
        grad: usize,
        left: usize,
        sums: &mut [f32],
    ) -> usize {
        let step = self.geometry.stride[1] * self.channels;
        let column = self.geometry.dilation[1] * self.channels;
        let taken = left.min(VECTORS * V::LANES);
        let load = |from: *const f32, v: usize| {
            // SAFETY: the caller's.
            unsafe {
                let from = from.add(v * V::LANES);
                if taken < VECTORS * V::LANES {
                    V::load_first(from, taken - v * V::LANES)
                } else {
                    V::load(from)
                }
            }
        };
        // SAFETY: the caller's.
        unsafe {
            let mut found = [[V::splat(0.0); VECTORS]; COLUMNS];
            let (mut x, mut grad) = (self.x.as_ptr().add(x), self.grad.as_ptr().add(grad));
            for _ in 0..self.geometry.output[1] {
                let gradient: [V; VECTORS] = std::array::from_fn(|v| load(grad, v));
                for (j, found) in found.iter_mut().enumerate() {
                    for v in 0..VECTORS {
                        found[v] = load(x.add(j * column), v).mul_add(gradient[v], found[v]);
                    }
                }
                x = x.wrapping_add(step);
                grad = grad.wrapping_add(self.channels);
            }
            for (j, found) in found.into_iter().enumerate() {
                let sums = &mut sums[j * self.count..][..taken];
                for (sums, found) in sums.chunks_mut(V::LANES).zip(found) {
                    let before = V::load_first(sums.as_ptr(), sums.len());
                    V::splat(1.0)
                        .mul_add(before, found)
                        .store_first(sums.as_mut_ptr(), sums.len());
                }
            }
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(isa: Isa, geometry: Geometry, channels: usize) {
        let value = |i: usize| ((i * 37 + 11) % 101) as f32 / 50.0 - 1.0;
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
        forward_with(isa, &x, &weight, &geometry, channels, out, &|_, _, _| {});
        x_backward_with(isa, &grad, &weight, &geometry, channels, x_grad);
        let padded = geometry.before == [0, 0];
        if padded {
            weight_backward_with(isa, &x, &grad, &geometry, channels, weight_grad);
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
        let parts = found.iter().zip(&expected).take(if padded { 3 } else { 2 });
        for (what, (found, expected)) in parts.enumerate() {
            for (found, expected) in found.iter().zip(expected) {
                let error = (f64::from(*found) - expected).abs();
                assert!(
                    error < 1e-4,
                    "{isa:?} {geometry:?}, {channels} channels, {what}: {found} for {expected}"
                );
            }
        }
    }

    #[test]
    fn every_instruction_set_convolves() {
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_here()) {
            for channels in [1, 7, 16, 40, 130] {
                for (kernel, stride, before, after, dilation) in [
                    (3, 1, 1, 1, 1),
                    (7, 1, 3, 3, 1),
                    (5, 2, 1, 2, 1),
                    (3, 2, 0, 0, 1),
                    (9, 1, 0, 0, 1),
                    (3, 1, 0, 0, 2),
                ] {
                    let input = [11, 13];
                    let geometry = Geometry {
                        batch: 2,
                        input,
                        output: input.map(|size| (size + before + after - dilation * (kernel - 1) - 1) / stride + 1),
                        kernel: [kernel; 2],
                        stride: [stride; 2],
                        before: [before; 2],
                        dilation: [dilation; 2],
                    };
                    check(isa, geometry, channels);
                }
            }
        }
    }
}
