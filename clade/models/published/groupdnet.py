"""Published GroupDNet generators: DeepFashion, Cityscapes and ADE20K, told apart by their shapes."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from clade.errors import CladeError
from clade.models.published.naming import Family, Pairs, State, to_published
from clade.models.published.spade_shaped import BLOCKS, CLADE, CONVS, ENDS, MODULATION, build, infer_table


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
    channels = state["conv_img.weight"].shape[1]
    known = {**infer_table(state, options, "head_0.norm_0."), "code_channels": state["fc.weight"].shape[1]}
    arrangements = [options["arrangement"]] if options.get("arrangement") else ["ade20k", "cityscapes", "deepfashion"]
    tried = []
    for arrangement in arrangements:
        tried.append({**known, "arrangement": arrangement, "width": channels // (1 + (arrangement == "ade20k"))})
        if _fits(name, state, {**tried[-1], **options}):
            return tried[-1]
    # None fits: more is to be said about that than that the last one cannot be built.
    return {**tried[0], "arrangement": options.get("arrangement")}


def _fits(name: str, state: State, options: dict[str, Any]) -> bool:
    """Whether the network has the state's keys and shapes, whatever the upsampling."""
    try:
        with torch.device("meta"):
            module = build(name, options)
    except CladeError:
        return False
    published = to_published(module, FAMILIES[name])
    own = {key: value.shape for key, value in published.items() if not key.startswith("encoder.")}
    return own == {key: value.shape for key, value in state.items()}


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
