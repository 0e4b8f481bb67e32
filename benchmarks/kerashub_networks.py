"""Small networks of KerasHub with random weights, by name: backbones, classifiers, segmenters and detectors."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

from keras_hub import models

_SIDE = 64
_IMAGE = (_SIDE, _SIDE, 3)


def _resnet(block: str = "basic_block", **settings: Any) -> Any:
    defaults = {
        "input_conv_filters": [64],
        "input_conv_kernel_sizes": [7],
        "stackwise_num_filters": [64, 64, 64],
        "stackwise_num_blocks": [1, 2, 2],
        "stackwise_num_strides": [1, 2, 2],
        "image_shape": _IMAGE,
        "use_pre_activation": False,
    }
    return models.ResNetBackbone(block_type=block, **{**defaults, **settings})


def _resnet_vd() -> Any:
    stem = {"input_conv_filters": [32, 32, 64], "input_conv_kernel_sizes": [3, 3, 3]}
    return _resnet("bottleneck_block_vd", **stem)


def _cspnet(stage: str, block: str, block_ratio: Any = (1.0, 0.5)) -> Any:
    return models.CSPNetBackbone(
        stem_filters=16,
        stem_kernel_size=3,
        stem_strides=1,
        stackwise_strides=2,
        stackwise_depth=[1, 2, 2],
        stackwise_num_filters=[16, 24, 48],
        image_shape=_IMAGE,
        down_growth=True,
        bottle_ratio=(0.5, 1.0),
        block_ratio=block_ratio,
        expand_ratio=(2.0, 1.0),
        block_type=block,
        stage_type=stage,
        stem_padding="same",
    )


def _densenet() -> Any:
    return models.DenseNetBackbone(
        stackwise_num_repeats=[2, 3, 4], compression_ratio=0.5, growth_rate=8, image_shape=_IMAGE
    )


_V1 = {
    "stackwise_kernel_sizes": [3, 3, 5, 3, 5],
    "stackwise_num_repeats": [1, 2, 2, 2, 1],
    "stackwise_input_filters": [32, 16, 24, 40, 80],
    "stackwise_output_filters": [16, 24, 40, 80, 112],
    "stackwise_expansion_ratios": [1, 6, 6, 6, 6],
    "stackwise_strides": [1, 2, 2, 2, 1],
    "stackwise_force_input_filters": [0] * 5,
    "stackwise_nores_option": [False] * 5,
    "use_depth_divisor_as_min_depth": True,
    "cap_round_filter_decrease": True,
    "min_depth": None,
}
"""The first five stages of EfficientNetB0."""

_EFFICIENTNETS: Mapping[str, dict[str, Any]] = {
    "v1": {"stackwise_block_types": ["v1"] * 5, "stackwise_squeeze_and_excite_ratios": [0.25] * 5},
    "v2": {
        "stackwise_block_types": ["fused"] * 3 + ["unfused"] * 2,
        "stackwise_squeeze_and_excite_ratios": [0, 0, 0, 0.25, 0.25],
    },
    "lite": {
        "stackwise_block_types": ["v1"] * 5,
        "stackwise_squeeze_and_excite_ratios": [0] * 5,
        "activation": "relu6",
    },
}


def _efficientnet(version: str) -> Any:
    return models.EfficientNetBackbone(
        **{**_V1, **_EFFICIENTNETS[version]},
        stackwise_width_coefficients=[1.0] * 5,
        stackwise_depth_coefficients=[1.0] * 5,
        input_shape=_IMAGE,
        num_features=128,
    )


def _mobilenet() -> Any:
    return models.MobileNetBackbone(
        stackwise_expansion=[[40, 56], [64, 144, 144], [72, 72], [144, 288, 288]],
        stackwise_num_blocks=[2, 3, 2, 3],
        stackwise_num_filters=[[16, 16], [24, 24, 24], [24, 24], [48, 48, 48]],
        stackwise_kernel_size=[[3, 3], [5, 5, 5], [5, 5], [5, 5, 5]],
        stackwise_num_strides=[[2, 1], [2, 1, 1], [1, 1], [2, 1, 1]],
        stackwise_se_ratio=[[None, None], [0.25] * 3, [0.25] * 2, [0.25] * 3],
        stackwise_activation=[["relu"] * 2, ["hard_swish"] * 3, ["hard_swish"] * 2, ["hard_swish"] * 3],
        stackwise_padding=[[1, 1], [2, 2, 2], [2, 2], [2, 2, 2]],
        output_num_filters=256,
        input_activation="hard_swish",
        output_activation="hard_swish",
        input_num_filters=16,
        image_shape=_IMAGE,
        depthwise_filters=8,
        depthwise_stride=2,
        depthwise_residual=False,
        squeeze_and_excite=0.5,
        last_layer_filter=288,
    )


def _mobilenet_blocks(*, attention: bool, **settings: Any) -> Any:
    """Edge residual and universal inverted bottlenecks, as in MobileNetV4; with attention and fusion as in V5."""
    kinds = [["er"], ["uir", "uir"], ["uir", "mqa" if attention else "uir"]]

    def each(*values: Any) -> list[list[Any]]:
        return [[value] * len(stage) for value, stage in zip(values, kinds, strict=True)]

    heads = [[0], [0, 0], [0, 2 if attention else 0]]
    return models.MobileNetV5Backbone(
        stackwise_block_types=kinds,
        stackwise_num_blocks=[1, 2, 2],
        stackwise_num_filters=each(24, 48, 64),
        stackwise_strides=[[2], [2, 1], [2, 1]],
        stackwise_act_layers=each("relu", "relu", "relu"),
        stackwise_exp_ratios=each(4.0, 4.0, 4.0),
        stackwise_se_ratios=each(0.0, 0.0, 0.0),
        stackwise_dw_kernel_sizes=each(0, 5, 3),
        stackwise_dw_start_kernel_sizes=each(0, 3, 3),
        stackwise_dw_end_kernel_sizes=each(0, 0, 0),
        stackwise_exp_kernel_sizes=each(3, 0, 0),
        stackwise_pw_kernel_sizes=each(1, 0, 0),
        stackwise_num_heads=heads,
        stackwise_key_dims=[[16 * n for n in stage] for stage in heads],
        stackwise_value_dims=[[16 * n for n in stage] for stage in heads],
        stackwise_kv_strides=[[min(n, 1) for n in stage] for stage in heads],
        stackwise_use_cpe=each(False, False, False),
        image_shape=_IMAGE,
        stem_size=16,
        **settings,
    )


def _mobilenet_v4() -> Any:
    return _mobilenet_blocks(attention=False, use_msfa=False, act_layer="relu", norm_layer="batch_norm")


def _mobilenet_v5() -> Any:
    return _mobilenet_blocks(
        attention=True, use_msfa=True, msfa_output_resolution=4, num_features=64, layer_scale_init_value=0.1
    )


def _vgg() -> Any:
    return models.VGGBackbone(stackwise_num_repeats=[2, 2, 3], stackwise_num_filters=[8, 16, 32], image_shape=_IMAGE)


def _xception() -> Any:
    return models.XceptionBackbone(
        stackwise_conv_filters=[[16, 24], [32, 32], [48, 48]],
        stackwise_pooling=[False, True, False],
        image_shape=_IMAGE,
    )


def _hgnet_v2(**settings: Any) -> Any:
    defaults = {
        "depths": [1, 1],
        "embedding_size": 16,
        "hidden_sizes": [32, 64],
        "stem_channels": [3, 8, 16],
        "hidden_act": "relu",
        "use_learnable_affine_block": True,
        "stackwise_stage_filters": [[16, 16, 32, 1, 2, 3], [32, 16, 64, 1, 2, 3]],
        "apply_downsample": [False, True],
        "use_lightweight_conv_block": [False, True],
        "image_shape": _IMAGE,
    }
    return models.HGNetV2Backbone(**{**defaults, **settings})


def _mit() -> Any:
    return models.MiTBackbone(
        layerwise_depths=[2, 2],
        image_shape=_IMAGE,
        hidden_dims=[16, 32],
        num_layers=2,
        layerwise_num_heads=[1, 2],
        layerwise_sr_ratios=[4, 2],
        max_drop_path_rate=0.1,
        layerwise_patch_sizes=[7, 3],
        layerwise_strides=[4, 2],
    )


def _segformer() -> Any:
    return models.SegFormerBackbone(image_encoder=_mit(), projection_filters=32)


def _deeplab(**settings: Any) -> Any:
    return models.DeepLabV3Backbone(
        image_encoder=_resnet(stackwise_num_blocks=[1, 1, 1]),
        spatial_pyramid_pooling_key="P4",
        dilation_rates=[2, 3, 4],
        upsampling_size=4,
        image_shape=_IMAGE,
        **settings,
    )


def _deeplab_plus() -> Any:
    return _deeplab(low_level_feature_key="P2", projection_filters=16)


def _retinanet() -> Any:
    encoder = _resnet("bottleneck_block", stackwise_num_blocks=[1, 1, 1])
    return models.RetinaNetBackbone(image_encoder=encoder, min_level=3, max_level=4, use_p5=False)


def _d_fine() -> Any:
    return models.DFineBackbone(
        backbone=_hgnet_v2(out_features=["stage1", "stage2"]),
        decoder_in_channels=[16, 16],
        encoder_hidden_dim=16,
        num_denoising=0,
        num_labels=4,
        hidden_dim=16,
        learn_initial_query=False,
        num_queries=10,
        anchor_image_size=(_SIDE, _SIDE),
        feat_strides=[4, 8],
        num_feature_levels=2,
        encoder_in_channels=[32, 64],
        encode_proj_layers=[1],
        num_attention_heads=2,
        encoder_ffn_dim=32,
        num_encoder_layers=1,
        hidden_expansion=0.5,
        depth_multiplier=0.5,
        eval_idx=-1,
        num_decoder_layers=2,
        decoder_attention_heads=2,
        decoder_ffn_dim=32,
        decoder_n_points=[2, 2],
        lqe_hidden_dim=16,
        num_lqe_layers=2,
        out_features=["stage1", "stage2"],
        image_shape=_IMAGE,
        seed=0,
    )


def _vit() -> Any:
    return models.ViTBackbone(
        image_shape=(32, 32, 3), patch_size=(8, 8), num_layers=3, num_heads=4, hidden_dim=32, mlp_dim=64
    )


def _deit() -> Any:
    return models.DeiTBackbone(
        image_shape=(32, 32, 3), patch_size=8, num_layers=3, num_heads=4, hidden_dim=32, intermediate_dim=64
    )


def _swin() -> Any:
    return models.SwinTransformerBackbone(
        image_shape=(32, 32, 3), embed_dim=16, depths=(2, 2), num_heads=(2, 4), window_size=4
    )


def _basnet() -> Any:
    encoder = _resnet(
        stackwise_num_filters=[64, 128, 256, 512],
        stackwise_num_blocks=[1] * 4,
        stackwise_num_strides=[1, 2, 2, 2],
        image_shape=(None, None, 3),
    )
    return models.BASNetBackbone(image_encoder=encoder, num_classes=1, image_shape=_IMAGE)


_BACKBONES: Mapping[str, Callable[[], Any]] = {
    "ResNet": _resnet,
    "ResNetV2": lambda: _resnet("bottleneck_block", use_pre_activation=True),
    "ResNet-vd": _resnet_vd,
    "CSPNet": lambda: _cspnet("csp", "dark_block"),
    "CSPNet edge": lambda: _cspnet("csp", "edge_block"),
    "CSPNet cross stage 3": lambda: _cspnet("cs3", "bottleneck_block"),
    "DarkNet": lambda: _cspnet("dark", "dark_block", block_ratio=1.0),
    "DenseNet": _densenet,
    "EfficientNet": lambda: _efficientnet("v1"),
    "EfficientNetV2": lambda: _efficientnet("v2"),
    "EfficientNet-Lite": lambda: _efficientnet("lite"),
    "MobileNetV3": _mobilenet,
    "MobileNetV4's blocks": _mobilenet_v4,
    "MobileNetV5": _mobilenet_v5,
    "VGG": _vgg,
    "Xception": _xception,
    "HGNetV2": _hgnet_v2,
    "MiT": _mit,
    "SegFormer": _segformer,
    "DeepLabV3": _deeplab,
    "DeepLabV3+": _deeplab_plus,
    "RetinaNet": _retinanet,
    "D-FINE": _d_fine,
    "ViT": _vit,
    "DeiT": _deit,
    "Swin": _swin,
    "BASNet": _basnet,
}

_CLASSIFIERS: Mapping[str, Any] = {
    "ResNet": models.ResNetImageClassifier,
    "CSPNet": models.CSPNetImageClassifier,
    "DenseNet": models.DenseNetImageClassifier,
    "EfficientNet": models.EfficientNetImageClassifier,
    "MobileNetV3": models.MobileNetImageClassifier,
    "MobileNetV5": models.MobileNetV5ImageClassifier,
    "VGG": models.VGGImageClassifier,
    "Xception": models.XceptionImageClassifier,
    "HGNetV2": functools.partial(models.HGNetV2ImageClassifier, preprocessor=None),
    "MiT": models.MiTImageClassifier,
    "ViT": models.ViTImageClassifier,
    "DeiT": models.DeiTImageClassifier,
    "Swin": models.SwinTransformerImageClassifier,
}

_OTHER_TASKS: Mapping[str, Callable[[], Any]] = {
    "SegFormer segmenter": lambda: models.SegFormerImageSegmenter(backbone=_segformer(), num_classes=4),
    "DeepLabV3 segmenter": lambda: models.DeepLabV3ImageSegmenter(backbone=_deeplab(), num_classes=4),
    "DeepLabV3+ segmenter": lambda: models.DeepLabV3ImageSegmenter(backbone=_deeplab_plus(), num_classes=4),
    "BASNet segmenter": lambda: models.BASNetImageSegmenter(backbone=_basnet()),
    "RetinaNet detector": lambda: models.RetinaNetObjectDetector(backbone=_retinanet(), num_classes=5),
    "D-FINE detector": lambda: models.DFineObjectDetector(backbone=_d_fine(), num_classes=4),
}

NETWORKS: Mapping[str, Callable[[], Any]] = {
    **_BACKBONES,
    **{
        f"{name} classifier": lambda task=task, build=_BACKBONES[name]: task(backbone=build(), num_classes=10)
        for name, task in _CLASSIFIERS.items()
    },
    **_OTHER_TASKS,
}
"""A builder of each network."""
