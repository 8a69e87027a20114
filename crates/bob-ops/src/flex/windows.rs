//! Windows of a map: rows of tokens are copied, each once.

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;
use rayon::prelude::*;

use super::buffer::filled;
use super::{dense, tensor, values};
use crate::Windows;

/// As [`Windows::partition`].
pub(crate) fn partition(x: &FlexTensor, windows: &Windows) -> FlexTensor {
    let x = dense(x);
    let [batch, height, width, channels] = x.shape().dims();
    let ([down, across], [size_h, size_w]) = (windows.grid(), windows.size);
    let map = values(&x);
    let count = batch * down * across;
    let out = filled(count * windows.area() * channels, |out| {
        // One row of one window at a time.
        let rows = out.par_chunks_exact_mut((size_w * channels).max(1));
        rows.enumerate().for_each(|(at, row)| {
            let (window, row_of) = (at / size_h, at % size_h);
            let (entry, i, j) = (window / (down * across), window / across % down, window % across);
            let y = i * size_h + row_of;
            if y >= height {
                row.fill(0.0);
                return;
            }
            let from = (entry * height + (y + windows.shift[0]) % height) * width;
            for (k, token) in row.chunks_exact_mut(channels.max(1)).enumerate() {
                let x = j * size_w + k;
                if x < width {
                    let start = (from + (x + windows.shift[1]) % width) * channels;
                    token.copy_from_slice(&map[start..start + channels]);
                } else {
                    token.fill(0.0);
                }
            }
        });
    });
    tensor(out, [count, windows.area(), channels])
}

/// As [`Windows::merge`].
pub(crate) fn merge(x: &FlexTensor, windows: &Windows) -> FlexTensor {
    let x = dense(x);
    let [count, area, channels] = x.shape().dims();
    let ([down, across], [size_h, size_w]) = (windows.grid(), windows.size);
    let [height, width] = windows.resolution;
    let batch = count / (down * across).max(1);
    let tokens = values(&x);
    let out = filled(batch * height * width * channels, |out| {
        let rows = out.par_chunks_exact_mut((width * channels).max(1));
        rows.enumerate().for_each(|(at, row)| {
            let (entry, y) = (at / height, (at % height + height - windows.shift[0]) % height);
            let window_row = (entry * down + y / size_h) * across;
            for (x, token) in row.chunks_exact_mut(channels.max(1)).enumerate() {
                let x = (x + width - windows.shift[1]) % width;
                let place = (window_row + x / size_w) * area + y % size_h * size_w + x % size_w;
                token.copy_from_slice(&tokens[place * channels..(place + 1) * channels]);
            }
        });
    });
    tensor(out, [batch, height, width, channels])
}
