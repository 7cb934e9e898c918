"""Channels and groups of GroupDNet's blocks: the three published arrangements, for any number of classes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from clade.errors import CladeError
from clade.registry import near_match

# Channels of the network, in widths, from coarse to fine.
CHANNELS = (16, 16, 16, 16, 8, 4, 2, 1)


@dataclass(frozen=True, kw_only=True)
class GroupedBlock:
    """A residual block with grouped convolutions and grouped SPADE layers."""

    channels_in: int
    channels_out: int
    groups: int
    """Of the block's convolutions."""
    hidden: int
    """Channels inside its SPADE layers."""
    shared_groups: int
    """Of the first convolution in them, which reads the labels."""
    modulation_groups: int
    """Of the two that give gamma and beta."""


def arrange(name: str | None, rows: int, width: int, instance_edges: bool) -> tuple[str, list[GroupedBlock]]:
    """The blocks of an arrangement, from coarse to fine, and its name where it was left open.

    Args:
        name: ``deepfashion``, ``cityscapes``, ``ade20k``, or None for the first that fits: Cityscapes' with edges,
            DeepFashion's for a multiple of 8 classes, ADE20K's for all else.
        rows: number of classes, the unknown one included.
        width: channels of the last block.
        instance_edges: whether the labels come with edges.

    Raises:
        CladeError: an unknown name, or channels that do not divide into the arrangement's groups.
    """
    if name is None:
        wanted = ["cityscapes"] * instance_edges + ["deepfashion"]
        name = next((one for one in wanted if _misfit(one, rows, width) is None), "ade20k")
    elif name not in ARRANGEMENTS:
        hint = near_match(name, ARRANGEMENTS)
        raise CladeError(f"GroupDNet has no arrangement '{name}'.{hint} Known: {', '.join(ARRANGEMENTS)}.")
    misfit = _misfit(name, rows, width)
    if misfit is not None:
        raise CladeError(
            f"arrangement='{name}' does not fit {rows} classes (the unknown one included) and width={width}: {misfit} "
            "Or choose arrangement='ade20k', which takes any, or leave it out."
        )
    return name, ARRANGEMENTS[name](rows, width)


def unused_block(rows: int, width: int) -> GroupedBlock:
    """The block that is in the published weights for ADE20K and in no forward."""
    return _ade20k_block(2 * width, width, 1, rows)


def _deepfashion(rows: int, width: int) -> list[GroupedBlock]:
    groups = (rows, rows, rows // 2, rows // 2, rows // 4, rows // 4, rows // 8)
    hidden = 128 if 128 % rows == 0 else 16 * rows  # 128 as published, for 8 classes
    return [
        GroupedBlock(channels_in=a, channels_out=b, groups=g, hidden=hidden, shared_groups=g, modulation_groups=g)
        for a, b, g in zip(*_ends(width), groups, strict=True)
    ]


def _cityscapes(rows: int, width: int) -> list[GroupedBlock]:
    groups = (rows, rows, 20, 14, 10, 4, 1)
    return [
        GroupedBlock(
            channels_in=a, channels_out=b, groups=g, hidden=rows * g, shared_groups=rows, modulation_groups=rows
        )
        for a, b, g in zip(*_ends(width), groups, strict=True)
    ]


def _ade20k(rows: int, width: int) -> list[GroupedBlock]:
    channels = [16 * rows, 16 * rows, *(n * width for n in (32, 16, 16, 8, 4, 2))]
    groups = (rows, 16, 16, 8, 4, 2, 1)
    return [_ade20k_block(channels[k], channels[k + 1], groups[k], rows) for k in range(7)]


def _ade20k_block(channels_in: int, channels_out: int, groups: int, rows: int) -> GroupedBlock:
    return GroupedBlock(
        channels_in=channels_in,
        channels_out=channels_out,
        groups=groups,
        hidden=rows * (2 if rows % groups == 0 else groups),
        shared_groups=rows,
        modulation_groups=groups,
    )


ARRANGEMENTS: dict[str, Callable[[int, int], list[GroupedBlock]]] = {
    "deepfashion": _deepfashion,
    "cityscapes": _cityscapes,
    "ade20k": _ade20k,
}


def _ends(width: int) -> tuple[list[int], list[int]]:
    channels = [n * width for n in CHANNELS]
    return channels[:-1], channels[1:]


def _misfit(name: str, rows: int, width: int) -> str | None:
    """What keeps an arrangement from being built, and what would help; None where nothing does."""
    if name == "deepfashion" and rows % 8:
        return f"its groups are all, half, a quarter and an eighth of the classes, and {rows} is no multiple of 8."
    for k, block in enumerate(ARRANGEMENTS[name](rows, width)):
        for channels, groups in ((block.hidden, block.shared_groups), (block.hidden, block.modulation_groups)):
            if channels % groups:
                return (
                    f"the {channels} channels inside the SPADE layers of block {k} do not divide into {groups} groups."
                )
        for channels, groups in _divisions(block):
            if channels % groups:
                step = math.lcm(
                    *(n // math.gcd(c, n) for one in ARRANGEMENTS[name](rows, 1) for c, n in _divisions(one))
                )
                return (
                    f"block {k} ({block.channels_in} -> {block.channels_out} channels) would divide {channels} channels"
                    f" into {groups} groups. Choose a width that is a multiple of {step}."
                )
    return None


def _divisions(block: GroupedBlock) -> Iterator[tuple[int, int]]:
    """(channels, groups) of the convolutions that depend on the width."""
    for groups in (block.groups, block.modulation_groups):
        yield block.channels_in, groups
        yield block.channels_out, groups
