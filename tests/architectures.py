"""Small networks of the architectures that Keras's examples show, with random weights, for tests.

Each function builds one. `ARCHITECTURES` lists them with what they read.
"""

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
from keras import layers, ops


def unet() -> keras.Model:
    """A U-Net of separable convolutions with residual branches, as for segmenting pets."""
    x = inputs = keras.Input((16, 16, 3), name="image")
    x = before = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(8, 3, strides=2, padding="same")(x)))
    skips = []
    for filters in (12, 16):
        for _ in range(2):
            x = layers.BatchNormalization()(layers.SeparableConv2D(filters, 3, padding="same")(layers.ReLU()(x)))
        skips.append(x)
        x = layers.MaxPooling2D(3, strides=2, padding="same")(x)
        x = before = layers.Add()([x, layers.Conv2D(filters, 1, strides=2, padding="same")(before)])
    for filters in (16, 12):
        x = layers.Conv2DTranspose(filters, 3, padding="same")(layers.ReLU()(x))
        x = layers.UpSampling2D(2)(layers.BatchNormalization()(x))
        residual = layers.Conv2D(filters, 1, padding="same")(layers.UpSampling2D(2)(before))
        x = before = layers.Concatenate()([layers.Add()([x, residual]), skips.pop()])
    x = layers.Conv2DTranspose(8, 3, strides=2, padding="same", activation="relu")(x)
    return keras.Model(inputs, layers.Conv2D(3, 3, padding="same", activation="softmax")(x), name="unet")


def autoencoder() -> keras.Model:
    """A convolutional autoencoder, as for denoising digits."""
    x = inputs = keras.Input((12, 12, 1), name="image")
    for filters in (8, 8):
        x = layers.MaxPooling2D(2, padding="same")(layers.Conv2D(filters, 3, activation="relu", padding="same")(x))
    for filters in (8, 8):
        x = layers.Conv2DTranspose(filters, 3, strides=2, activation="relu", padding="same")(x)
    return keras.Model(inputs, layers.Conv2D(1, 3, activation="sigmoid", padding="same")(x), name="autoencoder")


def generator() -> keras.Model:
    """The generator of a DCGAN: an image from noise."""
    noise = keras.Input((16,), name="noise")
    x = layers.Reshape((4, 4, 12))(layers.Dense(4 * 4 * 12)(noise))
    for filters in (12, 16):
        x = layers.LeakyReLU(0.2)(layers.Conv2DTranspose(filters, 4, strides=2, padding="same")(x))
    return keras.Model(noise, layers.Conv2D(3, 5, padding="same", activation="sigmoid")(x), name="generator")


def discriminator() -> keras.Model:
    """The discriminator of a DCGAN."""
    x = inputs = keras.Input((16, 16, 3), name="image")
    for filters in (8, 12, 12):
        x = layers.LeakyReLU(0.2)(layers.Conv2D(filters, 4, strides=2, padding="same")(x))
    x = layers.Dropout(0.2)(layers.Flatten()(x))
    return keras.Model(inputs, layers.Dense(1, activation="sigmoid")(x), name="discriminator")


def sub_pixel() -> keras.Model:
    """Super-resolution by sub-pixel convolution."""
    x = inputs = keras.Input((None, None, 1), name="image")
    for filters, size in ((16, 5), (16, 3), (8, 3), (9, 3)):
        x = layers.Conv2D(filters, size, padding="same", activation="relu", kernel_initializer="orthogonal")(x)
    return keras.Model(inputs, ops.depth_to_space(x, 3), name="sub_pixel")


