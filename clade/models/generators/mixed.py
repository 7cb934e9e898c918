"""SPADE-shaped generators whose blocks choose among normalization layers: CLADE, SPADE, hybrids, position variants."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Sequence
from functools import partial
from typing import Any

from clade.errors import CladeError
from clade.models.generators.spade_shaped import Builder, SpadeShapedGenerator, block_count
from clade.nn import NORMS, NormLayer, Unnormalized
from clade.registry import near_match

POSITIONS = ("modulation", "features", "input")


class MixedGenerator(SpadeShapedGenerator):
    """The SPADE-shaped generator with one kind of normalization layer, or several (sections 4.8 and 4.9).

    Args:
        norm: kind of layer, ``clade``, ``spade``, ``none`` (the bare backbone) or any other of
            :data:`clade.nn.NORMS`, also one registered elsewhere; ``"spade:4,clade"`` for SPADE in the first four
            blocks and CLADE above; or a list with one name per block (7, or 8 for upsampling='most'), from coarse to
            fine.
        positions: how the position in the object enters: None; ``modulation`` of CLADE's scale and shift (+dist_p,
            CLADE-ICPE); ``features``, a channel beside the features of each CLADE layer (+dist_f); ``input``, two
            channels beside the labels that the network starts from (+dist_i).
        skip_class: class whose pixels get the position 0. The published weights were trained so: with 0 on COCO-Stuff
            (person) and Cityscapes; on ADE20K with the unlabelled pixels, which here are the unknown class, 150.
        hidden: channels inside the modulation networks of SPADE layers, and of others that have that option.
        normalization: inside every layer, ``batch`` (synchronised under DDP) or ``instance``.
        options: ``width``, ``upsampling``, ``z_dim``, ``size``, ``encoder``, ``encoder_width``; see
            :class:`SpadeShapedGenerator`.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        unknown_class: bool = False,
        instance_edges: bool = False,
        upsampling: str = "normal",
        norm: str | Sequence[str] = "clade",
        positions: str | None = None,
        skip_class: int | None = None,
        hidden: int = 128,
        normalization: str = "batch",
        **options: Any,
    ) -> None:
        layers = layers_of_blocks(norm, block_count(upsampling))
        if positions is not None and positions not in POSITIONS:
            hint = near_match(str(positions), POSITIONS)
            raise CladeError(f"There is no use of positions '{positions}'.{hint} Known: {', '.join(POSITIONS)}.")
        use = {"modulation": "positions", "features": "position_channel"}.get(positions or "")
        if use is not None and not any(use in _options(layer) for layer in layers):
            raise CladeError(
                f"positions='{positions}' works in CLADE layers, and norm={norm!r} leaves none. "
                "Choose positions='input', or CLADE in some blocks."
            )
        if skip_class is not None and (positions is None or not 0 <= skip_class < num_classes + unknown_class):
            raise CladeError(
                f"skip_class is {skip_class}; needed is one of the {num_classes + unknown_class} ids, and a network "
                "that uses positions."
            )
        if hidden < 1:
            raise CladeError(f"hidden is {hidden}; needed is a number of at least 1.")
        offered = {
            "num_rows": num_classes + unknown_class,
            "instance_edges": instance_edges,
            "normalization": normalization,
            "hidden": hidden,
            "positions": positions == "modulation",
            "position_channel": positions == "features",
        }
        super().__init__(
            [_builder(layer, offered) for layer in layers],
            num_classes=num_classes,
            unknown_class=unknown_class,
            instance_edges=instance_edges,
            upsampling=upsampling,
            input_positions=positions == "input",
            **options,
        )
        self.skip_class = skip_class
        self.stochastic = any(module.stochastic for module in self.modules() if isinstance(module, NormLayer))


def _builder(layer: str, offered: dict[str, Any]) -> Builder:
    """Builds a layer with what its constructor takes of the options offered."""
    options = {key: value for key, value in offered.items() if key in _options(layer)}
    return Unnormalized if layer == "none" else partial(NORMS[layer], **options)


def _options(layer: str) -> Collection[str]:
    return () if layer == "none" else inspect.signature(NORMS[layer]).parameters


def layers_of_blocks(norm: str | Sequence[str], blocks: int) -> list[str]:
    """``"spade:4,clade"`` or one name per block -> one name per block.

    Raises:
        CladeError: an unknown name, or more or fewer blocks than there are.
    """
    parts = norm.split(",") if isinstance(norm, str) else norm
    if not isinstance(parts, Sequence) or not all(isinstance(part, str) for part in parts):
        raise CladeError(f"norm is {norm!r}; needed is 'clade', 'spade', 'spade:4,clade' or a list of names.")
    layers: list[str] = []
    for k, part in enumerate(parts):
        name, _, count = part.strip().partition(":")
        known = [*NORMS.names(), "none"]
        if name not in known:
            hint = near_match(name, known)
            raise CladeError(f"norm={norm!r}: there is no layer '{name}'.{hint} Known: {', '.join(known)}.")
        if count and not (count.isdecimal() and int(count)):
            raise CladeError(f"norm={norm!r}: '{count}' is no number of blocks. Write 'spade:4,clade', say.")
        fills = isinstance(norm, str) and k == len(parts) - 1 and not count
        layers += [name] * (blocks - len(layers) if fills else int(count or 1))
    if len(layers) != blocks or len(parts) == 0:
        raise CladeError(
            f"norm={norm!r} names {len(layers)} blocks, and there are {blocks}. "
            "A last name without a number takes all that is left, as in 'spade:4,clade'."
        )
    return layers
