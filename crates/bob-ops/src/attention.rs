//! Attention of several heads over the tokens of an image or of a window.

#[cfg(feature = "flex")]
use burn::backend::flex::FlexTensor;
use burn::tensor::{Tensor, activation};

#[cfg(feature = "tch")]
use crate::aten::as_type_of;
#[cfg(feature = "flex")]
use crate::flex::attention as kernels;
#[cfg(feature = "flex")]
use crate::operation::FlexBackward;
use crate::operation::{Operation, apply, has_kernels};

/// Scaled dot-product attention on the output of a fused `qkv` layer (Vaswani et al., arXiv:1706.03762); the score
/// matrix is not kept for the backward pass.
///
/// # Shapes
///   - qkv: `[batch, tokens, 3 * heads * head_dim]`, queries, then keys, then values, each head by head
///   - bias: `[groups, heads, tokens, tokens]`, added to the scores of batch entry `b` from group `b % groups`
///   - output: `[batch, tokens, heads * head_dim]`
///
/// # Panics
/// Where the shapes do not fit.
pub fn attention(qkv: Tensor<3>, heads: usize, bias: Option<Tensor<4>>) -> Tensor<3> {
    run(qkv, heads, None, bias)
}

/// Attention by the cosine of queries and keys times a scale per head (Swin V2: Liu et al., arXiv:2111.09883); else as
/// [`attention`].
///
/// # Shapes
///   - qkv: `[batch, tokens, 3 * heads * head_dim]`
///   - scale: `[heads]`
///   - bias: `[groups, heads, tokens, tokens]`
///   - output: `[batch, tokens, heads * head_dim]`
///
/// # Panics
/// Where the shapes do not fit.
pub fn cosine_attention(qkv: Tensor<3>, heads: usize, scale: Tensor<1>, bias: Option<Tensor<4>>) -> Tensor<3> {
    assert_eq!(
        scale.dims(),
        [heads],
        "cosine_attention: a scale for each of {heads} heads"
    );
    run(qkv, heads, Some(scale), bias)
}

pub(crate) fn run(qkv: Tensor<3>, heads: usize, scale: Option<Tensor<1>>, bias: Option<Tensor<4>>) -> Tensor<3> {
    let [batch, tokens, width] = qkv.dims();
    assert!(
        heads > 0 && width % (3 * heads) == 0,
        "attention: {heads} heads do not divide a third of {width} channels"
    );
    if let Some(bias) = &bias {
        let [groups, ..] = bias.dims();
        assert!(
            bias.dims() == [groups, heads, tokens, tokens] && groups > 0 && batch % groups == 0,
            "attention: qkv {:?}, {heads} heads, bias {:?}",
            qkv.dims(),
            bias.dims()
        );
    }
    if !has_kernels(&qkv.device(), qkv.dtype()) {
        return reference(qkv, heads, scale, bias);
    }
    let operation = Attention {
        heads,
        cosine: scale.is_some(),
    };
    let mut inputs = vec![qkv.into_dispatch()];
    inputs.extend(scale.map(Tensor::into_dispatch));
    inputs.extend(bias.map(Tensor::into_dispatch));
    apply(operation, inputs)
}

/// The same composed of burn's own operations.
pub(crate) fn reference(qkv: Tensor<3>, heads: usize, scale: Option<Tensor<1>>, bias: Option<Tensor<4>>) -> Tensor<3> {
    let [batch, tokens, width] = qkv.dims();
    let dim = width / (3 * heads);
    let qkv = qkv.reshape([batch, tokens, 3 * heads, dim]).swap_dims(1, 2);
    let part = |i: usize| qkv.clone().narrow(1, i * heads, heads); // [batch, heads, tokens, dim]
    let (q, k, v) = (part(0), part(1), part(2));
    let scores = match scale {
        Some(scale) => {
            let unit = |x: Tensor<4>| {
                let norm = x.clone().square().sum_dim(3).sqrt().clamp_min(SMALLEST_NORM);
                x / norm
            };
            unit(q).matmul(unit(k).swap_dims(2, 3)) * scale.reshape([1, heads, 1, 1])
        }
        None => q.matmul(k.swap_dims(2, 3)) / (dim as f64).sqrt(),
    };
    let scores = match bias {
        Some(bias) => {
            let [groups, ..] = bias.dims();
            let scores = scores.reshape([batch / groups, groups, heads, tokens, tokens]) + bias.unsqueeze();
            scores.reshape([batch, heads, tokens, tokens])
        }
        None => scores,
    };
    let x = activation::softmax(scores, 3).matmul(v);
    x.swap_dims(1, 2).reshape([batch, tokens, width / 3])
}

