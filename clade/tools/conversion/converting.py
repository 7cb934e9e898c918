"""A trained generator -> one of another kind with its weights."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from clade.errors import CladeError
from clade.models import Generator, create_generator
from clade.models.checkpoints import require_unfolded
from clade.models.generators.spade_shaped import SpadeShapedGenerator
from clade.nn import CLADE, SPADE, NormLayer, Unnormalized
from clade.nn.spade_like import SpadeLike, evaluating
from clade.registry import Registry

CONVERSIONS: Registry[Callable[[Generator, int], Generator]] = Registry("conversion")
"""What networks can be converted to: (generator, first blocks that stay as they are) -> generator."""
LAYERS: dict[type, str] = {SPADE: "spade", CLADE: "clade", Unnormalized: "none"}


def convert(generator: Generator, to: str = "clade", *, spade_blocks: int = 0) -> Generator:
    """A trained generator -> one of another kind with the same weights, as far as they go. Needs no data.

    ``clade``: inside a large region of class k, SPADE's gamma and beta are constants of k. They become row k of CLADE's
    tables (section 3.2), with 1 + gamma as CLADE's gamma:

        y = x^ * (1 + gamma(m)) + beta(m)   ->   y = x^ * gamma[k] + beta[k]

    So a layer gives what it gave wherever the 5x5 pixels around have one class and no instance edge, and lie inside the
    picture. CLADE's channel for instance edges starts with weights of 0 in the convolution after it. All other weights,
    spectral norm's vectors and BatchNorm's statistics are those of the generator.

    Args:
        generator: SPADE-shaped, with SPADE in some blocks; it is not changed.
        to: ``clade``.
        spade_blocks: so many blocks from the coarsest on keep SPADE (a hybrid, table 6).

    Returns:
        A generator in eval mode that ``clade.save`` can write: ``clade`` where ``spade`` came, else of the same name.

    Raises:
        CladeError: no such conversion, nothing to convert, or more blocks to keep than there are.
    """
    return CONVERSIONS[to](generator, spade_blocks)


@CONVERSIONS.register("clade")
def to_clade(generator: Generator, spade_blocks: int = 0) -> Generator:
    """See :func:`convert`."""
    before = block_layers(generator)
    if not 0 <= spade_blocks < len(before):
        raise CladeError(
            f"{spade_blocks} blocks were to keep SPADE; needed is a number from 0 to {len(before) - 1}, "
            f"as there are {len(before)} blocks and one at least is to be converted."
        )
    after = [*before[:spade_blocks], *("clade" if name == "spade" else name for name in before[spade_blocks:])]
    if after == before:
        raise CladeError(
            f"The first {spade_blocks} blocks were to keep SPADE, and above them there is none: the layers of the "
            f"{len(before)} blocks are {norm_option(before)}. Keep fewer."
        )
    name, options = _clade_options(generator, after)
    with torch.device("meta"):
        made = create_generator(name, **options)
    state = dict(generator.state_dict())
    with evaluating(generator), torch.no_grad():
        for key, layer in made.named_modules():
            old = generator.get_submodule(key) if isinstance(layer, CLADE) else None
            if isinstance(old, SPADE):
                state |= _clade_state(key, old, cast(CLADE, layer))
    shapes = {key: value.shape for key, value in made.state_dict().items()}
    state = {key: _widened(state[key].detach(), shape) for key, shape in shapes.items()}
    made.load_state_dict(state, assign=True)
    return made.eval()


def block_layers(generator: Generator) -> list[str]:
    """The kind of normalization layer of each block: ``spade``, ``clade`` or ``none``.

    Raises:
        CladeError: a generator without SPADE layers, or one that a file could not rebuild.
    """
    found = layers_now(generator)
    if "spade" not in found:
        kinds = dict.fromkeys(type(layer).__name__ for layer in generator.modules() if isinstance(layer, NormLayer))
        raise CladeError(
            f"The generator is '{generator.name or type(generator).__name__}', which has no plain SPADE blocks to "
            f"convert (its normalization layers: {', '.join(kinds) or 'none'}). Needed is spade, spade-light, dagan, "
            "or a hybrid such as clade with norm='spade:4,clade'. SPADE inside other systems also reads features or "
            "styles, or works in groups, and no table of classes can take its place."
        )
    require_unfolded(generator)
    if not generator.name:
        raise CladeError(
            "This generator was not made by clade.create_generator, so its options are not known. Make it by name, or "
            "swap its layers in place with clade.nn.replace_spade."
        )
    return found


def layers_now(generator: Generator) -> list[str]:
    """The same, for any generator; empty for one of other blocks."""
    blocks = generator.blocks if isinstance(generator, SpadeShapedGenerator) else []
    found = [LAYERS.get(type(getattr(block, "norm1", None)), "") for block in blocks]
    return found if all(found) else []


def norm_option(layers: Iterable[str]) -> str:
    """One name per block -> the generator's option ``norm``: ``"spade:4,clade"``."""
    runs = [(name, len(list(group))) for name, group in itertools.groupby(layers)]
    return ",".join([*(f"{name}:{count}" for name, count in runs[:-1]), *(name for name, _ in runs[-1:])])


def _clade_options(generator: Generator, layers: list[str]) -> tuple[str, dict[str, Any]]:
    """Name and options of the generator with these layers."""
    own = "clade" if generator.name in ("spade", "spade-light") else generator.name
    options = {"width": cast(nn.Conv2d, generator.to_image).in_channels} if generator.name == "spade-light" else {}
    options = {**options, **generator.options}
    return own, changed_options(own, options, layers)


def changed_options(name: str, options: Mapping[str, Any], layers: list[str]) -> dict[str, Any]:
    """Options of the generator ``name``, with other layers in its blocks."""
    changed = {key: value for key, value in options.items() if key != "norm" and (key != "hidden" or "spade" in layers)}
    norm = norm_option(layers)
    return changed if name.startswith("clade") and norm == "clade" else {**changed, "norm": norm}


def _clade_state(key: str, old: SPADE, new: CLADE) -> dict[str, Tensor]:
    """What the CLADE layer at ``key`` has and SPADE had not."""
    gamma, beta, _ = SpadeLike(old, key, None, False).tables(None)
    state = {f"{key}.gamma": gamma, f"{key}.beta": beta}
    for part, value in new.state_dict().items():
        if part not in ("gamma", "beta") and not part.startswith("normalize."):
            # The convolution after it has weights of 0 for these channels: what they hold is for training to use.
            start = torch.ones if part in ("edge.weight", "position.weight") else torch.zeros
            state[f"{key}.{part}"] = start(value.shape).to(gamma)
    return state


def _widened(value: Tensor, shape: torch.Size) -> Tensor:
    """A copy, filled up with zeros at the end of each dimension.

    Of a convolution's weights and of spectral norm's right singular vector: further input channels then have weights of
    0, and sigma stays what it was.
    """
    wide = value.new_zeros(shape)
    wide[tuple(slice(length) for length in value.shape)] = value
    return wide
