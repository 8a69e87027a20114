//! Cutting a map into windows and putting it together again.

#[cfg(feature = "flex")]
use burn::backend::flex::FlexTensor;
use burn::tensor::{Tensor, s};

#[cfg(feature = "flex")]
use crate::flex::windows as kernels;
#[cfg(feature = "flex")]
use crate::operation::FlexBackward;
use crate::operation::{Operation, apply, has_kernels};

/// Where the windows of a shifted-window block lie on a map, in tokens; `[height, width]` throughout (Liu et al.,
/// arXiv:2103.14030).
///
/// The map is first carried round by the shift, then padded with zeros at its ends to whole windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    /// Size of the map, at least 1.
    pub resolution: [usize; 2],
    /// Size of a window, at least 1.
    pub size: [usize; 2],
    /// Tokens that the map is carried round by, towards its beginning; below its size.
    pub shift: [usize; 2],
}

impl Windows {
    /// Windows along each axis; the last may be padding in part.
    pub fn grid(&self) -> [usize; 2] {
        [0, 1].map(|axis| self.resolution[axis].div_ceil(self.size[axis]))
    }

    /// Tokens of a window.
    pub fn area(&self) -> usize {
        self.size[0] * self.size[1]
    }

    /// That there are windows, and the shift is one.
    fn check(&self) {
        let fits = |axis: usize| self.size[axis] > 0 && self.shift[axis] < self.resolution[axis];
        assert!(fits(0) && fits(1), "windows: a map, windows and a shift of {self:?}");
    }

    /// Tokens of padding at the end of each axis.
    fn padding(&self) -> [usize; 2] {
        let grid = self.grid();
        [0, 1].map(|axis| grid[axis] * self.size[axis] - self.resolution[axis])
    }

    /// The tokens of every window.
    ///
    /// # Shapes
    ///   - x: `[batch, height, width, channels]`
    ///   - output: `[batch * windows, area, channels]`
    ///
    /// # Panics
    /// Where the map has another size, a window none, or the shift is not below the map's size.
    pub fn partition(self, x: Tensor<4>) -> Tensor<3> {
        self.check();
        let [_, height, width, _] = x.dims();
        assert_eq!(
            [height, width],
            self.resolution,
            "Windows::partition: a map of {:?}",
            x.dims()
        );
        if has_kernels(&x.device(), x.dtype()) {
            apply(Partition(self), vec![x.into_dispatch()])
        } else {
            self.partition_reference(x)
        }
    }

    /// The map that [`Self::partition`] took apart; what lies on padding is dropped.
    ///
    /// # Shapes
    ///   - x: `[batch * windows, area, channels]`
    ///   - output: `[batch, height, width, channels]`
    ///
    /// # Panics
    /// Where the windows are not of this size, or not those of whole maps, or as [`Self::partition`].
    pub fn merge(self, x: Tensor<3>) -> Tensor<4> {
        self.check();
        let [windows, area, _] = x.dims();
        let grid = self.grid();
        assert!(
            area == self.area() && windows % (grid[0] * grid[1]) == 0,
            "Windows::merge: {:?} for {grid:?} windows of {:?}",
            x.dims(),
            self.size
        );
        if has_kernels(&x.device(), x.dtype()) {
            apply(Merge(self), vec![x.into_dispatch()])
        } else {
            self.merge_reference(x)
        }
    }

    /// The same composed of burn's own.
    pub(crate) fn partition_reference(self, x: Tensor<4>) -> Tensor<3> {
        let [batch, _, _, channels] = x.dims();
        let ([grid_h, grid_w], [window_h, window_w]) = (self.grid(), self.size);
        let shift = self.shift.map(|shift| shift as i64);
        let x = match self.shift {
            [0, 0] => x,
            _ => x.roll(&[-shift[0], -shift[1]], &[1, 2]),
        };
        let x = match self.padding() {
            [0, 0] => x,
            [down, along] => x.pad([(0, down), (0, along), (0, 0)], 0.0),
        };
        x.reshape([batch * grid_h, window_h, grid_w, window_w, channels])
            .permute([0, 2, 1, 3, 4])
            .reshape([batch * grid_h * grid_w, self.area(), channels])
    }

