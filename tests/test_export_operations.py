# ruff: noqa: PLW0108  (a row makes its layers when it runs, not when the tests are collected)
"""The float file of every operation and layer computes in ONNX Runtime what Keras computes, optimized and not.

Each row is a function of symbolic tensors and the shapes of its inputs, without the batch. A model has one row only, so
that a failure names it.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
from keras import ops

from file_checks import run_in_openvino
from keras_qat.export import export_onnx

layers = keras.layers

IMAGE, WIDE, SERIES, VOLUME, VECTOR, TOKENS = (6, 5, 4), (9, 7, 3), (12, 4), (4, 5, 6, 2), (8,), (5, 8)

PIXELS = ((0, 0), (1, 2), (0, 1), (0, 0))
"""How much is padded to an image."""

Row = tuple[Callable[..., Any], tuple[Any, ...]]


def _rows(shapes: tuple[Any, ...], **functions: Callable[..., Any]) -> dict[str, Row]:
    return {name: (function, shapes) for name, function in functions.items()}


def convolved(x: Any) -> Any:
    return layers.Conv2D(3, 3)(x)


def _activations() -> dict[str, Row]:
    names = (
        *("celu", "elu", "exponential", "gelu", "hard_shrink", "hard_sigmoid", "hard_silu", "hard_tanh"),
        *("leaky_relu", "linear", "log_sigmoid", "log_softmax", "mish", "relu", "relu6", "selu", "sigmoid", "silu"),
        *("soft_shrink", "softmax", "softplus", "softsign", "sparse_plus", "sparse_sigmoid", "sparsemax"),
        *("squareplus", "tanh", "tanh_shrink"),
    )
    return {f"activation {name}": (layers.Activation(name), (IMAGE,)) for name in names}


ROWS: dict[str, Row] = {
    **_activations(),
    **_rows(
        (IMAGE,),
        activation_layer=lambda x: layers.Activation("mish")(x),
        dense_with_a_function_of_ops=lambda x: layers.Dense(3, activation=ops.gelu)(x),
        prelu=lambda x: layers.PReLU()(x),
        prelu_shared=lambda x: layers.PReLU(shared_axes=[1, 2])(x),
        elu_alpha=lambda x: layers.ELU(0.3)(x),
        celu_alpha=lambda x: ops.celu(x, 0.3),
        gelu_approximate=lambda x: ops.gelu(x, approximate=True),
        relu_slope_and_maximum=lambda x: layers.ReLU(1.0, negative_slope=0.2, threshold=0.3)(x),
        relu_slope_and_ceiling=lambda x: layers.ReLU(1.0, negative_slope=0.2)(x),
        relu_function=lambda x: keras.activations.relu(x, negative_slope=0.1, max_value=0.5, threshold=0.2),
        softmax_of_height=lambda x: ops.softmax(x, axis=1),
        softmax_of_pixels=lambda x: layers.Softmax(axis=(1, 2))(x),
        threshold=lambda x: ops.threshold(x, 0.3, -1.0),
        absolute=lambda x: ops.abs(x) + ops.sign(x) - ops.square(x),
        powers=lambda x: ops.sqrt(ops.exp(x)) + ops.rsqrt(ops.exp(x)) + ops.expm1(x) + ops.exp2(x),
        logarithms=lambda x: (
            ops.log(ops.abs(x) + 1) + ops.log1p(ops.abs(x)) + ops.log2(ops.abs(x) + 1) + ops.log10(x * x + 1)
        ),
        waves=lambda x: (
            ops.sin(x) + ops.cos(x) + ops.tan(x / 3) + ops.sinh(x) + ops.cosh(x) + ops.arctan(x) + ops.arcsinh(x)
        ),
        arcs=lambda x: (
            ops.arcsin(ops.tanh(x))
            + ops.arccos(ops.tanh(x) * 0.9)
            + ops.arctanh(ops.tanh(x) * 0.5)
            + ops.arccosh(x * x + 1)
        ),
        rounding=lambda x: ops.round(x) + ops.floor(x) + ops.ceil(x) + ops.trunc(x) + ops.round(x, 1),
        degrees=lambda x: ops.deg2rad(ops.rad2deg(x)) + ops.erf(x),
        clip=lambda x: ops.clip(x, -0.3, 0.8),
        clip_array=lambda x: ops.clip(x, np.array([-1, 0, 0, -2], "float32"), 0.5),
        casts=lambda x: ops.cast(ops.cast(x * 3, "int32"), "float32") + ops.cast(x > 0, "float32"),
        saturate_cast=lambda x: ops.cast(ops.saturate_cast(x * 200, "uint8"), "float32"),
        constants=lambda x: (2 * x + 1 - x / 3) * (1 - x) / (x * x + 2) + (x**2) - (3 - x),
        channel_constants=lambda x: (
            x * np.arange(4, dtype="float32")
            - np.array([[[1.0]], [[2.0]], [[3.0]], [[4.0]], [[5.0]], [[6.0]]], "float32")
        ),
        conditions=lambda x: (
            ops.where(ops.logical_and(x > 0, ops.logical_not(x < 0.5)), x, -1.0)
            + ops.where(ops.not_equal(x, 0), 1.0, x)
        ),
        comparisons=lambda x: ops.cast(ops.logical_or(x >= 0.5, x <= -0.5) & ops.isfinite(x), "float32"),
        division=lambda x: ops.floor_divide(x, 0.3) + ops.mod(x, 0.7) + ops.divide_no_nan(x, ops.relu(x)),
        integers=lambda x: ops.cast(ops.cast(x * 9, "int32") // 2 + ops.cast(x * 9, "int32") % 4, "float32"),
        logaddexp=lambda x: ops.logaddexp(x, x * 2) + ops.hypot(x, x - 1),
        formulas_of_a_number=lambda x: ops.divide_no_nan(x, 1.7) + ops.hypot(x, np.float32(0.5)),
    ),
    **_rows(
        (IMAGE, IMAGE),
        merges=lambda a, b: layers.Concatenate()(
            [layers.Subtract()([a, b]), layers.Maximum()([a, b]), layers.Minimum()([a, b]), layers.Average()([a, b])]
        ),
        binary=lambda a, b: ops.maximum(a, b) + ops.minimum(a, b) * ops.power(ops.abs(a), 0.5) - a / (ops.abs(b) + 1),
        concatenate=lambda a, b: ops.concatenate([a, b], axis=2),
        stack=lambda a, b: ops.stack([a, b], axis=2),
        append=lambda a, b: ops.append(a, b, axis=1),
    ),
    **_rows(
        (IMAGE, (4,)),
        merge_of_ranks=lambda a, b: layers.Multiply()([a, b]),
        broadcast_of_ranks=lambda a, b: a * ops.reshape(b, (-1, 1, 1, 4)),
    ),
    **_rows((IMAGE, (5, 4)), merge_of_three_and_four=lambda a, b: layers.Add()([a, b])),
    **_rows(
        (WIDE,),
        max_pool_same=lambda x: layers.MaxPooling2D(3, 2, "same")(x),
        average_pool_same=lambda x: layers.AveragePooling2D(3, 2, "same")(x),
        pool_operations=lambda x: ops.average_pool(x, 2, 1, "same") + ops.max_pool(x, 3, 1, "same"),
        adaptive_average=lambda x: layers.AdaptiveAveragePooling2D((4, 3))(x),
        adaptive_max=lambda x: layers.AdaptiveMaxPooling2D((4, 3))(x),
        adaptive_divides=lambda x: layers.AdaptiveAveragePooling2D((3, 7))(x),
        zero_padding=lambda x: layers.ZeroPadding2D(((1, 2), (3, 0)))(x),
        cropping=lambda x: layers.Cropping2D(((1, 2), (0, 1)))(x),
        pad_constant=lambda x: ops.pad(x, PIXELS, constant_values=0.5),
        pad_reflect=lambda x: ops.pad(x, PIXELS, mode="reflect"),
        pad_constant_conv=lambda x: convolved(ops.pad(x, PIXELS, constant_values=0.5)),
        pad_reflect_conv=lambda x: convolved(ops.pad(x, PIXELS, mode="reflect")),
        pad_zero_conv=lambda x: convolved(ops.pad(x, PIXELS)),
        pad_lowest_pool=lambda x: layers.MaxPooling2D(3)(ops.pad(x, PIXELS, constant_values=-np.inf)),
        pad_constant_pool=lambda x: layers.MaxPooling2D(3)(ops.pad(ops.relu(x), PIXELS, constant_values=0.5)),
        pad_symmetric=lambda x: ops.pad(x, ((0, 0), (1, 2), (0, 1), (2, 0)), mode="symmetric"),
        pad_images=lambda x: ops.image.pad_images(x, 1, 2, target_height=12, target_width=11),
        crop_images=lambda x: ops.image.crop_images(x, 1, 2, target_height=4, target_width=3),
        up_sampling_nearest=lambda x: layers.UpSampling2D((2, 3))(x),
        up_sampling_bilinear=lambda x: layers.UpSampling2D((2, 3), interpolation="bilinear")(x),
        up_sampling_bicubic=lambda x: layers.UpSampling2D(2, interpolation="bicubic")(x),
        up_sampling_lanczos=lambda x: layers.UpSampling2D(2, interpolation="lanczos3")(x),
        resizing_smaller=lambda x: layers.Resizing(5, 4)(x),
        resizing_larger=lambda x: layers.Resizing(11, 13)(x),
        resizing_nearest=lambda x: layers.Resizing(11, 5, interpolation="nearest")(x),
        resizing_bicubic=lambda x: layers.Resizing(5, 13, interpolation="bicubic")(x),
        resizing_antialias=lambda x: layers.Resizing(4, 4, antialias=True)(x),
        resizing_cropped=lambda x: layers.Resizing(5, 5, crop_to_aspect_ratio=True)(x),
        resizing_padded=lambda x: layers.Resizing(6, 6, pad_to_aspect_ratio=True, fill_value=0.5)(x),
        resize_operation=lambda x: ops.image.resize(x, (8, 8), interpolation="lanczos5"),
        center_crop=lambda x: layers.CenterCrop(4, 4)(x),
        center_crop_of_a_small_image=lambda x: layers.CenterCrop(12, 10)(x),
        gray=lambda x: ops.image.rgb_to_grayscale(x),
        gray_already=lambda x: ops.image.rgb_to_grayscale(x[..., :1]),
        gray_of_whole_numbers=lambda x: ops.image.rgb_to_grayscale(ops.cast(ops.abs(x) * 50, "uint8")),
        order_of_truths=lambda x: ops.argsort(x > 0, axis=1),
        truncated_whole_numbers=lambda x: ops.trunc(ops.argmax(x, axis=-1)),
        finite_whole_numbers=lambda x: ops.cast(ops.isinf(ops.argmax(x, axis=-1)), "float32"),
        patches=lambda x: ops.image.extract_patches(x, 3, strides=2, padding="same"),
        conv_dilated=lambda x: layers.Conv2D(4, 3, padding="same", dilation_rate=2)(x),
        conv_grouped=lambda x: layers.Conv2D(6, 3, groups=3, padding="same", strides=2)(x),
        depthwise_dilated=lambda x: layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same", dilation_rate=2)(x),
        separable=lambda x: layers.SeparableConv2D(4, 3, depth_multiplier=2)(x),
        conv_operation=lambda x: ops.conv(x, _numbers(3, 3, 3, 4), strides=2, padding="same"),
        depthwise_operation=lambda x: ops.depthwise_conv(x, _numbers(3, 3, 3, 2)),
        conv_of_a_computed_kernel=lambda x: ops.conv(
            x, ops.tanh(ops.reshape(ops.mean(x, axis=(0, 1, 2)), (1, 1, 3, 1)))
        ),
        depth_to_space=lambda x: ops.depth_to_space(layers.Conv2D(8, 1)(x), 2),
        transposed_same=lambda x: layers.Conv2DTranspose(5, 3, strides=2, padding="same")(x),
        transposed_same_even=lambda x: layers.Conv2DTranspose(5, 4, strides=2, padding="same", use_bias=False)(x),
        transposed_valid=lambda x: layers.Conv2DTranspose(5, 3, strides=2, activation="relu")(x),
        transposed_sparse=lambda x: layers.Conv2DTranspose(5, 2, strides=3, padding="same")(x),
        transposed_sparse_valid=lambda x: layers.Conv2DTranspose(5, 2, strides=3)(x),
        transposed_output_padding=lambda x: layers.Conv2DTranspose(5, 3, strides=2, output_padding=1)(x),
        transposed_output_padding_same=lambda x: layers.Conv2DTranspose(
            5, 3, strides=2, padding="same", output_padding=0
        )(x),
        transposed_and_normalized=lambda x: layers.BatchNormalization()(layers.Conv2DTranspose(5, 2, strides=2)(x)),
        flips=lambda x: ops.flip(x, axis=1) + ops.flip(x, axis=(1, 2)),
        rolls=lambda x: ops.roll(x, 2, axis=1) + ops.roll(x, (1, -2), axis=(1, 2)),
        repeats=lambda x: ops.repeat(ops.repeat(x, 2, axis=1), [1, 2, 0, 1, 1, 1, 1], axis=2),
        tiles=lambda x: ops.tile(x, (1, 2, 1, 3)),
        swaps=lambda x: ops.moveaxis(ops.swapaxes(x, 1, 3), 1, 2),
        splits=lambda x: ops.concatenate(list(reversed(ops.split(x, 3, axis=-1))), axis=2),
        splits_at=lambda x: ops.add(*[ops.mean(y, axis=(1, 2)) for y in ops.split(x, [4], axis=1)]),
        unstacks=lambda x: ops.add(*ops.unstack(x, axis=3)[:2]),
        indexing=lambda x: x[:, ::2, -3:, None, 0] + x[:, ::2, -3:, 1:2],
        indexing_with_dots=lambda x: x[..., ::-1] * x[:, 1:2],
        new_axes=lambda x: ops.squeeze(ops.expand_dims(x, axis=(1, 3)), axis=(1, 3)),
        blocks=lambda x: ops.reshape(
            ops.transpose(ops.reshape(x[:, :8, :6], (-1, 4, 2, 3, 2, 3)), (0, 1, 3, 2, 4, 5)), (-1, 12, 12)
        ),
        windows_as_images=lambda x: ops.reshape(
            layers.Conv2D(3, 3)(ops.reshape(x[:, :8, :6], (-1, 4, 6, 3))), (-1, 2, 2 * 4 * 3)
        ),
        reductions=lambda x: (
            ops.sum(x, axis=1) + ops.max(x, axis=1) - ops.min(x, axis=1) + ops.mean(x, axis=1) + ops.prod(x, axis=1)
        ),
        kept_reductions=lambda x: (
            ops.mean(x, axis=(1, 2), keepdims=True)
            + ops.max(x, axis=-1, keepdims=True)
            + ops.logsumexp(x, axis=(1, 3), keepdims=True)
        ),
        moments=lambda x: ops.var(x, axis=(1, 2)) + ops.std(x, axis=(1, 2)) + ops.add(*ops.moments(x, axes=[1, 2])),
        norms=lambda x: ops.norm(x, axis=-1) + ops.norm(x, ord=1, axis=-1) + ops.cumsum(x, axis=2)[..., 0],
        truths=lambda x: (
            ops.cast(ops.any(x > 1, axis=-1), "float32")
            + ops.cast(ops.all(x > 0, axis=3), "float32")
            + ops.cast(ops.count_nonzero(ops.relu(x), axis=3), "float32")
        ),
        batch_norm_of_height=lambda x: layers.BatchNormalization(axis=1)(x),
        batch_norm_operation=lambda x: ops.batch_normalization(
            x, _numbers(3), np.abs(_numbers(3)) + 0.1, axis=-1, offset=_numbers(3), scale=_numbers(3)
        ),
        layer_norm=lambda x: layers.LayerNormalization()(x),
        layer_norm_of_pixels=lambda x: layers.LayerNormalization(axis=[1, 2, 3])(x),
        layer_norm_of_height=lambda x: layers.LayerNormalization(axis=1)(x),
        layer_norm_of_rows=lambda x: layers.LayerNormalization(axis=(1, 2), center=False)(x),
        layer_norm_operation=lambda x: ops.layer_normalization(x, axis=-1),
        rms_norm=lambda x: layers.RMSNormalization()(x),
        rms_norm_operation=lambda x: ops.rms_normalization(x, axis=(1, 2)),
        unit_norm=lambda x: layers.UnitNormalization(axis=(1, 2))(x),
        unit_norm_operation=lambda x: ops.normalize(x, axis=-1, order=1),
        group_norm=lambda x: layers.GroupNormalization(groups=3)(x),
        group_norm_of_height=lambda x: layers.GroupNormalization(groups=3, axis=1, scale=False)(x),
        instance_norm=lambda x: layers.GroupNormalization(groups=-1)(x),
    ),
    **_rows(
        (SERIES,),
        conv1d=lambda x: layers.Conv1D(5, 3, padding="same", strides=2)(x),
        conv1d_causal=lambda x: layers.Conv1D(5, 3, padding="causal", dilation_rate=2)(x),
        conv1d_normalized=lambda x: layers.ReLU()(layers.BatchNormalization()(layers.Conv1D(5, 3, groups=1)(x))),
        depthwise1d=lambda x: layers.DepthwiseConv1D(3, depth_multiplier=2)(x),
        separable1d=lambda x: layers.SeparableConv1D(5, 3, activation="swish")(x),
        transposed1d=lambda x: layers.Conv1DTranspose(5, 3, strides=2, padding="same")(x),
        pools1d=lambda x: layers.MaxPooling1D(2)(layers.AveragePooling1D(3, 1, "same")(x)),
        global_pools1d=lambda x: (
            layers.GlobalAveragePooling1D()(x) + layers.GlobalMaxPooling1D()(layers.Conv1D(4, 2)(x))
        ),
        global_pool_of_tokens=lambda x: layers.GlobalAveragePooling1D(keepdims=True)(layers.Dense(3)(x)),
        adaptive1d=lambda x: layers.AdaptiveMaxPooling1D(5)(x),
        padding1d=lambda x: layers.Cropping1D((1, 2))(layers.ZeroPadding1D((2, 3))(x)),
        up_sampling1d=lambda x: layers.Conv1D(3, 2)(layers.UpSampling1D(3)(x)),
        up_sampling_of_tokens=lambda x: layers.UpSampling1D(2)(x),
        dense_on_a_series=lambda x: layers.Dense(3, "relu")(layers.Conv1D(5, 3)(x)),
        dense_on_tokens=lambda x: layers.Dense(3, "relu")(x),
        batch_norm_of_tokens=lambda x: layers.BatchNormalization()(x),
        series_to_image=lambda x: layers.Conv2D(3, 2)(layers.Reshape((4, 4, 3))(x)),
        flattened_series=lambda x: layers.Dense(2)(layers.Flatten()(layers.Conv1D(3, 3)(x))),
        permuted=lambda x: layers.Permute((2, 1))(layers.Conv1D(3, 3)(x)),
    ),
    **_rows(
        (VOLUME,),
        conv3d=lambda x: layers.Conv3D(3, 2, padding="same", strides=(1, 2, 2))(x),
        conv3d_normalized=lambda x: layers.BatchNormalization()(layers.Conv3D(3, (1, 2, 3), dilation_rate=1)(x)),
        transposed3d=lambda x: layers.Conv3DTranspose(3, 2, strides=2)(x),
        pools3d=lambda x: layers.MaxPooling3D(2)(layers.AveragePooling3D((1, 2, 2), 1, "same")(x)),
        global_pools3d=lambda x: (
            layers.GlobalAveragePooling3D()(x) * layers.GlobalMaxPooling3D()(layers.MaxPooling3D(2)(x))
        ),
        adaptive3d=lambda x: layers.AdaptiveAveragePooling3D((3, 2, 4))(x),
        padding3d=lambda x: layers.Cropping3D((1, 0, 2))(layers.ZeroPadding3D((0, 1, 2))(x)),
        up_sampling3d=lambda x: layers.UpSampling3D((2, 1, 2))(x),
        dense_on_a_volume=lambda x: layers.Dense(3)(layers.Conv3D(4, 2)(x)),
    ),
    **_rows(
        (TOKENS, TOKENS),
        matmul=lambda a, b: ops.matmul(a, ops.transpose(b, (0, 2, 1))) + ops.matmul(a, _numbers(8, 5)),
        einsum=lambda a, b: ops.einsum("bth,bsh->bts", a, b),
        einsum_with_dots=lambda a, b: ops.einsum("...h,hk->...k", a * b, _numbers(8, 3)),
        einsum_of_one=lambda a, b: ops.einsum("bth->hb", a + b),
        einsum_of_three=lambda a, b: ops.einsum("bth,bsh,hk->btk", a, b, _numbers(8, 3)),
        einsum_of_many_axes=lambda a, b: ops.einsum(
            "bijx,bkx->bkij", ops.reshape(a, (-1, 5, 2, 4)), ops.reshape(b, (-1, 10, 4))
        ),
        dot_layer=lambda a, b: layers.Dot(axes=2)([a, b]),
        dot_layer_normalized=lambda a, b: layers.Dot(axes=(1, 1), normalize=True)([a, b]),
        dot_of_vectors=lambda a, b: layers.Dot(axes=1)([a[:, 0], b[:, 1]]),
        tensordot=lambda a, b: ops.tensordot(a, _numbers(5, 8, 3), axes=2) + ops.dot(b[:, 0], _numbers(8, 3)),
        einsum_dense=lambda a, b: layers.EinsumDense("abc,cde->abde", (None, 2, 3), bias_axes="e")(a + b),
        einsum_dense_joined=lambda a, b: layers.EinsumDense("abc,bcd->ad", 6, activation="gelu")(a + b),
        einsum_dense_with_dots=lambda a, b: layers.EinsumDense("...x,xy->...y", 4, bias_axes="y")(a + b),
        attention=lambda a, b: ops.dot_product_attention(*[ops.reshape(x, (-1, 5, 2, 4)) for x in (a, b, a)]),
        attention_causal=lambda a, b: ops.dot_product_attention(
            *[ops.reshape(x, (-1, 5, 2, 4)) for x in (a, b, a)], is_causal=True, scale=0.3
        ),
        attention_masked=lambda a, b: ops.dot_product_attention(
            *[ops.reshape(x, (-1, 5, 2, 4)) for x in (a, b, a)], mask=ops.reshape(a[..., 0] > 0, (-1, 1, 1, 5))
        ),
        attention_grouped=lambda a, b: ops.dot_product_attention(
            ops.reshape(a, (-1, 5, 4, 2)), *[ops.reshape(x, (-1, 5, 2, 4))[..., :2] for x in (b, a)]
        ),
        attention_layer=lambda a, b: layers.MultiHeadAttention(2, 4)(a, b, use_causal_mask=True),
        attention_layer_of_groups=lambda a, b: layers.GroupQueryAttention(4, 4, 2)(a, b),
        attention_of_keras=lambda a, b: layers.Attention()([a, b]),
        take=lambda a, b: ops.take(a, [2, 0, 2], axis=1) + ops.take(b, np.array([0, 1, 4]), axis=-2),
        take_along_axis=lambda a, b: ops.take_along_axis(a, ops.argsort(b, axis=1), axis=1),
        top_k=lambda a, b: ops.add(*[ops.cast(x, "float32") for x in ops.top_k(a + b, 3)]),
        sorting=lambda a, b: ops.sort(a, axis=1) + ops.cast(ops.argmax(b, axis=-1), "float32")[..., None],
        argmin=lambda a, b: ops.argmin(a * b, axis=1),
        one_hot=lambda a, b: ops.one_hot(ops.argmax(a + b, axis=-1), 8, axis=1),
        triangles=lambda a, b: ops.tril(a) + ops.triu(b, 1) + ops.ones_like(a) + ops.full_like(b, 2.5),
    ),
    **_rows(
        (SERIES,),
        lstm=lambda x: layers.LSTM(6)(x),
        lstm_sequence=lambda x: layers.LSTM(6, return_sequences=True, return_state=True, use_bias=False)(x),
        lstm_backwards=lambda x: layers.LSTM(6, return_sequences=True, go_backwards=True, unroll=True)(x),
        lstm_hard=lambda x: layers.LSTM(6, activation="relu", recurrent_activation="hard_sigmoid")(x / 9),
        lstm_continued=lambda x: layers.LSTM(6)(x, initial_state=layers.LSTM(6, return_state=True)(x)[1:]),
        lstm_of_a_convolution=lambda x: layers.LSTM(6)(layers.Conv1D(5, 3)(x)),
        gru=lambda x: layers.GRU(6, return_sequences=True)(x),
        gru_reset_before=lambda x: layers.GRU(6, reset_after=False, return_state=True)(x),
        simple_rnn=lambda x: layers.SimpleRNN(6)(x),
        bidirectional=lambda x: layers.Bidirectional(layers.LSTM(6))(x),
        bidirectional_sequence=lambda x: layers.Bidirectional(layers.GRU(6, return_sequences=True), merge_mode="ave")(
            x
        ),
        bidirectional_states=lambda x: layers.Bidirectional(layers.LSTM(3, return_state=True), merge_mode=None)(x),
        conv_lstm1d=lambda x: layers.ConvLSTM1D(3, 2)(layers.Reshape((3, 4, 4))(x)),
    ),
    **_rows(
        (VOLUME,),
        conv_lstm=lambda x: layers.ConvLSTM2D(3, 3, padding="same")(x),
        conv_lstm_sequence=lambda x: layers.ConvLSTM2D(3, 2, return_sequences=True, return_state=True)(x),
        conv_lstm_of_a_volume=lambda x: layers.ConvLSTM2D(3, 2, go_backwards=True)(layers.Conv3D(2, 2)(x)),
    ),
    **_rows(
        (VECTOR,),
        dense_normalized=lambda x: layers.ReLU()(layers.BatchNormalization()(layers.Dense(5)(x))),
        repeated=lambda x: layers.RepeatVector(3)(x),
        scale_free_rms=lambda x: ops.rms_normalization(x),
        passed_on=lambda x: [layers.Dropout(0.5)(x), layers.Dense(2)(x)],
        glu=lambda x: keras.activations.glu(x),
    ),
}


def _numbers(*shape: int) -> np.ndarray:
    return np.random.default_rng(2).normal(size=shape).astype("float32")


def build(function: Callable[..., Any], shapes: tuple[Any, ...]) -> keras.Model:
    """The model of a row, with random weights."""
    inputs = [keras.Input(shape, name=f"x{i}") for i, shape in enumerate(shapes)]
    model = keras.Model(inputs, function(*inputs))
    rng = np.random.default_rng(0)
    for weight in model.weights:
        if keras.backend.is_float_dtype(weight.dtype):
            values = rng.normal(size=weight.shape)
            weight.assign(np.abs(values) + 0.1 if "variance" in weight.path else values)
    return model


def draw(model: keras.Model, batch: int = 3) -> list[np.ndarray]:
    """Random inputs of a model."""
    rng = np.random.default_rng(1)
    return [rng.normal(size=(batch, *x.shape[1:])).astype(x.dtype) for x in model.inputs]


def run_file(path: Path, inputs: list[np.ndarray], *, optimize: bool = True) -> list[np.ndarray]:
    """The outputs of a file in ONNX Runtime."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if not optimize:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [x.name for x in session.get_inputs()]
    outputs: list[np.ndarray] = session.run(None, dict(zip(names, inputs, strict=True)))
    return outputs


