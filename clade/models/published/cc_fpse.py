"""Published CC-FPSE generators."""

from __future__ import annotations

from typing import Any

from torch import nn

from clade.models.published.naming import Family, Pairs, State
from clade.models.published.spade_shaped import BLOCKS, ENDS, MODULATION, build, infer_classes, infer_ends

_FIRST = "labelenc1.0.0.weight_orig"
LABEL_FEATURES: Pairs = [
    pair
    for k in range(7)
    for pair in (
        (f"^labelenc{k + 1}.0.", f"^label_features.encoders.{k}."),
        (f"^labellat{k + 1}.0.", f"^label_features.laterals.{k}."),
        (f"^labeldec{k + 1}.0.", f"^label_features.decoders.{k}."),
    )
]
BLOCK: Pairs = [
    (".gen_weights1.", ".weights1."),
    (".gen_weights2.", ".weights2."),
    (".gen_se_weights1.", ".attention1."),
    (".gen_se_weights2.", ".attention2."),
    # The published numbers count all layers of a block, ours those of a kind.
    (".norm_0.", ".unused.norm."),
    (".conv_0.norm_layer.", ".unused.conditional1."),
    (".conv_2.norm_layer.", ".unused.conditional2."),
    (".norm_1.", ".norm1."),
    (".norm_2.", ".norm2."),
    (".norm_s.", ".norm_shortcut."),
    (".conv_1.", ".conv1."),
    (".conv_3.", ".conv2."),
    (".conv_s.", ".conv_shortcut."),
]


def _infer(name: str, state: State, options: dict[str, Any]) -> dict[str, Any]:
    upsampling = "more" if "labelenc7.0.0.weight_orig" in state else "normal"
    return {
        "z_dim": None,
        **infer_ends(name, state, {"upsampling": upsampling, **options}),
        "upsampling": upsampling,
        "hidden": state["head_0.gen_weights1.0.weight"].shape[0],
        **infer_classes(name, state[_FIRST].shape[1], options),
    }


def _pairs(module: nn.Module) -> Pairs:
    return [*ENDS, *BLOCKS, *LABEL_FEATURES, *BLOCK, *MODULATION]


FAMILIES = {"cc-fpse": Family(lambda state: _FIRST in state, _infer, build, _pairs)}
