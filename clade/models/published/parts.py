"""Published encoders and discriminators."""

from __future__ import annotations

import inspect
import re
from typing import Any

from torch import nn

from clade.errors import CheckpointError
from clade.models import DISCRIMINATORS, ConvEncoder, FpseDiscriminator, GroupEncoder, MultiscaleDiscriminator
from clade.models.published.naming import Family, Pairs, State
from clade.registry import near_match


def name_of(module: nn.Module) -> str | None:
    """The family of a module that is no generator."""
    if isinstance(module, (MultiscaleDiscriminator, FpseDiscriminator)):
        return "discriminator"
    return "encoder" if isinstance(module, (ConvEncoder, GroupEncoder)) else None


def known(name: str, options: dict[str, Any], names: set[str]) -> dict[str, Any]:
    """The options; raises CheckpointError for one that is not among ``names``."""
    for option in options:
        if option not in names:
            hint = near_match(option, names)
            raise CheckpointError(f"'{name}' has no option '{option}'.{hint} Known: {', '.join(sorted(names))}.")
    return dict(options)


def _infer_encoder(name: str, state: State, options: dict[str, Any]) -> dict[str, Any]:
    width, mu = state["layer1.0.weight_orig"].shape[0], state["fc_mu.weight"]
    if mu.ndim == 2:
        return {"width": width, "z_dim": mu.shape[0]}
    rows = width // state["layer2.0.weight_orig"].shape[1]  # GroupDNet's: convolutions with a group per class
    layers = sum(f"layer{k + 1}.0.weight_orig" in state for k in range(6))
    return {"width": width, "num_rows": rows, "code_channels": mu.shape[0] // rows, "layers": layers}


def _build_encoder(name: str, options: dict[str, Any]) -> nn.Module:
    grouped = {"width", "num_rows", "code_channels", "layers"}
    if "num_rows" in options:
        return GroupEncoder(**known(name, options, grouped))
    return ConvEncoder(**known(name, options, {"width", "z_dim"}))


def _encoder_pairs(module: nn.Module) -> Pairs:
    layers = [(f"^layer{k + 1}.0.", f"^convs.{k}.") for k in range(6)]
    return [*layers, ("^fc_mu.", "^to_mu."), ("^fc_var.", "^to_logvar.")]


_MULTISCALE = "discriminator_0.model0.0.weight"
_FPSE = "enc1.0.0.weight_orig"


def _infer_discriminator(name: str, state: State, options: dict[str, Any]) -> dict[str, Any]:
    if _FPSE in state:
        classes = state["embedding.weight"].shape[1]
        return {"kind": "fpse", "channels_in": classes + 3, "width": state[_FPSE].shape[0]}
    first = state[_MULTISCALE]
    layers = max(
        int(m[1]) for key in state if (m := re.match(r"discriminator_0\.model(\d+)\.", key))
    )  # the last scores
    scales = 1 + max(int(m[1]) for key in state if (m := re.match(r"discriminator_(\d+)\.", key)))
    # SEAN's has three layers, and their strides, which no shape tells, are 2 throughout; all others have four.
    last_stride = 2 if layers == 3 else 1
    return {
        "kind": "multiscale",
        "channels_in": first.shape[1],
        "width": first.shape[0],
        "scales": scales,
        "layers": layers,
        "last_stride": last_stride,
    }


def _build_discriminator(name: str, options: dict[str, Any]) -> nn.Module:
    classes = {"num_classes", "unknown_class", "instance_edges"}
    build = DISCRIMINATORS[options["kind"]]
    own = set(inspect.signature(build).parameters)
    options = known(name, options, {"kind"} | own | classes)
    if "num_classes" in options:
        rows = options["num_classes"] + bool(options.get("unknown_class"))
        options["channels_in"] = rows + bool(options.get("instance_edges")) + 3
    return build(**{key: value for key, value in options.items() if key in own})


_FPSE_PAIRS: Pairs = [
    *((f"^enc{k + 1}.0.0.", f"^encoders.{k}.conv.") for k in range(5)),
    *((f"^lat{k + 2}.0.0.", f"^laterals.{k}.conv.") for k in range(4)),
    *((f"^final{k + 2}.0.0.", f"^finals.{k}.conv.") for k in range(3)),
    ("^tf.", "^realism."),
    ("^seg.", "^matching."),
]


def _discriminator_pairs(module: nn.Module) -> Pairs:
    if isinstance(module, FpseDiscriminator):
        return _FPSE_PAIRS
    assert isinstance(module, MultiscaleDiscriminator)
    pairs = []
    for k, scale in enumerate(module.scales):
        layers = len(scale.convs)  # pyright: ignore[reportArgumentType]  # a PatchDiscriminator
        pairs.append((f"^discriminator_{k}.model{layers}.0.", f"^scales.{k}.score."))
        pairs.append((f"^discriminator_{k}.model0.0.", f"^scales.{k}.convs.0."))
        pairs += [(f"^discriminator_{k}.model{n}.0.0.", f"^scales.{k}.convs.{n}.") for n in range(1, layers)]
    return pairs


FAMILIES = {
    "encoder": Family(
        recognise=lambda state: "layer1.0.weight_orig" in state,
        infer=_infer_encoder,
        build=_build_encoder,
        pairs=_encoder_pairs,
    ),
    "discriminator": Family(
        recognise=lambda state: _MULTISCALE in state or _FPSE in state,
        infer=_infer_discriminator,
        build=_build_discriminator,
        pairs=_discriminator_pairs,
    ),
}
