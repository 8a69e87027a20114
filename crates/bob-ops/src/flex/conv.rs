//! Convolutions, channels last: dense and grouped ones as products, depthwise ones by their own kernel.

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;
use rayon::prelude::*;

use super::buffer::{Shared, filled};
use super::patches::{Geometry, Seen, SeenBy, SeenByKernel};
use super::product::{Into, Right, Target, multiply};
use super::sums::column_sums;
use super::{dense, depthwise, strides, tensor, unflipped, values};
use crate::Conv2dOptions;

pub(super) fn geometry(batch: usize, input: [usize; 2], kernel: [usize; 2], options: &Conv2dOptions) -> Geometry {
    Geometry {
        batch,
        input,
        output: options.output(input, kernel),
        kernel,
        stride: options.stride,
        before: options.padding.map(|[before, _]| before),
        dilation: options.dilation,
    }
}

/// Whether every channel has a kernel of its own, and one output.
fn is_depthwise([outer, inner, ..]: [usize; 4], groups: usize) -> bool {
    inner == 1 && outer == groups && groups > 1
}

/// Below this many channels the runs of a row are too short: whole rows of the kernel then make a run, over a padded
/// copy of the map.
const FEW_CHANNELS: usize = 16;

/// `finish` sees every finished piece of an output pixel, as `(pixel, first channel, values)`.
///
/// # Shapes
///   - x: `[batch, height, width, in]`
///   - weight: `[out, in / groups, kernel_height, kernel_width]`
///   - output: `[batch, output_height, output_width, out]`
pub(crate) fn forward(
    x: &FlexTensor,
    weight: &FlexTensor,
    options: &Conv2dOptions,
    finish: &(dyn Fn(usize, usize, &mut [f32]) + Sync),
) -> FlexTensor {
    let [batch, height, width, channels] = x.shape().dims();
    let shape @ [outer, inner, kernel_height, kernel_width] = weight.shape().dims();
    let geometry = geometry(batch, [height, width], [kernel_height, kernel_width], options);
    let [output_height, output_width] = geometry.output;
    let x = dense(x);
    let output = [batch, output_height, output_width, outer];
    let out = filled(output.iter().product(), |out| {
        if is_depthwise(shape, options.groups) {
            let weight = taps_first(weight);
            return depthwise::forward(values(&x), values(&weight), &geometry, channels, out, finish);
        }
        let out = Shared::new(out);
        let in_rows = inner < FEW_CHANNELS && options.groups == 1 && options.dilation[1] == 1;
        let (x, geometry, weight) = if in_rows {
            let (x, geometry) = padded(&x, &geometry, options);
            (x, geometry, taps_first(weight))
        } else {
            (x.clone(), geometry, unflipped(weight))
        };
        let weight = if in_rows {
            Weight::taps_first(&weight)
        } else {
            Weight::of(&weight)
        };
        let mut taps = geometry.taps();
        let mut depth = inner;
        if in_rows {
            taps.retain(|[_, j]| *j == 0);
            depth *= kernel_width;
        }
        let per_group = outer / options.groups;
        for group in 0..options.groups {
            let seen = Seen {
                geometry,
                taps: &taps,
                channels,
                group: [group * inner, depth],
            };
            let starts = weight.starts(&taps, group * per_group);
            let right = Right {
                values: weight.values,
                starts: &starts,
                row_stride: weight.strides[1],
                column_stride: weight.strides[0],
                columns: per_group,
            };
            let target = Target::rows(group * per_group, outer);
            multiply(
                values(&x),
                &seen,
                &right,
                &out,
                target,
                Into::Overwrite,
                &|pixel, first, values| {
                    finish(pixel, group * per_group + first, values);
                },
            );
        }
    });
    tensor(out, output)
}

/// Gradient of `x`, whose shape is given, from that of the output.
pub(crate) fn x_backward(x: [usize; 4], weight: &FlexTensor, grad: &FlexTensor, options: &Conv2dOptions) -> FlexTensor {
    let [batch, height, width, channels] = x;
    let shape @ [outer, inner, kernel_height, kernel_width] = weight.shape().dims();
    let geometry = geometry(batch, [height, width], [kernel_height, kernel_width], options);
    let grad = dense(grad);
    let out = filled(x.iter().product(), |out| {
        if is_depthwise(shape, options.groups) {
            let weight = taps_first(weight);
            return depthwise::x_backward(values(&grad), values(&weight), &geometry, channels, out);
        }
        let out = Shared::new(out);
        let weight = unflipped(weight);
        let weight = Weight::of(&weight);
        let per_group = outer / options.groups;
        for class in geometry.classes() {
            for group in 0..options.groups {
                let seen_by = SeenBy {
                    geometry,
                    class: &class,
                    channels: outer,
                    group: [group * per_group, per_group],
                };
                let starts = weight.starts(&class.taps, group * per_group);
                let right = Right {
                    values: weight.values,
                    starts: &starts,
                    row_stride: weight.strides[0],
                    column_stride: weight.strides[1],
                    columns: inner,
                };
                let target = class.target(&geometry, channels, group * inner);
                multiply(
                    values(&grad),
                    &seen_by,
                    &right,
                    &out,
                    target,
                    Into::Overwrite,
                    &|_, _, _| {},
                );
            }
        }
    });
    tensor(out, x)
}

