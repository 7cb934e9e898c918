"""Published generators of SPADE's shape: CLADE, CLADE-ICPE, SPADE and SPADE-light."""

from __future__ import annotations

import math
from typing import Any

from torch import nn

from clade.errors import CheckpointError
from clade.models import create_generator
from clade.models.generators.spade_shaped import LAYOUTS
from clade.models.published.naming import Family, Pairs, State

BLOCKS: Pairs = [
    ("^head_0.", "^blocks.0."),
    ("^G_middle_0.", "^blocks.1."),
    ("^G_middle_1.", "^blocks.2."),
    *((f"^up_{k}.", f"^blocks.{k + 3}.") for k in range(5)),
]
"""Names of the residual blocks, which all published relatives of SPADE share."""
CONVS: Pairs = [
    (".conv_0.", ".conv1."),
    (".conv_1.", ".conv2."),
    (".conv_s.", ".conv_shortcut."),
    (".norm_0.", ".norm1."),
    (".norm_1.", ".norm2."),
    (".norm_s.", ".norm_shortcut."),
]
MODULATION: Pairs = [
    (".param_free_norm.", ".normalize."),
    (".mlp_shared.0.", ".shared."),
    (".mlp_gamma.", ".to_gamma."),
    (".mlp_beta.", ".to_beta."),
]
ENDS: Pairs = [("^fc.", "^stem."), ("^conv_img.", "^to_image.")]
CLADE: Pairs = [
    (".class_specified_affine.dist_conv_w.", ".position_gamma."),
    (".class_specified_affine.dist_conv_b.", ".position_beta."),
    (".class_specified_affine.weight$", ".gamma$"),
    (".class_specified_affine.bias$", ".beta$"),
    (".inst_conv.", ".edge."),
]


def pairs(module: nn.Module) -> Pairs:
    """Names of a generator of SPADE's shape."""
    return [*ENDS, *BLOCKS, *CONVS, *MODULATION, *CLADE]


def infer_ends(name: str, state: State, options: dict[str, Any]) -> dict[str, Any]:
    """Width, upsampling and latent input, from the first layer; for every relative of SPADE."""
    stem = state["fc.weight"]
    last = state["conv_img.weight"].shape[1]
    inferred: dict[str, Any] = {"width": last}
    if "up_4.conv_0.bias" in state:
        inferred = {"width": 2 * last, "upsampling": "most"}
    if stem.ndim == 2:
        channels = 16 * inferred["width"]
        inferred |= latent_size(name, stem, channels, options, inferred.get("upsampling", "normal"))
    return inferred