def edsr() -> keras.Model:
    """Enhanced deep residual super-resolution: residual blocks, and upsampling by convolutions and pixels."""
    inputs = keras.Input((12, 12, 3), name="image")
    x = skip = layers.Conv2D(8, 3, padding="same")(layers.Rescaling(1 / 255)(inputs))
    for _ in range(2):
        y = layers.Conv2D(8, 3, padding="same", activation="relu")(x)
        x = layers.Add()([x, 0.1 * layers.Conv2D(8, 3, padding="same")(y)])
    x = layers.Add()([layers.Conv2D(8, 3, padding="same")(x), skip])
    x = ops.depth_to_space(layers.Conv2D(16, 3, padding="same")(x), 2)
    x = layers.Conv2DTranspose(6, 4, strides=2, padding="same")(x)
    x = layers.Conv2D(3, 3, padding="same")(layers.UpSampling2D(2, interpolation="bilinear")(x))
    return keras.Model(inputs, layers.Rescaling(255.0)(x), name="edsr")


class Distance(layers.Layer):
    """The squared distance of two embeddings."""

    def call(self, a: Any, b: Any) -> Any:
        return ops.sum(ops.square(a - b), axis=-1, keepdims=True)


def siamese() -> keras.Model:
    """One embedding of three images, and the distances of an anchor to the other two."""
    x = image = keras.Input((14, 14, 3))
    for filters in (8, 12):
        x = layers.MaxPooling2D()(layers.Conv2D(filters, 3, activation="relu")(x))
    x = layers.BatchNormalization()(layers.Dense(16, activation="relu")(layers.Flatten()(x)))
    embed = keras.Model(image, layers.Dense(8)(x), name="embedding")
    anchor, positive, negative = (keras.Input((14, 14, 3), name=name) for name in ("anchor", "positive", "negative"))
    near, far = (Distance(name=name)(embed(anchor), embed(x)) for name, x in (("near", positive), ("far", negative)))
    return keras.Model([anchor, positive, negative], [near, far], name="siamese")


def mobile_vit() -> keras.Model:
    """An inverted residual block and a MobileViT block, whose tokens are the pixels of a place in all patches."""
    inputs = keras.Input((16, 16, 3), name="image")
    x = layers.Conv2D(8, 3, strides=2, padding="same", activation="swish")(inputs)
    y = layers.BatchNormalization()(layers.Conv2D(16, 1, use_bias=False)(x))
    y = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(ops.silu(y))
    y = layers.Conv2D(8, 1, use_bias=False)(ops.silu(layers.BatchNormalization()(y)))
    x = layers.Add()([x, layers.BatchNormalization()(y)])
    y = layers.Conv2D(12, 1, activation="swish")(layers.Conv2D(8, 3, padding="same", activation="swish")(x))
    y = layers.Reshape((4, 16, 12))(y)
    for _ in range(2):
        z = layers.LayerNormalization(epsilon=1e-6)(y)
        y = layers.Add()([layers.MultiHeadAttention(2, 12)(z, z), y])
        z = layers.Dense(12)(layers.Dense(24, activation="swish")(layers.LayerNormalization(epsilon=1e-6)(y)))
        y = layers.Add()([z, y])
    y = layers.Conv2D(8, 1, activation="swish")(layers.Reshape((8, 8, 12))(y))
    x = layers.Conv2D(12, 3, padding="same", activation="swish")(layers.Concatenate()([x, y]))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(5, activation="softmax")(x), name="mobile_vit")


class Positions(layers.Layer):
    """A learned vector for each place in a sequence."""

    def build(self, shape: Any) -> None:
        self.table = self.add_weight(shape=shape[1:], initializer="random_normal", name="table")

    def call(self, x: Any) -> Any:
        return x + self.table


