"""Published weights: the published key names and shapes -> our modules.

The published code (CLADE, SPADE) stores spectral norm the old way, as ``weight_orig``, ``weight_u`` and ``weight_v``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from clade.errors import CheckpointError
from clade.models import ConvEncoder, MultiscaleDiscriminator, create_generator
from clade.models.spade_shaped import LAYOUTS
from clade.registry import near_match

State = Mapping[str, Tensor]
Rules = list[tuple[str, str | Callable[[re.Match[str]], str]]]

_SPECTRAL: Rules = [
    (r"\.weight_orig$", ".parametrizations.weight.original"),
    (r"\.weight_u$", ".parametrizations.weight.0._u"),
    (r"\.weight_v$", ".parametrizations.weight.0._v"),
]
_SPADE_SHAPED: Rules = [
    (r"^fc\.", "stem."),
    (r"^conv_img\.", "to_image."),
    (r"^head_0\.", "blocks.0."),
    (r"^G_middle_(\d)\.", lambda m: f"blocks.{int(m[1]) + 1}."),
    (r"^up_(\d)\.", lambda m: f"blocks.{int(m[1]) + 3}."),
    (r"\.norm_s\.", ".norm_shortcut."),
    (r"\.conv_s\.", ".conv_shortcut."),
    (r"\.(norm|conv)_(\d)\.", lambda m: f".{m[1]}{int(m[2]) + 1}."),
    (r"\.param_free_norm\.", ".normalize."),
    (r"\.class_specified_affine\.dist_conv_w\.", ".position_gamma."),
    (r"\.class_specified_affine\.dist_conv_b\.", ".position_beta."),
    (r"\.class_specified_affine\.weight$", ".gamma"),
    (r"\.class_specified_affine\.bias$", ".beta"),
    (r"\.inst_conv\.", ".edge."),
    (r"\.mlp_shared\.0\.", ".shared."),
    (r"\.mlp_gamma\.", ".to_gamma."),
    (r"\.mlp_beta\.", ".to_beta."),
]
_ENCODER: Rules = [
    (r"^layer(\d)\.0\.", lambda m: f"convs.{int(m[1]) - 1}."),
    (r"^fc_mu\.", "to_mu."),
    (r"^fc_var\.", "to_logvar."),
]


def import_official(name: str, state_dict: State, **options: Any) -> nn.Module:
    """Published weights -> a network of this library, in eval mode.

    Args:
        name: ``clade``, ``clade-icpe`` or ``spade``; ``encoder`` (returns mu and logvar of an image); ``discriminator``
            (multi-scale; takes labels, edge and image concatenated, returns a list of lists of features).
        state_dict: published key -> tensor, as ``torch.load(path, weights_only=True)`` gives it.
        options: the constructor's keywords. What the shapes tell (classes, edges, width, latent input, ...) need not be
            given; ``upsampling="more"`` must be, and ``unknown_class=True`` or ``num_classes`` where the last class is
            the unknown one. For SPADE the edge looks like a class: give ``instance_edges=True`` or ``num_classes``. For
            CLADE-ICPE see ``skip_class`` of the generator.

    Raises:
        CheckpointError: keys or shapes that do not fit, naming them and the options that were used.
    """
    if name not in _IMPORTERS:
        hint = near_match(name, _IMPORTERS)
        raise CheckpointError(f"No published weights are known for '{name}'.{hint} Known: {', '.join(_IMPORTERS)}.")
    if not isinstance(state_dict, Mapping):
        raise CheckpointError(
            f"state_dict is {type(state_dict).__name__}; needed is a mapping of keys to tensors, as "
            "torch.load(path, weights_only=True) gives it."
        )
    state = {key.removeprefix("module."): value for key, value in state_dict.items()}
    try:
        module, rules = _IMPORTERS[name](name, state, options)
    except KeyError as missing:
        raise CheckpointError(
            f"This is no state dict of a published '{name}': the key {missing} is missing. It holds "
            f"{len(state)} keys, such as {', '.join(list(state)[:3]) or 'none'}."
        ) from missing
    renamed = {_rename(key, [*rules, *_SPECTRAL]): (key, value) for key, value in state.items()}
    _fit(name, module, renamed, options)
    return module.eval()


def _rename(key: str, rules: Rules) -> str:
    for pattern, replacement in rules:
        key = re.sub(pattern, replacement, key)
    return key


def _fit(name: str, module: nn.Module, renamed: dict[str, tuple[str, Tensor]], options: Mapping[str, Any]) -> None:
    own = module.state_dict()
    unexpected = [key for ours, (key, _) in renamed.items() if ours not in own]
    missing = [key for key in own if key not in renamed]
    shapes = [
        f"{key} is {tuple(value.shape)}, expected {tuple(own[ours].shape)}"
        for ours, (key, value) in renamed.items()
        if ours in own and own[ours].shape != value.shape
    ]
    problems = [
        f"{len(found)} {what}: {'; '.join(found[:3])}{'; ...' if len(found) > 3 else ''}"
        for what, found in (("keys without a place", unexpected), ("missing keys", missing), ("other shapes", shapes))
        if found
    ]
    if problems:
        built = getattr(module, "options", None) or dict(options)
        raise CheckpointError(
            f"The state dict does not fit '{name}' built with {built}. {'. '.join(problems)}. "
            "Leave options out to have them read from the shapes, or choose the name that the weights were made for."
        )
    module.load_state_dict({ours: value.to(own[ours].dtype) for ours, (_, value) in renamed.items()})


def _spade_shaped(name: str, state: State, options: dict[str, Any]) -> tuple[nn.Module, Rules]:
    stem, wide = state["fc.weight"], state["head_0.conv_0.bias"].shape[0]
    inferred: dict[str, Any] = {"width": wide // 16}
    if "up_4.conv_0.bias" in state:
        inferred["upsampling"] = "most"
    if stem.ndim == 2:
        inferred["z_dim"] = stem.shape[1]
        upsampling = options.get("upsampling", inferred.get("upsampling", "normal"))
        side = math.isqrt(stem.shape[0] // wide)
        if side**2 * wide != stem.shape[0] and "size" not in options:
            raise CheckpointError(
                f"The latent input of this '{name}' was made for images that are not square (fc.weight is "
                f"{tuple(stem.shape)}), so its shape does not tell their size. Give size=(height, width)."
            )
        inferred["size"] = (side * 2 ** LAYOUTS[upsampling][0],) * 2 if upsampling in LAYOUTS else (256, 256)
    if name == "spade":
        first = state["head_0.norm_0.mlp_shared.0.weight"]
        inferred["hidden"] = first.shape[0]
        # Classes, the unknown one and the edge are all input channels there.
        extra = first.shape[1] - options.get("num_classes", first.shape[1])
        if extra == 1 and not {"unknown_class", "instance_edges"} & options.keys():
            raise CheckpointError(
                f"The weights of this 'spade' take {first.shape[1]} channels, one more than num_classes. "
                "Say what it is: unknown_class=True or instance_edges=True."
            )
        unknown = bool(options.get("unknown_class", extra > bool(options.get("instance_edges", extra > 1))))
        edges = bool(options.get("instance_edges", "num_classes" in options and extra > unknown))
        rows = first.shape[1] - edges
    else:
        rows = state["head_0.norm_0.class_specified_affine.weight"].shape[0]
        edges = "head_0.norm_0.inst_conv.weight" in state
        unknown = bool(options.get("unknown_class", rows > options.get("num_classes", rows)))
    inferred |= {"instance_edges": edges, "unknown_class": unknown, "num_classes": rows - unknown}
    return create_generator(name, **{**inferred, **options}), _SPADE_SHAPED


def _encoder(name: str, state: State, options: dict[str, Any]) -> tuple[nn.Module, Rules]:
    inferred = {"width": state["layer1.0.weight_orig"].shape[0], "z_dim": state["fc_mu.weight"].shape[0]}
    return ConvEncoder(**{**inferred, **_known(name, options, set(inferred))}), _ENCODER


def _discriminator(name: str, state: State, options: dict[str, Any]) -> tuple[nn.Module, Rules]:
    first = state["discriminator_0.model0.0.weight"]
    layers = max(
        int(m[1]) for key in state if (m := re.match(r"discriminator_0\.model(\d+)\.", key))
    )  # the last scores
    scales = 1 + max(int(m[1]) for key in state if (m := re.match(r"discriminator_(\d+)\.", key)))
    inferred = {"channels_in": first.shape[1], "width": first.shape[0], "scales": scales, "layers": layers}
    classes = {"num_classes", "unknown_class", "instance_edges"}
    given = _known(name, options, set(inferred) | classes)
    if "num_classes" in given:
        rows = given["num_classes"] + bool(given.get("unknown_class"))
        given.setdefault("channels_in", rows + bool(given.get("instance_edges")) + 3)
    module = MultiscaleDiscriminator(**{**inferred, **{k: v for k, v in given.items() if k not in classes}})
    rules: Rules = [
        (rf"^discriminator_(\d+)\.model{layers}\.0\.", r"scales.\1.score."),
        (r"^discriminator_(\d+)\.model(\d+)(\.0)+\.", r"scales.\1.convs.\2."),
    ]
    return module, rules


def _known(name: str, options: dict[str, Any], known: set[str]) -> dict[str, Any]:
    for option in options:
        if option not in known:
            hint = near_match(option, known)
            raise CheckpointError(f"'{name}' has no option '{option}'.{hint} Known: {', '.join(sorted(known))}.")
    return dict(options)


_IMPORTERS: dict[str, Callable[[str, State, dict[str, Any]], tuple[nn.Module, Rules]]] = {
    "clade": _spade_shaped,
    "clade-icpe": _spade_shaped,
    "spade": _spade_shaped,
    "encoder": _encoder,
    "discriminator": _discriminator,
}