/// Gradient of the weight, whose shape is given, from that of the output.
pub(crate) fn weight_backward(
    x: &FlexTensor,
    shape: [usize; 4],
    grad: &FlexTensor,
    options: &Conv2dOptions,
) -> FlexTensor {
    let [batch, height, width, channels] = x.shape().dims();
    let [outer, inner, kernel_height, kernel_width] = shape;
    let geometry = geometry(batch, [height, width], [kernel_height, kernel_width], options);
    let grad = dense(grad);
    let x = dense(x);
    let found = filled(shape.iter().product(), |out| {
        if is_depthwise(shape, options.groups) {
            return depthwise::weight_backward(values(&x), values(&grad), &geometry, channels, out);
        }
        let (x, geometry) = padded(&x, &geometry, options);
        let out = Shared::new(out);
        let per_group = outer / options.groups;
        for group in 0..options.groups {
            let seen = SeenByKernel {
                geometry,
                channels,
                group: [group * inner, inner],
            };
            let line = geometry.output[1] * outer;
            let starts: Vec<usize> = (0..batch * geometry.output[0])
                .map(|row| row * line + group * per_group)
                .collect();
            let right = Right {
                values: values(&grad),
                starts: &starts,
                row_stride: outer,
                column_stride: 1,
                columns: per_group,
            };
            let target = Target::rows(group * per_group, outer);
            multiply(values(&x), &seen, &right, &out, target, Into::Overwrite, &|_, _, _| {});
        }
    });
    tensor(taps_last(&found, kernel_height * kernel_width, inner, outer), shape)
}

/// From `[taps, in, out]` to `[out, in, taps]`, the order of the state dict.
fn taps_last(from: &[f32], taps: usize, inner: usize, outer: usize) -> Vec<f32> {
    /// Outputs of a task: as many as share a cache line where they are read.
    const OUTPUTS: usize = 16;
    let row = inner * taps;
    filled(from.len(), |out| {
        if row == 0 {
            return;
        }
        out.par_chunks_mut(OUTPUTS * row).enumerate().for_each(|(block, out)| {
            for i in 0..inner {
                for tap in 0..taps {
                    let start = (tap * inner + i) * outer + block * OUTPUTS;
                    for (o, value) in from[start..].iter().take(out.len() / row).enumerate() {
                        out[o * row + i * taps + tap] = *value;
                    }
                }
            }
        });
    })
}

/// Gradient of the bias: the sum over images and pixels.
pub(crate) fn bias_backward(grad: &FlexTensor) -> FlexTensor {
    let [.., outer] = grad.shape().dims::<4>();
    tensor(column_sums(values(&dense(grad)), outer), [outer])
}

/// A weight `[out, in, kernel_height, kernel_width]` with any strides that are not negative.
struct Weight<'a> {
    values: &'a [f32],
    start: usize,
    strides: [usize; 4],
}

impl<'a> Weight<'a> {
    fn of(tensor: &'a FlexTensor) -> Self {
        Self {
            values: values(tensor),
            start: tensor.layout().start_offset(),
            strides: strides(tensor),
        }
    }

    /// Of a weight that [`taps_first`] gave, whose strides say nothing along an axis of one.
    fn taps_first(tensor: &'a FlexTensor) -> Self {
        let [outer, inner, _, width] = tensor.shape().dims();
        Self {
            values: values(tensor),
            start: 0,
            strides: [1, outer, width * inner * outer, inner * outer],
        }
    }

    /// Where the filters from `first` begin at every tap.
    fn starts(&self, taps: &[[usize; 2]], first: usize) -> Vec<usize> {
        let [outer, _, down, along] = self.strides;
        let start = self.start + first * outer;
        taps.iter().map(|[i, j]| start + i * down + j * along).collect()
    }
}

/// The weight with its values in memory as `[kernel_height, kernel_width, in, out]`; free where they lie so already.
fn taps_first(weight: &FlexTensor) -> FlexTensor {
    let layout = weight.layout().permute(&[2, 3, 1, 0]);
    let laid = dense(&weight.clone().with_layout(layout));
    let layout = laid.layout().permute(&[3, 2, 0, 1]);
    laid.with_layout(layout)
}

/// The map with its zeros around it, and the geometry over it.
fn padded(x: &FlexTensor, geometry: &Geometry, options: &Conv2dOptions) -> (FlexTensor, Geometry) {
    if options.padding == [[0, 0]; 2] {
        return (x.clone(), *geometry);
    }
    let [batch, height, width, channels] = x.shape().dims();
    let [[top, bottom], [left, right]] = options.padding;
    let size = [height + top + bottom, width + left + right];
    let row = size[1] * channels;
    let from = values(x);
    let out = filled(batch * size[0] * row, |out| {
        if row == 0 {
            return;
        }
        out.par_chunks_mut(row).enumerate().for_each(|(line, out)| {
            let (image, y) = (line / size[0], line % size[0]);
            match y.checked_sub(top).filter(|y| *y < height) {
                Some(y) => {
                    let start = (image * height + y) * width * channels;
                    let (before, rest) = out.split_at_mut(left * channels);
                    let (inside, after) = rest.split_at_mut(width * channels);
                    before.fill(0.0);
                    inside.copy_from_slice(&from[start..start + width * channels]);
                    after.fill(0.0);
                }
                None => out.fill(0.0),
            }
        });
    });
    let geometry = Geometry {
        input: size,
        before: [0, 0],
        ..*geometry
    };
    (tensor(out, [batch, size[0], size[1], channels]), geometry)
}