def latent_size(name: str, stem: Any, channels: int, options: dict[str, Any], upsampling: str) -> dict[str, Any]:
    """z_dim and image size of a network that starts from a latent vector."""
    upsampling = options.get("upsampling", upsampling)
    cells = stem.shape[0] // channels
    # Square, or twice as wide as high, which Cityscapes is.
    height, width = next(
        ((h, w) for r in (1, 2) for h in [math.isqrt(cells // r)] for w in [r * h] if h * w * channels == len(stem)),
        (0, 0),
    )
    if not height and "size" not in options:
        raise CheckpointError(
            f"The latent input of this '{name}' was made for images that are neither square nor twice as wide as high "
            f"(fc.weight is {tuple(stem.shape)}), so its shape does not tell their size. Give size=(height, width)."
        )
    cell = 2 ** LAYOUTS[upsampling][0] if upsampling in LAYOUTS else 1
    return {"z_dim": stem.shape[1], "size": (height * cell, width * cell)}


def infer_classes(name: str, channels: int, options: dict[str, Any]) -> dict[str, Any]:
    """Classes, unknown class and edges of a network whose semantic input has ``channels`` channels for all of them."""
    extra = channels - options.get("num_classes", channels)
    if extra == 1 and not {"unknown_class", "instance_edges"} & options.keys():
        raise CheckpointError(
            f"The weights of this '{name}' take {channels} channels, one more than num_classes. "
            "Say what it is: unknown_class=True or instance_edges=True."
        )
    unknown = bool(options.get("unknown_class", extra > bool(options.get("instance_edges", extra > 1))))
    edges = bool(options.get("instance_edges", "num_classes" in options and extra > unknown))
    return {"instance_edges": edges, "unknown_class": unknown, "num_classes": channels - edges - unknown}


def infer_spade(name: str, state: State, options: dict[str, Any]) -> dict[str, Any]:
    """What the shapes of SPADE's weights tell; of a hybrid's, too, whose blocks are some CLADE's and some SPADE's."""
    return _infer(name, state, options, "spade")


def _infer_clade(name: str, state: State, options: dict[str, Any]) -> dict[str, Any]:
    return _infer(name, state, options, "clade")


def _infer(name: str, state: State, options: dict[str, Any], needed: str) -> dict[str, Any]:
    inferred = infer_ends(name, state, options)
    layers = _layers(state)
    first = {layer: prefix for prefix, layer in reversed(layers.items())}
    if needed not in first:
        raise KeyError(_TABLE if needed == "clade" else f"head_0.norm_0.{_SHARED}")
    if "spade" in first:
        shared = state[first["spade"] + _SHARED]
        inferred["hidden"] = shared.shape[0]
        if "clade" not in first:
            return {**inferred, **infer_classes(name, shared.shape[1], options)}
        inferred["norm"] = list(layers.values())
    return {**inferred, **_infer_tables(state, options, first["clade"])}


def _layers(state: State) -> dict[str, str]:
    """First layer of each block -> what it is, from coarse to fine."""
    kinds = {_SHARED: "spade", "class_specified_affine.weight": "clade"}
    prefixes = [f"{published.strip('^')}norm_0." for published, _ in BLOCKS]
    return {prefix: kind for prefix in prefixes for ending, kind in kinds.items() if prefix + ending in state}


def _infer_tables(state: State, options: dict[str, Any], prefix: str) -> dict[str, Any]:
    """Classes, edges and the use of positions, from the first CLADE layer."""
    inferred = infer_table(state, options, prefix)
    rows = inferred["num_classes"] + inferred["unknown_class"] + inferred["instance_edges"]
    if f"{prefix}position.weight" in state:
        inferred["positions"] = "features"
    elif state["fc.weight"].ndim == 4 and state["fc.weight"].shape[1] == rows + 2:
        inferred["positions"] = "input"
    return inferred


def infer_table(state: State, options: dict[str, Any], layer: str) -> dict[str, Any]:
    """Classes, unknown class and edges, from the tables of a CLADE layer."""
    rows = state[f"{layer}class_specified_affine.weight"].shape[0]
    unknown = bool(options.get("unknown_class", rows > options.get("num_classes", rows)))
    edges = f"{layer}inst_conv.weight" in state
    return {"instance_edges": edges, "unknown_class": unknown, "num_classes": rows - unknown}


def build(name: str, options: dict[str, Any]) -> nn.Module:
    """A generator by name."""
    return create_generator(name, **options)


_SHARED = "mlp_shared.0.weight"
_DISTANCE = "head_0.norm_0.class_specified_affine.dist_conv_w.weight"
_TABLE = "head_0.norm_0.class_specified_affine.weight"


def is_spade(state: State) -> bool:
    """SPADE's own: modulation networks, and convolutions that are not grouped."""
    keys = ("head_0.norm_0.mlp_shared.0.weight", "head_0.conv_0.weight_orig")
    if any(key not in state for key in keys) or "cab.conv1.weight" in state:
        return False
    return state[keys[1]].shape[0] == state[keys[1]].shape[1]


def is_clade(state: State) -> bool:
    """CLADE's own: tables without positions, and convolutions that are not grouped."""
    if _TABLE not in state or _DISTANCE in state or "head_0.conv_0.weight_orig" not in state:
        return False
    weight = state["head_0.conv_0.weight_orig"]
    return weight.shape[1] >= weight.shape[0]


FAMILIES = {
    "clade": Family(is_clade, _infer_clade, build, pairs),
    "clade-icpe": Family(lambda state: _DISTANCE in state, _infer_clade, build, pairs),
    "spade": Family(is_spade, infer_spade, build, pairs),
    "spade-light": Family(is_spade, infer_spade, build, pairs),
}
