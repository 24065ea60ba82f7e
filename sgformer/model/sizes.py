"""The sizes of SG-Former, each registered with timm under its name."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

from sgformer.catalog import STRIDE
from sgformer.model.official import convert_state_dict, is_released
from sgformer.model.positions import fitted_table
from sgformer.model.sg_former import SGFormer
from sgformer.model.weight_files import read_weights
from sgformer.model.weight_sources import released_file


class Size(NamedTuple):
    """Channels, number of blocks and number of attention heads of each of the four stages."""

    embed_dims: tuple[int, int, int, int]
    depths: tuple[int, int, int, int]
    num_heads: tuple[int, int, int, int]


# The paper's S, M and B are b2 (also s), b3 (also m) and b; pico, nano and micro are for small
# images.
SIZES: Final[dict[str, Size]] = {
    "sg_former_pico": Size((12, 24, 32, 48), (1, 2, 2, 1), (2, 2, 2, 4)),
    "sg_former_nano": Size((16, 32, 64, 128), (2, 2, 2, 1), (2, 2, 4, 8)),
    "sg_former_micro": Size((24, 48, 96, 192), (2, 2, 4, 1), (2, 4, 4, 8)),
    "sg_former_b0": Size((32, 64, 160, 256), (2, 2, 8, 2), (2, 2, 4, 8)),
    "sg_former_b1": Size((48, 96, 192, 384), (2, 4, 16, 1), (2, 4, 6, 12)),
    "sg_former_b2": Size((64, 128, 256, 512), (2, 4, 16, 1), (2, 4, 8, 16)),
    "sg_former_b3": Size((64, 128, 256, 512), (2, 6, 28, 2), (2, 4, 8, 16)),
    "sg_former_b4": Size((80, 160, 320, 640), (2, 6, 28, 2), (2, 4, 10, 20)),
    "sg_former_b5": Size((96, 192, 384, 768), (4, 6, 30, 1), (4, 6, 12, 24)),
    "sg_former_s": Size((64, 128, 256, 512), (2, 4, 16, 1), (2, 4, 8, 16)),
    "sg_former_m": Size((64, 128, 256, 512), (2, 6, 28, 2), (2, 4, 8, 16)),
    "sg_former_b": Size((96, 192, 384, 768), (4, 6, 24, 2), (4, 6, 12, 24)),
}


def checkpoint_filter_fn(state_dict: dict[str, Any], model: nn.Module) -> dict[str, Tensor]:
    """The weights under our names, for timm's loaders; converts a released checkpoint.

    The position table is resampled to the model's image size.
    """
    tensors = convert_state_dict(state_dict) if is_released(state_dict) else dict(state_dict)
    if isinstance(model, SGFormer) and "pos_embed" in tensors:
        table = fitted_table(tensors["pos_embed"], model.pos_embed.shape, model.grid)
        tensors["pos_embed"] = table
    return tensors


def _create(name: str, *, pretrained: bool, **kwargs: Any) -> SGFormer:
    config, overlay = kwargs.get("pretrained_cfg"), kwargs.get("pretrained_cfg_overlay") or {}
    is_elsewhere = any(
        overlay.get(s) or getattr(config, s, None) for s in ("url", "hf_hub_id", "state_dict")
    )
    if pretrained and not is_elsewhere:
        # Timm gets the tensors, not the file, which some of its versions would unpickle.
        path = overlay.get("file") or getattr(config, "file", None) or released_file(name)
        tensors = read_weights(Path(path)).tensors
        kwargs["pretrained_cfg_overlay"] = {**overlay, "state_dict": tensors}
    model: SGFormer = build_model_with_cfg(
        SGFormer,
        name,
        pretrained=pretrained,
        pretrained_filter_fn=checkpoint_filter_fn,
        feature_cfg={"out_indices": (0, 1, 2, 3), "feature_cls": "getter"},
        **(SIZES[name]._asdict() | kwargs),
    )
    source: dict[str, Any] = vars(model)["pretrained_cfg"]
    source.pop("state_dict", None)  # it would stay in memory beside the model
    return model


# timm looks up `default_cfgs` in the module of a registered function.
default_cfgs = generate_default_cfgs(
    {
        name: {
            "url": "",
            "num_classes": 1000,
            "input_size": (3, 224, 224),
            "min_input_size": (3, STRIDE, STRIDE),
            "pool_size": (7, 7),
            "crop_pct": 0.875,
            "interpolation": "bicubic",
            "mean": IMAGENET_DEFAULT_MEAN,
            "std": IMAGENET_DEFAULT_STD,
            "first_conv": "stem.0",
            "classifier": "head",
        }
        for name in SIZES
    }
)


def _entry_point(name: str) -> Callable[..., SGFormer]:
    """The function that `timm.create_model(name)` calls; timm reads its __name__ and module."""

    def create(pretrained: bool = False, **kwargs: Any) -> SGFormer:
        return _create(name, pretrained=pretrained, **kwargs)

    create.__name__ = create.__qualname__ = name
    create.__doc__ = f"{name}, with timm's arguments."
    return create


for _name in SIZES:
    setattr(sys.modules[__name__], _name, register_model(_entry_point(_name)))
