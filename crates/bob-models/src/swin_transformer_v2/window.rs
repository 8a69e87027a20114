//! Cosine attention inside windows (`WindowAttention` and `SwinTransformerV2Block._attn` of the reference).

use bob_core::CostCounter;
use bob_ops::{Epilogue, Windows, cosine_attention, nn};
use burn::module::{Module, Param};
use burn::nn::{Initializer, Linear, Relu};
use burn::tensor::{Device, Int, Tensor, TensorData, activation};

use crate::init;

/// Hidden units of the network behind the position bias.
const CPB_HIDDEN: usize = 512;
/// What the mask adds to the similarity of tokens that only the shift brought together.
const MASKED: f32 = -100.0;

/// The windows of one block over a map.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window(Windows);

impl Window {
    /// Windows of side `target` over a map of `resolution`: no larger than the map, and shifted by half of
    /// `target` only where there is more than one.
    pub(super) fn new(resolution: [usize; 2], target: usize, shifted: bool) -> Self {
        let target_shift = if shifted { target / 2 } else { 0 };
        Self(Windows {
            resolution,
            size: resolution.map(|size| size.min(target)),
            shift: resolution.map(|size| if size <= target { 0 } else { target_shift }),
        })
    }

    fn is_shifted(&self) -> bool {
        self.0.shift != [0, 0]
    }

    /// Relative coordinates on a logarithmic scale, for the network behind the bias.
    ///
    /// # Shapes
    ///   - output: `[(2 * height - 1) * (2 * width - 1), 2]`
    fn coordinates(&self, pretrained: usize, device: &Device) -> Tensor<2> {
        let axis = |size: usize| {
            let reference = if pretrained > 0 { pretrained } else { size };
            let unit = 8.0 / (reference.max(2) - 1) as f64;
            (1..2 * size).map(move |i| {
                let x = (i as f64 - size as f64) * unit;
                (x.signum() * (x.abs() + 1.0).log2() / 3.0) as f32
            })
        };
        let table: Vec<f32> = axis(self.0.size[0])
            .flat_map(|y| axis(self.0.size[1]).flat_map(move |x| [y, x]))
            .collect();
        Tensor::from_data(TensorData::new(table, [self.offsets(), 2]), device)
    }

    /// Number of different offsets between two tokens of a window.
    fn offsets(&self) -> usize {
        (2 * self.0.size[0] - 1) * (2 * self.0.size[1] - 1)
    }

    /// Which row of [`Self::coordinates`] is the offset of each pair of tokens, `area * area` of them.
    fn offset_index(&self, device: &Device) -> Tensor<1, Int> {
        let [height, width] = self.0.size;
        let tokens = || (0..height).flat_map(|y| (0..width).map(move |x| (y, x)));
        let index: Vec<i32> = tokens()
            .flat_map(|(query_y, query_x)| {
                tokens().map(move |(key_y, key_x)| {
                    let y = query_y + height - 1 - key_y;
                    let x = query_x + width - 1 - key_x;
                    (y * (2 * width - 1) + x) as i32
                })
            })
            .collect();
        let count = index.len();
        Tensor::from_data(TensorData::new(index, [count]), device)
    }

    /// What keeps tokens apart that were neighbours only by the shift.
    ///
    /// # Shapes
    ///   - output: `[windows, 1, area, area]`
    fn mask(&self, device: &Device) -> Tensor<4> {
        let grid = self.0.grid();
        // The three stretches of an axis: before the last window, in it, and what was carried round.
        let stretch = |axis: usize, at: usize| {
            let length = grid[axis] * self.0.size[axis];
            match self.0.shift[axis] {
                0 => 0,
                _ if at < length - self.0.size[axis] => 0,
                shift if at < length - shift => 1,
                _ => 2,
            }
        };
        let area = self.0.area();
        let mut values = Vec::with_capacity(grid[0] * grid[1] * area * area);
        for window in 0..grid[0] * grid[1] {
            let [top, left] = [window / grid[1] * self.0.size[0], window % grid[1] * self.0.size[1]];
            let regions: Vec<_> = (0..area)
                .map(|i| {
                    (
                        stretch(0, top + i / self.0.size[1]),
                        stretch(1, left + i % self.0.size[1]),
                    )
                })
                .collect();
            for query in &regions {
                values.extend(regions.iter().map(|key| if key == query { 0.0 } else { MASKED }));
            }
        }
        Tensor::from_data(TensorData::new(values, [grid[0] * grid[1], 1, area, area]), device)
    }
}

/// Multi-head attention of the tokens of each window.
#[derive(Module, Debug)]
pub(super) struct WindowAttention {
    logit_scale: Param<Tensor<3>>,
    q_bias: Option<Param<Tensor<1>>>,
    v_bias: Option<Param<Tensor<1>>>,
    cpb_mlp: (Linear, Relu, Linear),
    qkv: Linear,
    proj: Linear,
    #[module(skip)]
    window: Window,
    pretrained_window_size: usize,
    fused: Option<FusedBias>,
}