    /// The same composed of burn's own.
    pub(crate) fn merge_reference(self, x: Tensor<3>) -> Tensor<4> {
        let ([grid_h, grid_w], [window_h, window_w]) = (self.grid(), self.size);
        let [windows, _, channels] = x.dims();
        let batch = windows / (grid_h * grid_w);
        let [height, width] = self.resolution;
        let shift = self.shift.map(|shift| shift as i64);
        let x = x
            .reshape([batch * grid_h, grid_w, window_h, window_w, channels])
            .permute([0, 2, 1, 3, 4])
            .reshape([batch, grid_h * window_h, grid_w * window_w, channels])
            .slice(s![.., 0..height, 0..width, ..]);
        match self.shift {
            [0, 0] => x,
            _ => x.roll(&shift, &[1, 2]),
        }
    }
}

/// [`Windows::partition`], whose gradient is [`Windows::merge`] of the output's.
#[derive(Clone, Debug)]
struct Partition(Windows);

impl Operation for Partition {
    fn name(&self) -> &'static str {
        "windows"
    }

    fn reads(&self, _index: usize) -> bool {
        false
    }

    #[cfg(feature = "flex")]
    fn flex(&self, inputs: Vec<FlexTensor>, _keep: bool) -> (FlexTensor, Vec<FlexTensor>) {
        (kernels::partition(&inputs[0], &self.0), Vec::new())
    }

    #[cfg(feature = "flex")]
    fn flex_backward(&self, pass: FlexBackward) -> Vec<Option<FlexTensor>> {
        vec![Some(kernels::merge(&pass.grad, &self.0))]
    }

    #[cfg(feature = "tch")]
    fn aten(&self, inputs: &[tch::Tensor]) -> tch::Tensor {
        let ([grid_h, grid_w], [window_h, window_w]) = (sizes(self.0.grid()), sizes(self.0.size));
        let [shift_h, shift_w] = sizes(self.0.shift);
        let [down, along] = sizes(self.0.padding());
        let (batch, _, _, channels) = inputs[0].size4().expect("four dimensions");
        let mut x = inputs[0].shallow_clone();
        if self.0.shift != [0, 0] {
            x = x.roll([-shift_h, -shift_w], [1, 2]);
        }
        if [down, along] != [0, 0] {
            x = x.constant_pad_nd([0, 0, 0, along, 0, down]);
        }
        x.reshape([batch * grid_h, window_h, grid_w, window_w, channels])
            .transpose(1, 2)
            .reshape([batch * grid_h * grid_w, window_h * window_w, channels])
    }
}

/// [`Windows::merge`], whose gradient is [`Windows::partition`] of the output's.
#[derive(Clone, Debug)]
struct Merge(Windows);

impl Operation for Merge {
    fn name(&self) -> &'static str {
        "windows"
    }

    fn reads(&self, _index: usize) -> bool {
        false
    }

    #[cfg(feature = "flex")]
    fn flex(&self, inputs: Vec<FlexTensor>, _keep: bool) -> (FlexTensor, Vec<FlexTensor>) {
        (kernels::merge(&inputs[0], &self.0), Vec::new())
    }

    #[cfg(feature = "flex")]
    fn flex_backward(&self, pass: FlexBackward) -> Vec<Option<FlexTensor>> {
        vec![Some(kernels::partition(&pass.grad, &self.0))]
    }

    #[cfg(feature = "tch")]
    fn aten(&self, inputs: &[tch::Tensor]) -> tch::Tensor {
        let ([grid_h, grid_w], [window_h, window_w]) = (sizes(self.0.grid()), sizes(self.0.size));
        let ([height, width], [shift_h, shift_w]) = (sizes(self.0.resolution), sizes(self.0.shift));
        let (windows, _, channels) = inputs[0].size3().expect("three dimensions");
        let x = inputs[0]
            .reshape([windows / grid_w, grid_w, window_h, window_w, channels])
            .transpose(1, 2)
            .reshape([-1, grid_h * window_h, grid_w * window_w, channels])
            .narrow(1, 0, height)
            .narrow(2, 0, width);
        if self.0.shift == [0, 0] {
            x
        } else {
            x.roll([shift_h, shift_w], [1, 2])
        }
    }
}

#[cfg(feature = "tch")]
fn sizes(of: [usize; 2]) -> [i64; 2] {
    of.map(|size| size as i64)
}
