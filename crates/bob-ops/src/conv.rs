//! Convolutions over maps with channels last.

#[cfg(feature = "flex")]
use burn::backend::TensorMetadata;
#[cfg(feature = "flex")]
use burn::backend::flex::FlexTensor;
use burn::nn::PaddingConfig2d;
use burn::nn::conv::Conv2d;
#[cfg(feature = "flex")]
use burn::tensor::Shape;
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Tensor, module};

#[cfg(feature = "tch")]
use crate::aten::as_type_of;
use crate::epilogue::{Epilogue, Finish};
#[cfg(feature = "flex")]
use crate::flex::conv as kernels;
#[cfg(feature = "flex")]
use crate::operation::FlexBackward;
use crate::operation::{Operation, apply, check_size, has_kernels};

/// How a kernel is laid over a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv2dOptions {
    /// Steps from one output pixel to the next, down and along.
    pub stride: [usize; 2],
    /// Zeros added: `[[top, bottom], [left, right]]`.
    pub padding: [[usize; 2]; 2],
    /// Steps between the pixels of the kernel, down and along.
    pub dilation: [usize; 2],
    /// Groups of channels that do not see each other.
    pub groups: usize,
}

impl Default for Conv2dOptions {
    /// Stride 1, no padding, dense.
    fn default() -> Self {
        Self {
            stride: [1, 1],
            padding: [[0, 0]; 2],
            dilation: [1, 1],
            groups: 1,
        }
    }
}

impl Conv2dOptions {
    /// As `conv` lays its kernel over a map of `input` `[height, width]`.
    pub fn of(conv: &Conv2d, input: [usize; 2]) -> Self {
        let options = Self {
            stride: conv.stride,
            padding: [[0, 0]; 2],
            dilation: conv.dilation,
            groups: conv.groups,
        };
        options.padded(&conv.padding, conv.kernel_size, input)
    }

    /// The same with the zeros that `padding` adds for a kernel of `kernel` over a map of `input`.
    ///
    /// # Panics
    /// Where a stride, a dilation or a side of the kernel is zero, or the kernel's size overflows.
    pub fn padded(self, padding: &PaddingConfig2d, kernel: [usize; 2], input: [usize; 2]) -> Self {
        let padding = match padding {
            PaddingConfig2d::Valid => [[0, 0]; 2],
            PaddingConfig2d::Explicit(top, left, bottom, right) => [[*top, *bottom], [*left, *right]],
            // TensorFlow's: as many outputs as strides fit, the odd zero at the end.
            PaddingConfig2d::Same => {
                let reach = self.reach("conv2d", kernel);
                std::array::from_fn(|axis| {
                    let outputs = input[axis].div_ceil(self.stride[axis]);
                    let before_last = outputs.saturating_sub(1) * self.stride[axis];
                    let needed = before_last.saturating_add(reach[axis]).saturating_sub(input[axis]);
                    [needed / 2, needed - needed / 2]
                })
            }
        };
        Self { padding, ..self }
    }

    /// Height and width of the output for a map of `input` and a kernel of `kernel`.
    ///
    /// # Panics
    /// Where the kernel is larger than the padded map, a stride, a dilation or a side of the kernel is zero, or a size
    /// overflows.
    pub fn output(&self, input: [usize; 2], kernel: [usize; 2]) -> [usize; 2] {
        self.output_of("conv2d", input, kernel)
    }

    /// [`Self::output`] of `operation`, which a panic names.
    pub(crate) fn output_of(&self, operation: &str, input: [usize; 2], kernel: [usize; 2]) -> [usize; 2] {
        let (reach, padded) = (self.reach(operation, kernel), self.around(operation, input));
        assert!(
            padded[0] >= reach[0] && padded[1] >= reach[1],
            "{operation}: a kernel of {kernel:?} does not fit a map of {input:?} with {self:?}"
        );
        std::array::from_fn(|axis| (padded[axis] - reach[axis]) / self.stride[axis] + 1)
    }

    /// Pixels from the first to the last that a kernel meets, both counted.
    fn reach(&self, operation: &str, kernel: [usize; 2]) -> [usize; 2] {
        assert!(
            !self.stride.contains(&0) && !self.dilation.contains(&0) && !kernel.contains(&0),
            "{operation}: a stride, a dilation or a kernel of zero: {self:?}, kernel {kernel:?}"
        );
        std::array::from_fn(|axis| {
            let last = (kernel[axis] - 1).checked_mul(self.dilation[axis]);
            last.and_then(|last| last.checked_add(1))
                .unwrap_or_else(|| panic!("{operation}: the size of a kernel of {kernel:?} overflows with {self:?}"))
        })
    }

    /// Height and width of a map of `input` with its padding.
    fn around(&self, operation: &str, input: [usize; 2]) -> [usize; 2] {
        std::array::from_fn(|axis| {
            let padded = self.padding[axis]
                .iter()
                .try_fold(input[axis], |size, zeros| size.checked_add(*zeros));
            padded.unwrap_or_else(|| panic!("{operation}: the size of a map of {input:?} overflows with {self:?}"))
        })
    }
}