/// What does not depend on the images, computed once.
#[derive(Module, Debug)]
struct FusedBias {
    scale: Tensor<1>,
    bias: Tensor<4>,
}

impl WindowAttention {
    pub(super) fn new(dim: usize, num_heads: usize, window: Window, pretrained: usize, device: &Device) -> Self {
        let scale = Initializer::Constant { value: 10f64.ln() };
        Self {
            logit_scale: scale.init([num_heads, 1, 1], device),
            q_bias: Some(init::zeros(dim, device)),
            v_bias: Some(init::zeros(dim, device)),
            cpb_mlp: (
                init::linear(2, CPB_HIDDEN, true, device),
                Relu::new(),
                init::linear(CPB_HIDDEN, num_heads, false, device),
            ),
            qkv: init::linear(dim, 3 * dim, false, device),
            proj: init::linear(dim, dim, true, device),
            window,
            pretrained_window_size: pretrained,
            fused: None,
        }
    }

    fn num_heads(&self) -> usize {
        self.logit_scale.lazy_shape()[0]
    }

    /// # Shapes
    ///   - x, output: `[batch, height, width, channels]`
    pub(super) fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let windows = self.window.0;
        let x = windows.partition(x);
        let qkv = bob_ops::linear(x, self.qkv.weight.val(), self.qkv_bias(), Epilogue::none());
        let (scale, bias) = match &self.fused {
            Some(fused) => (fused.scale.clone(), fused.bias.clone()),
            None => (self.scale(), self.bias()),
        };
        let x = cosine_attention(qkv, self.num_heads(), scale, Some(bias));
        windows.merge(nn::linear(&self.proj, x, Epilogue::none()))
    }

    /// The bias of the first projection; keys have none.
    fn qkv_bias(&self) -> Option<Tensor<1>> {
        match (&self.q_bias, &self.v_bias) {
            (Some(q_bias), Some(v_bias)) => {
                let q_bias = q_bias.val();
                let k_bias = q_bias.zeros_like();
                Some(Tensor::cat(vec![q_bias, k_bias, v_bias.val()], 0))
            }
            _ => self.qkv.bias.as_ref().map(|bias| bias.val()),
        }
    }

    /// The temperature of every head.
    ///
    /// # Shapes
    ///   - output: `[heads]`
    fn scale(&self) -> Tensor<1> {
        self.logit_scale
            .val()
            .clamp_max(100f64.ln())
            .exp()
            .reshape([self.num_heads()])
    }

    /// What is added to the similarities: the position bias, and the mask of a shifted block.
    ///
    /// # Shapes
    ///   - output: `[1, heads, area, area]`, or `[windows, heads, area, area]` with a mask
    fn bias(&self) -> Tensor<4> {
        let device = self.logit_scale.val().device();
        let (heads, area) = (self.num_heads(), self.window.0.area());
        let (first, relu, second) = &self.cpb_mlp;
        let table = first.forward(self.window.coordinates(self.pretrained_window_size, &device));
        let table = second.forward(relu.forward(table)); // [offsets, heads]
        let bias = activation::sigmoid(table).mul_scalar(16.0);
        let bias = bias
            .swap_dims(0, 1)
            .select(1, self.window.offset_index(&device))
            .reshape([1, heads, area, area]);
        if !self.window.is_shifted() {
            return bias;
        }
        bias + self.window.mask(&device)
    }

    /// Compute once what does not depend on the images, for inference.
    pub(super) fn fuse(&mut self) {
        self.qkv.bias = self.qkv_bias().map(|bias| Param::from_tensor(bias.detach()));
        (self.q_bias, self.v_bias) = (None, None);
        self.fused = Some(FusedBias {
            scale: self.scale().detach(),
            bias: self.bias().detach(),
        });
    }

    /// Count a pass over one image.
    pub(super) fn count(&self, counter: &mut CostCounter) {
        let [grid_h, grid_w] = self.window.0.grid();
        let (windows, heads, area) = (grid_h * grid_w, self.num_heads(), self.window.0.area());
        let [dim, _] = self.proj.weight.lazy_shape().dims::<2>();
        counter.linear(&self.qkv, windows * area);
        counter.linear(&self.cpb_mlp.0, self.window.offsets());
        counter.linear(&self.cpb_mlp.2, self.window.offsets());
        counter.matmul(windows * heads, area, dim / heads, area);
        counter.matmul(windows * heads, area, area, dim / heads);
        counter.linear(&self.proj, self.window.0.resolution[0] * self.window.0.resolution[1]);
    }
}

/// Zeros at the end of height and width.
///
/// # Shapes
///   - x: `[batch, height, width, channels]`
///   - output: `[batch, height + padding[0], width + padding[1], channels]`
pub(super) fn pad(x: Tensor<4>, padding: [usize; 2]) -> Tensor<4> {
    if padding == [0, 0] {
        return x;
    }
    x.pad([(0, padding[0]), (0, padding[1]), (0, 0)], 0.0)
}