def check_float_file(model: keras.Model, folder: Path) -> None:
    """Compare the float file with Keras."""
    inputs = draw(model)
    expected = [np.asarray(y) for y in keras.tree.flatten(model.predict_on_batch(inputs))]
    path = export_onnx(model, folder / "model.onnx")
    onnx.checker.check_model(onnx.load(path), full_check=True)
    for optimize in (False, True):
        for y, made in zip(expected, run_file(path, inputs, optimize=optimize), strict=True):
            assert (made.dtype, made.shape) == (y.dtype, y.shape)
            assert np.abs(made - y).max() <= 1e-4 * np.abs(y).max() + 1e-6


@pytest.mark.parametrize("row", ROWS)
def test_float_file_is_what_keras_computes(row: str, tmp_path: Path) -> None:
    check_float_file(build(*ROWS[row]), tmp_path)


ROWS_IN_OPENVINO = ("norms", "kept_reductions", "up_sampling_bicubic", "bidirectional_sequence")
"""What OpenVINO 2026.4 computed otherwise than ONNX Runtime."""


@pytest.mark.parametrize("row", ROWS_IN_OPENVINO)
def test_float_file_in_openvino(row: str, tmp_path: Path) -> None:
    model = build(*ROWS[row])
    inputs = draw(model)
    made = run_in_openvino(export_onnx(model, tmp_path / "model.onnx"), inputs)
    for y, other in zip(keras.tree.flatten(model.predict_on_batch(inputs)), made, strict=True):
        assert np.abs(other - y).max() <= 1e-4 * np.abs(y).max() + 1e-6


