"""Published generators of SEAN, whose style encoder is a part of them."""

from __future__ import annotations

import re
from typing import Any

from torch import nn

from clade.models.published.naming import Family, Pairs, State
from clade.models.published.spade_shaped import (
    BLOCKS,
    CLADE,
    CONVS,
    ENDS,
    MODULATION,
    build,
    infer_classes,
    infer_ends,
    infer_table,
)

_FIRST = "head_0.ace_0."
_ACE: Pairs = [
    (".ace_0.", ".norm1."),
    (".ace_1.", ".norm2."),
    (".ace_s.", ".norm_shortcut."),
    (".Spade.", ".label."),
    (".conv_gamma.", ".style_gamma."),
    (".conv_beta.", ".style_beta."),
]
_ENCODER: Pairs = [
    *((f"^Zencoder.model.{3 * k + 1}.", f"^encoder.convs.{k}.") for k in range(4)),
    ("^Zencoder.model.14.", "^encoder.to_style."),
]


def _pairs(module: nn.Module) -> Pairs:
    return [*ENDS, *BLOCKS, *CONVS, *_ACE, *MODULATION, *CLADE, *_ENCODER]


def _infer(name: str, state: State, options: dict[str, Any]) -> dict[str, Any]:
    shared = state[f"{_FIRST}Spade.mlp_shared.0.weight"]
    styles = _infer_styles(name, state, options)
    if styles["style_layers"] < shared.shape[1]:  # so one of the channels is no class
        options = {"instance_edges": True, "num_classes": shared.shape[1] - 1, **options}
    return {**styles, "hidden": shared.shape[0], **infer_classes(name, shared.shape[1], options)}


def _infer_clade(name: str, state: State, options: dict[str, Any]) -> dict[str, Any]:
    return {**_infer_styles(name, state, options), **infer_table(state, options, f"{_FIRST}Spade.")}


def _infer_styles(name: str, state: State, options: dict[str, Any]) -> dict[str, Any]:
    return {
        **infer_ends(name, state, options),
        "style_dim": state[f"{_FIRST}fc_mu0.bias"].shape[0],
        "style_layers": sum(re.fullmatch(rf"{re.escape(_FIRST)}fc_mu\d+\.bias", key) is not None for key in state),
        "encoder_width": state["Zencoder.model.1.bias"].shape[0],
    }


_STACKS = ((".fc_mu{}.weight", ".style.weight"), (".fc_mu{}.bias", ".style.bias"))
_OWN = ("style_mean", "style_var", "style_count")
_STYLED = "Zencoder.model.1.weight"
_TABLE = f"{_FIRST}Spade.class_specified_affine.weight"


FAMILIES = {
    "sean": Family(lambda state: _STYLED in state and _TABLE not in state, _infer, build, _pairs, _STACKS, _OWN),
    # Nobody has published it; its keys are those that SEAN's and CLADE's code would give it.
    "sean-clade": Family(
        lambda state: _STYLED in state and _TABLE in state, _infer_clade, build, _pairs, _STACKS, _OWN
    ),
}