/// The norm below which a query or key is not made longer (`torch.nn.functional.normalize`).
pub(crate) const SMALLEST_NORM: f32 = 1e-12;

/// A weight below it is zero: it has no bits left beside the others, which add up to one. A mask makes many of them, and
/// processors multiply what is too small for a normal float32 a hundred times slower.
pub(crate) const SMALLEST_WEIGHT: f32 = 1e-30;

/// Inputs: qkv, the scale of cosine attention, the bias where there is one.
#[derive(Clone, Debug)]
struct Attention {
    heads: usize,
    cosine: bool,
}

impl Operation for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn reads(&self, _index: usize) -> bool {
        true
    }

    #[cfg(feature = "flex")]
    fn flex(&self, inputs: Vec<FlexTensor>, keep: bool) -> (FlexTensor, Vec<FlexTensor>) {
        let scale = self.cosine.then(|| &inputs[1]);
        let bias = inputs.get(1 + usize::from(self.cosine));
        let (output, log_sums) = kernels::forward(&inputs[0], self.heads, scale, bias);
        (output, if keep { vec![log_sums] } else { Vec::new() })
    }

    #[cfg(feature = "flex")]
    fn flex_backward(&self, pass: FlexBackward) -> Vec<Option<FlexTensor>> {
        let scale = self.cosine.then(|| pass.input(1));
        let at = 1 + usize::from(self.cosine);
        let bias = (pass.inputs.len() > at).then(|| pass.input(at));
        let bias_wanted = pass.wanted.get(at).is_some_and(|wanted| *wanted);
        let (qkv, scale_grad, bias_grad) = kernels::backward(
            pass.input(0),
            self.heads,
            scale,
            bias,
            &pass.kept[0],
            &pass.grad,
            bias_wanted,
        );
        let mut grads = vec![Some(qkv)];
        if self.cosine {
            grads.push(scale_grad);
        }
        if bias.is_some() {
            grads.push(bias_grad);
        }
        grads
    }

    #[cfg(feature = "tch")]
    fn aten(&self, inputs: &[tch::Tensor]) -> tch::Tensor {
        let heads = self.heads as i64;
        let (batch, tokens, width) = inputs[0].size3().expect("three dimensions");
        let dim = width / 3 / heads;
        let qkv = inputs[0].view([batch, tokens, 3, heads, dim]).permute([2, 0, 3, 1, 4]);
        let (q, k, v) = (qkv.get(0), qkv.get(1), qkv.get(2));
        let bias = inputs.get(1 + usize::from(self.cosine));
        // One bias for each batch entry, without a copy.
        let bias = bias.map(|bias| {
            let bias = as_type_of(&q, bias);
            let groups = bias.size()[0];
            if groups == 1 {
                return bias;
            }
            bias.unsqueeze(0)
                .expand([batch / groups, groups, heads, tokens, tokens], false)
                .reshape([batch, heads, tokens, tokens])
        });
        let (q, k, scale) = if self.cosine {
            let unit = |x: tch::Tensor| {
                let norm = x
                    .norm_scalaropt_dim(2.0, [-1_i64].as_slice(), true)
                    .clamp_min(f64::from(SMALLEST_NORM));
                x / norm
            };
            let scale = as_type_of(&q, &inputs[1]).view([heads, 1, 1]);
            (unit(q) * scale, unit(k), Some(1.0))
        } else {
            (q, k, None)
        };
        let x = match bias {
            // ATen's own attention would compose this too, with weights that a mask makes subnormal: products with them
            // take four times as long.
            Some(bias) if self.cosine && bias.requires_grad() => {
                let weights = (q.matmul(&k.transpose(-2, -1)) + bias).softmax(-1, None);
                weights.threshold(f64::from(SMALLEST_WEIGHT), 0.0).matmul(&v)
            }
            bias => tch::Tensor::scaled_dot_product_attention(&q, &k, &v, bias, 0.0, false, scale, false),
        };
        x.transpose(1, 2).reshape([batch, tokens, width / 3])
    }
}