OTHER_FORMS: dict[str, dict[str, Any]] = {
    "opset 13": {"opset": 13},
    "opset 21": {"opset": 21},
    "fp16": {"precision": "fp16"},
}
ROWS_OF_OTHER_FORMS = (
    *("reductions", "moments", "truths", "layer_norm", "layer_norm_of_height", "group_norm", "resizing_larger"),
    *("indexing", "casts", "integers", "attention_causal", "triangles", "top_k", "lstm_sequence", "celu_alpha"),
)


@pytest.mark.parametrize("form", OTHER_FORMS)
@pytest.mark.parametrize("row", ROWS_OF_OTHER_FORMS)
def test_other_opsets_and_half_precision(row: str, form: str, tmp_path: Path) -> None:
    model = build(*ROWS[row])
    inputs = draw(model)
    path = export_onnx(model, tmp_path / "model.onnx", **OTHER_FORMS[form])
    onnx.checker.check_model(onnx.load(path), full_check=True)
    half = form == "fp16"
    for y, made in zip(
        keras.tree.flatten(model.predict_on_batch(inputs)), run_file(path, inputs, optimize=not half), strict=True
    ):
        # A number that lies at the border of two integers may fall on either side in half precision.
        assert np.median(np.abs(made - y)) <= (2e-2 if half else 1e-4) * np.abs(y).max()


def test_input_types_are_kept(tmp_path: Path) -> None:
    inputs = [keras.Input((4, 4, 3), dtype=dtype, name=dtype) for dtype in ("uint8", "float16", "int32")]
    pixels, half, index = inputs
    merged = layers.Concatenate()(
        [layers.Rescaling(1 / 255)(pixels), ops.cast(half, "float32"), ops.cast(index, "float32")]
    )
    model = keras.Model(inputs, layers.Conv2D(2, 3)(merged))
    path = export_onnx(model, tmp_path / "model.onnx")
    rng = np.random.default_rng(0)
    x = [rng.integers(0, 9, (2, 4, 4, 3)).astype(t.dtype) for t in inputs]
    (made,) = run_file(path, x)
    np.testing.assert_allclose(made, model.predict_on_batch(x), rtol=1e-4, atol=1e-5)