/// A 2-D convolution (cross-correlation, as everywhere in deep learning) with channels last, and what follows it.
///
/// # Shapes
///   - x: `[batch, height, width, in]`
///   - weight: `[out, in / groups, kernel_height, kernel_width]`, as every state dict has it
///   - bias: `[out]`
///   - residual, output: `[batch, output_height, output_width, out]`
///
/// # Panics
/// Where the shapes or groups do not fit, the kernel is larger than the padded map, or the output or the padded map has
/// more values than can be addressed.
pub fn conv2d(
    x: Tensor<4>,
    weight: Tensor<4>,
    bias: Option<Tensor<1>>,
    options: Conv2dOptions,
    epilogue: Epilogue<4>,
) -> Tensor<4> {
    let [batch, height, width, channels] = x.dims();
    let [outer, inner, kernel_height, kernel_width] = weight.dims();
    let groups = options.groups;
    assert!(
        groups > 0 && channels == inner * groups && outer % groups == 0,
        "conv2d: {groups} groups, x {:?}, weight {:?}",
        x.dims(),
        weight.dims()
    );
    if let Some(bias) = &bias {
        assert_eq!(bias.dims(), [outer], "conv2d: the bias of {outer} channels");
    }
    let [output_height, output_width] = options.output([height, width], [kernel_height, kernel_width]);
    let [padded_height, padded_width] = options.around("conv2d", [height, width]);
    check_size("conv2d", &[batch, output_height, output_width, outer]);
    check_size("conv2d", &[batch, padded_height, padded_width, channels]);
    if let Some(residual) = &epilogue.residual {
        let shape = [batch, output_height, output_width, outer];
        assert_eq!(residual.dims(), shape, "conv2d: the residual of an output of {shape:?}");
    }
    if !has_kernels(&x.device(), x.dtype()) {
        return reference(x, weight, bias, options, epilogue);
    }
    let (finish, inputs) = epilogue.into_inputs(x, weight.into_dispatch(), bias);
    apply(Conv { options, finish }, inputs)
}

/// The same by burn's own convolution.
pub(crate) fn reference(
    x: Tensor<4>,
    weight: Tensor<4>,
    bias: Option<Tensor<1>>,
    options: Conv2dOptions,
    epilogue: Epilogue<4>,
) -> Tensor<4> {
    let padding = options.padding.map(|[before, after]| (before, after));
    let options = ConvOptions::<2>::new_with_padding(options.stride, padding, options.dilation, options.groups);
    epilogue.reference(module::conv2d(x.permute([0, 3, 1, 2]), weight, bias, options).permute([0, 2, 3, 1]))
}

#[derive(Clone, Debug)]
struct Conv {
    options: Conv2dOptions,
    finish: Finish,
}

impl Operation for Conv {
    fn name(&self) -> &'static str {
        if self.options.groups > 1 {
            "conv2d, grouped"
        } else {
            "conv2d"
        }
    }

    fn reads(&self, index: usize) -> bool {
        index < 2
    }

    #[cfg(feature = "flex")]
    fn flex(&self, inputs: Vec<FlexTensor>, keep: bool) -> (FlexTensor, Vec<FlexTensor>) {
        let [batch, height, width, _] = inputs[0].shape().dims();
        let [outer, _, kernel_height, kernel_width] = inputs[1].shape().dims();
        let [output_height, output_width] = self.options.output([height, width], [kernel_height, kernel_width]);
        let shape = Shape::from([batch, output_height, output_width, outer]);
        self.finish.flex(&inputs, shape, keep, |finish| {
            kernels::forward(&inputs[0], &inputs[1], &self.options, finish)
        })
    }

    #[cfg(feature = "flex")]
    fn flex_backward(&self, mut pass: FlexBackward) -> Vec<Option<FlexTensor>> {
        let grad = self.finish.flex_backward(&mut pass);
        let (x, weight) = (pass.input(0), pass.input(1));
        let x_grad = pass.wanted[0].then(|| kernels::x_backward(x.shape().dims(), weight, &grad, &self.options));
        let weight_grad =
            pass.wanted[1].then(|| kernels::weight_backward(x, weight.shape().dims(), &grad, &self.options));
        let bias = || kernels::bias_backward(&grad);
        self.finish.in_order(&pass, [x_grad, weight_grad], bias, grad.clone())
    }

    #[cfg(feature = "tch")]
    fn aten(&self, inputs: &[tch::Tensor]) -> tch::Tensor {
        let Conv2dOptions {
            stride,
            padding: [[top, bottom], [left, right]],
            dilation,
            groups,
        } = self.options;
        // ATen pads alike on both sides; what is more at one side is padded before.
        let (down, along) = (top.min(bottom), left.min(right));
        // ATen goes by the strides, and maps that are not channels last in memory cost a copy at every operation.
        let mut x = inputs[0].contiguous().permute([0, 3, 1, 2]);
        if top != bottom || left != right {
            let extra = [left - along, right - along, top - down, bottom - down].map(|extra| extra as i64);
            x = x.constant_pad_nd(extra);
        }
        let x = x.conv2d(
            &as_type_of(&inputs[0], &inputs[1]),
            self.finish.aten_bias(inputs),
            stride.map(|step| step as i64),
            [down as i64, along as i64],
            dilation.map(|step| step as i64),
            groups as i64,
        );
        self.finish.aten(x.permute([0, 2, 3, 1]), inputs)
    }
}