def compact_transformer() -> keras.Model:
    """A compact convolutional transformer: tokens by convolutions, and pooling of the sequence by attention."""
    x = inputs = keras.Input((16, 16, 3), name="image")
    for filters in (8, 16):
        x = layers.Conv2D(filters, 3, padding="same", use_bias=False, activation="relu")(x)
        x = layers.MaxPooling2D(3, 2, "same")(layers.ZeroPadding2D(1)(x))
    x = Positions()(layers.Reshape((-1, 16))(x))
    for _ in range(2):
        y = layers.LayerNormalization(epsilon=1e-5)(x)
        x = layers.Add()([layers.MultiHeadAttention(2, 8)(y, y), x])
        y = layers.LayerNormalization(epsilon=1e-5)(x)
        y = layers.Dense(16, activation="gelu")(layers.Dense(32, activation="gelu")(y))
        x = layers.Add()([y, x])
    x = layers.LayerNormalization(epsilon=1e-5)(x)
    weights = layers.Softmax(axis=1)(layers.Dense(1)(x))
    pooled = ops.squeeze(ops.matmul(ops.transpose(weights, (0, 2, 1)), x), 1)
    return keras.Model(inputs, layers.Dense(4)(pooled), name="compact_transformer")


def captcha() -> keras.Model:
    """The reader of captchas: columns of an image as a sequence for two bidirectional LSTMs."""
    x = inputs = keras.Input((32, 12, 1), name="image")
    for filters in (8, 12):
        x = layers.MaxPooling2D(2)(layers.Conv2D(filters, 3, activation="relu", padding="same")(x))
    x = layers.Dense(12, activation="relu")(layers.Reshape((8, 3 * 12))(x))
    for units in (10, 6):
        x = layers.Bidirectional(layers.LSTM(units, return_sequences=True, dropout=0.25))(x)
    return keras.Model(inputs, layers.Dense(11, activation="softmax")(x), name="captcha")


def volumes() -> keras.Model:
    """The classifier of CT scans, by 3-D convolutions."""
    x = inputs = keras.Input((14, 14, 10, 1), name="scan")
    for filters in (6, 8):
        x = layers.MaxPooling3D(2)(layers.Conv3D(filters, 3, activation="relu", padding="same")(x))
        x = layers.BatchNormalization()(x)
    x = layers.Dense(12, activation="relu")(layers.GlobalAveragePooling3D()(x))
    return keras.Model(inputs, layers.Dense(1, activation="sigmoid")(layers.Dropout(0.3)(x)), name="volumes")


def point_cloud() -> keras.Model:
    """PointNet: two learned transforms of the points and of their features."""

    def dense(x: Any, units: int, kind: Any) -> Any:
        return layers.ReLU()(layers.BatchNormalization(momentum=0.0)(kind(units)(x)))

    def convolved(x: Any, filters: int) -> Any:
        return dense(x, filters, lambda n: layers.Conv1D(n, 1, padding="valid"))

    def transformed(inputs: Any, features: int) -> Any:
        x = layers.GlobalMaxPooling1D()(convolved(convolved(inputs, 8), 12))
        x = dense(x, 8, layers.Dense)
        identity = keras.initializers.Constant(np.eye(features).flatten())
        x = layers.Dense(features * features, kernel_initializer="glorot_uniform", bias_initializer=identity)(x)
        return layers.Dot(axes=(2, 1))([inputs, layers.Reshape((features, features))(x)])

    inputs = keras.Input((24, 3), name="points")
    x = convolved(convolved(transformed(inputs, 3), 8), 8)
    x = layers.GlobalMaxPooling1D()(convolved(convolved(transformed(x, 8), 8), 16))
    x = layers.Dropout(0.3)(dense(x, 12, layers.Dense))
    return keras.Model(inputs, layers.Dense(6, activation="softmax")(x), name="point_cloud")


def conv_mixer() -> keras.Model:
    """ConvMixer: patches, mixed by depthwise and pointwise convolutions."""

    def active(x: Any) -> Any:
        return layers.BatchNormalization()(layers.Activation("gelu")(x))

    inputs = keras.Input((12, 12, 3), name="image")
    x = active(layers.Conv2D(12, 2, strides=2)(layers.Rescaling(1 / 255)(inputs)))
    for _ in range(2):
        x = layers.Add()([active(layers.DepthwiseConv2D(3, padding="same")(x)), x])
        x = active(layers.Conv2D(12, 1)(x))
    return keras.Model(inputs, layers.Dense(4)(layers.GlobalAveragePooling2D()(x)), name="conv_mixer")


