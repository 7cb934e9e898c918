"""Published GroupDNet generators: DeepFashion, Cityscapes and ADE20K, told apart by their shapes."""

from __future__ import annotations

from typing import Any

from torch import nn

from clade.published.naming import Family, Pairs, State
from clade.published.spade_shaped import BLOCKS, CLADE, CONVS, ENDS, MODULATION, build, infer_table


def is_groupdnet(state: State) -> bool:
    """SPADE's names, grouped convolutions, and a convolution of the latent grid at the start."""
    keys = ("fc.weight", "head_0.conv_0.weight_orig", "head_0.norm_0.mlp_shared.0.weight")
    if any(key not in state for key in keys) or state[keys[0]].ndim != 4:
        return False
    convolution = state[keys[1]]
    return convolution.shape[0] != convolution.shape[1]


def _infer(name: str, state: State, options: dict[str, Any]) -> dict[str, Any]:
    stem, head = state["fc.weight"], state["head_0.conv_0.weight_orig"]
    rows = head.shape[0] // head.shape[1]  # a group per class at the start of every arrangement
    unknown = bool(options.get("unknown_class", rows > options.get("num_classes", rows)))
    if "up_4.conv_0.bias" in state:
        arrangement, width = "ade20k", state["conv_img.weight"].shape[1] // 2
    elif state["up_3.norm_1.mlp_gamma.weight"].shape[1] == 1:  # a group per class to the very end
        arrangement, width = "cityscapes", stem.shape[0] // 16
    else:
        arrangement, width = "deepfashion", stem.shape[0] // 16
    if arrangement == "deepfashion" and rows % 8:
        arrangement = None  # another network's weights, of which more is to be said than that this cannot be built
    return {
        "num_classes": rows - unknown,
        "unknown_class": unknown,
        "instance_edges": state["head_0.norm_0.mlp_shared.0.weight"].shape[1] == 2,
        "width": width,
        "arrangement": arrangement,
        "code_channels": stem.shape[1],
    }


def _is_clade(state: State) -> bool:
    """CLADE's tables, and fewer channels into the first convolution than out of it."""
    keys = ("head_0.conv_0.weight_orig", _TABLE)
    return all(key in state for key in keys) and state[keys[0]].shape[1] < state[keys[0]].shape[0]


def _infer_clade(name: str, state: State, options: dict[str, Any]) -> dict[str, Any]:
    classes = infer_table(state, options, "head_0.norm_0.")
    edges = classes["instance_edges"]
    channels, codes = state["conv_img.weight"].shape[1], state["fc.weight"].shape[1]
    # Groups of the last block but two tell the arrangements apart: 4 in cityscapes, 2 in ade20k, a quarter elsewhere.
    tables, block = state["up_2.norm_0.class_specified_affine.weight"], state["up_2.conv_0.weight_orig"]
    groups = tables.shape[1] // (block.shape[1] - edges)
    rows = tables.shape[0]
    ends = {"ade20k": (2, channels // 2), "cityscapes": (4, channels), "deepfashion": (rows // 4, channels)}
    fitting = [key for key, (count, _) in ends.items() if count == groups and (key != "deepfashion" or rows % 8 == 0)]
    # Where two fit, the stem's width decides: 16 per class in ade20k, 16 times the width in the others.
    stem = state["fc.bias"].shape[0]
    fitting = [key for key in fitting if (stem == 16 * rows) == (key == "ade20k")] or fitting
    arrangement = fitting[0] if fitting else None
    return {**classes, "width": ends[arrangement or "ade20k"][1], "arrangement": arrangement, "code_channels": codes}


def _pairs(module: nn.Module) -> Pairs:
    return [*ENDS, ("^up_4.", "^unused."), *BLOCKS, *CONVS, *MODULATION]


def _clade_pairs(module: nn.Module) -> Pairs:
    tables = [(published, ours) for published, ours in CLADE if ours != ".edge."]
    return [*_pairs(module), *tables, (".inst_conv.", ".group_edge.")]


_TABLE = "head_0.norm_0.class_specified_affine.weight"
FAMILIES = {
    "groupdnet": Family(is_groupdnet, _infer, build, _pairs),
    # Nobody has published it; its keys are those that GroupDNet's and CLADE's code would give it.
    "groupdnet-clade": Family(_is_clade, _infer_clade, build, _clade_pairs),
}
