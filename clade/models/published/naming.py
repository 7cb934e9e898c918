"""Published key names <-> ours: one table of literal pairs per kind of network, read in either direction."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

State = Mapping[str, Tensor]
Pairs = Iterable[tuple[str, str]]
"""(published, ours), applied in order; ``^`` ties a text to the start of the key, ``$`` to its end."""


@dataclass(frozen=True)
class Family:
    """How one kind of published network is recognised, rebuilt and renamed.

    Args:
        recognise: whether a state dict is one of it, from a key that no other kind has.
        infer: the options that the shapes tell, given the user's: ``infer(name, state, options)``.
        build: the module of this library: ``build(name, options)``.
        pairs: names, for a module (some depend on its depth).
        stacks: (published, ours): ``(".fc_mu{}.weight", ".style_weight")`` says that ours is the stack of
            ``.fc_mu0.weight``, ``.fc_mu1.weight``, ...
        left_out: endings of our keys that published files do not have; they keep their start.
    """

    recognise: Callable[[State], bool]
    infer: Callable[[str, State, dict[str, Any]], dict[str, Any]]
    build: Callable[[str, dict[str, Any]], nn.Module]
    pairs: Callable[[nn.Module], Pairs]
    stacks: tuple[tuple[str, str], ...] = ()
    left_out: tuple[str, ...] = ()


# The published code stores spectral norm the old way.
SPECTRAL: Pairs = [
    (".weight_orig$", ".parametrizations.weight.original$"),
    (".weight_u$", ".parametrizations.weight.0._u$"),
    (".weight_v$", ".parametrizations.weight.0._v$"),
]


def to_ours(state: State, family: Family, module: nn.Module) -> dict[str, tuple[list[str], Tensor]]:
    """Our key -> (the published keys that it is made of, their value)."""
    pairs = [*SPECTRAL, *family.pairs(module)]
    rows: dict[str, dict[int, tuple[str, Tensor]]] = {}
    ours: dict[str, tuple[list[str], Tensor]] = {}
    for key, value in state.items():
        for published, stacked in family.stacks:
            before, after = published.split("{}")
            found = re.fullmatch(rf"(.*){re.escape(before)}(\d+){re.escape(after)}", key)
            if found:
                rows.setdefault(rename(found[1] + stacked, pairs), {})[int(found[2])] = (key, value)
                break
        else:
            ours[rename(key, pairs)] = ([key], value)
    for key, parts in rows.items():
        ordered = [parts[k] for k in sorted(parts)]
        ours[key] = ([name for name, _ in ordered], torch.stack([value for _, value in ordered]))
    return ours


def to_published(module: nn.Module, family: Family) -> dict[str, Tensor]:
    """A module's state under the published names."""
    backwards = _backwards(module, family)
    state: dict[str, Tensor] = {}
    for key, value in module.state_dict().items():
        if key.endswith(family.left_out or "\0"):
            continue
        for published, stacked in family.stacks:
            if key.endswith(stacked):
                prefix = key.removesuffix(stacked)
                for k, row in enumerate(value):
                    state[rename(prefix + published.format(k), backwards)] = row.clone()
                break
        else:
            state[rename(key, backwards)] = value.clone()
    return state


def published_name(key: str, module: nn.Module, family: Family) -> str:
    """Our key -> the published one."""
    return rename(key, _backwards(module, family))


def _backwards(module: nn.Module, family: Family) -> Pairs:
    return [(ours, published) for published, ours in reversed([*SPECTRAL, *family.pairs(module)])]


def rename(key: str, pairs: Pairs) -> str:
    """Replace each first text of the pairs by its second, in order."""
    for old, new in pairs:
        core, new = old.strip("^$"), new.strip("^$")
        if old.startswith("^"):
            key = new + key.removeprefix(core) if key.startswith(core) else key
        elif old.endswith("$"):
            key = key.removesuffix(core) + new if key.endswith(core) else key
        else:
            key = key.replace(core, new)
    return key