def deeplab() -> keras.Model:
    """The head of DeepLabV3+: dilated convolutions beside a pooled image, upsampled to skipped features."""

    def block(x: Any, filters: int = 8, size: int = 3, dilation: int = 1) -> Any:
        x = layers.Conv2D(filters, size, dilation_rate=dilation, padding="same", use_bias=False)(x)
        return ops.nn.relu(layers.BatchNormalization()(x))

    inputs = keras.Input((24, 24, 3), name="image")
    low = layers.MaxPooling2D(2)(block(inputs))
    x = layers.MaxPooling2D(2)(block(low))
    pooled = layers.UpSampling2D(6, interpolation="bilinear")(block(layers.AveragePooling2D(6)(x), size=1))
    x = layers.Concatenate()([pooled, block(x, size=1), block(x, dilation=2), block(x, dilation=3)])
    x = layers.UpSampling2D(2, interpolation="bilinear")(block(x, size=1))
    x = block(layers.Concatenate()([x, block(low, 4, 1)]))
    x = layers.UpSampling2D(2, interpolation="bilinear")(x)
    return keras.Model(inputs, layers.Conv2D(5, 1, padding="same")(x), name="deeplab")


def next_frame() -> keras.Model:
    """Prediction of the next frames of a video, by convolutional LSTMs."""
    inputs = keras.Input((4, 10, 10, 1), name="frames")
    x = layers.ConvLSTM2D(6, 3, padding="same", return_sequences=True, activation="relu")(inputs)
    x = layers.ConvLSTM2D(6, 1, padding="same", return_sequences=True)(layers.BatchNormalization()(x))
    outputs = layers.Conv3D(1, 3, activation="sigmoid", padding="same")(x)
    return keras.Model(inputs, outputs, name="next_frame")


Shapes = tuple[tuple[int, ...], ...]

ARCHITECTURES: Mapping[str, tuple[Callable[[], keras.Model], Shapes]] = {
    "U-Net": (unet, ((16, 16, 3),)),
    "autoencoder": (autoencoder, ((12, 12, 1),)),
    "DCGAN's generator": (generator, ((16,),)),
    "DCGAN's discriminator": (discriminator, ((16, 16, 3),)),
    "super-resolution, sub-pixel": (sub_pixel, ((9, 11, 1),)),
    "super-resolution, EDSR": (edsr, ((12, 12, 3),)),
    "siamese": (siamese, ((14, 14, 3),) * 3),
    "MobileViT": (mobile_vit, ((16, 16, 3),)),
    "compact transformer": (compact_transformer, ((16, 16, 3),)),
    "OCR": (captcha, ((32, 12, 1),)),
    "3-D classification": (volumes, ((14, 14, 10, 1),)),
    "point cloud": (point_cloud, ((24, 3),)),
    "ConvMixer": (conv_mixer, ((12, 12, 3),)),
    "DeepLabV3+": (deeplab, ((24, 24, 3),)),
    "next frame": (next_frame, ((4, 10, 10, 1),)),
}
"""The builder of each architecture, and the shapes of its inputs without the batch."""


def build(name: str, images: int = 8) -> tuple[keras.Model, list[np.ndarray]]:
    """A network with statistics, scales and biases as after training, and numbers for its inputs."""
    function, shapes = ARCHITECTURES[name]
    keras.utils.set_random_seed(7)
    model, rng = function(), np.random.default_rng(7)
    for weight in model.weights:
        kind, shape = weight.path.rsplit("/", 1)[-1], weight.shape
        if kind == "moving_variance":
            weight.assign(rng.uniform(0.3, 2, shape))
        elif kind == "gamma":
            weight.assign(rng.normal(1, 0.3, shape))
        elif kind in {"beta", "moving_mean"} or (kind == "bias" and not np.any(np.asarray(weight))):
            weight.assign(rng.normal(0, 0.1, shape))
    return model, [rng.normal(size=(images, *shape)).astype("float32") for shape in shapes]
