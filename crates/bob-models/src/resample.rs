//! PyTorch's resizes of grids and lists of vectors, for position embeddings (`resample_abs_pos_embed` in
//! `timm/layers/pos_embed.py`, `get_rel_pos` in `timm/models/vision_transformer_sam.py`).

use burn::tensor::{Device, Tensor, TensorData};

/// Keys' constant of the antialiased resize, which is Pillow's.
const ANTIALIASED: f64 = -0.5;

/// Keys' constant of PyTorch's plain resize.
const PLAIN: f64 = -0.75;

/// Resize a grid of vectors: bicubic, antialiased, corners not aligned.
///
/// # Shapes
///   - grid: `[height, width, dim]`
///   - output: `[size[0], size[1], dim]`
pub(crate) fn bicubic(grid: Tensor<3>, size: [usize; 2]) -> Tensor<3> {
    resize(grid, size, antialiased)
}

/// Resize a grid of vectors: bicubic, not antialiased, corners not aligned (PyTorch's `interpolate(mode="bicubic")`).
///
/// # Shapes
///   - grid: `[height, width, dim]`
///   - output: `[size[0], size[1], dim]`
pub(crate) fn bicubic_plain(grid: Tensor<3>, size: [usize; 2]) -> Tensor<3> {
    resize(grid, size, plain)
}

fn resize(grid: Tensor<3>, size: [usize; 2], weights: fn(usize, usize, &Device) -> Tensor<2>) -> Tensor<3> {
    let [height, width, dim] = grid.dims();
    let device = grid.device();
    let rows = weights(height, size[0], &device).matmul(grid.reshape([height, width * dim]));
    let columns = weights(width, size[1], &device).unsqueeze::<3>();
    columns.matmul(rows.reshape([size[0], width, dim]))
}

/// Resize a list of vectors: linear between neighbours, corners not aligned, not antialiased (PyTorch's
/// `interpolate(mode="linear")`).
///
/// # Shapes
///   - list: `[length, dim]`
///   - output: `[length, dim]`
pub(crate) fn linear(list: Tensor<2>, length: usize) -> Tensor<2> {
    let [input, _] = list.dims();
    let device = list.device();
    let mut values = vec![0.0; length * input];
    for (row, i) in values.chunks_exact_mut(input).zip(0..) {
        let at = ((f64::from(i) + 0.5) * input as f64 / length as f64 - 0.5).max(0.0);
        let first = (at as usize).min(input - 1);
        let share = at - first as f64;
        row[first] += 1.0 - share;
        row[(first + 1).min(input - 1)] += share;
    }
    let weights: Tensor<2> = Tensor::from_data(TensorData::new(values, [length, input]), &device);
    weights.matmul(list)
}

/// The matrix `[output, input]` of one axis: four samples for every output, those outside being the nearest inside.
fn plain(input: usize, output: usize, device: &Device) -> Tensor<2> {
    let scale = input as f64 / output as f64;
    let mut values = vec![0.0; output * input];
    for (row, i) in values.chunks_exact_mut(input).zip(0..) {
        let at = scale * (f64::from(i) + 0.5) - 0.5;
        for offset in -1..=2 {
            let sample = at.floor() + f64::from(offset);
            let inside = sample.clamp(0.0, (input - 1) as f64) as usize;
            row[inside] += keys(at - sample, PLAIN);
        }
    }
    Tensor::from_data(TensorData::new(values, [output, input]), device)
}

/// The matrix `[output, input]` of one axis: the filter widens to the samples that an output stands for.
fn antialiased(input: usize, output: usize, device: &Device) -> Tensor<2> {
    let scale = input as f64 / output as f64;
    // Going down, the filter widens to the samples it has to average.
    let stretch = scale.max(1.0);
    let support = 2.0 * stretch;
    let mut values = vec![0.0; output * input];
    for (row, i) in values.chunks_exact_mut(input).zip(0..) {
        let center = scale * (f64::from(i) + 0.5);
        let first = ((center - support + 0.5).max(0.0)) as usize;
        let last = ((center + support + 0.5) as usize).min(input);
        for (j, value) in row.iter_mut().enumerate().take(last).skip(first) {
            *value = keys((j as f64 - center + 0.5) / stretch, ANTIALIASED);
        }
        let sum: f64 = row.iter().sum();
        row.iter_mut().for_each(|value| *value /= sum);
    }
    Tensor::from_data(TensorData::new(values, [output, input]), device)
}

/// Keys' cubic convolution kernel with the constant `a`.
fn keys(x: f64, a: f64) -> f64 {
    let x = x.abs();
    if x < 1.0 {
        ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * a
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Tolerance;

    use super::*;

    #[test]
    fn a_plain_resize_is_pytorch_s() {
        // torch.nn.functional.interpolate(torch.eye(3)[:, None, None], size=(1, 2), mode="bicubic")
        let expected = [
            [0.773_437_5_f32, 0.261_718_75, -0.035_156_25],
            [-0.035_156_25, 0.261_718_75, 0.773_437_5],
        ];
        let found = plain(3, 2, &Device::flex()).into_data();
        found.assert_approx_eq::<f32>(&TensorData::from(expected), Tolerance::default());
    }
}
