"""The settings in which the paper compares generators: one per dataset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from clade.errors import CladeError
from clade.models import Generator, create_generator, generator_options
from clade.registry import near_match


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A dataset as the generators see it, and the generators that the paper compares on it.

    Attributes:
        num_classes, unknown_class, instance_edges, upsampling: options of every generator that takes them.
        size: (height, width) of the pictures.
        generators: names, in the order of the paper's table.
        widths: generator -> its width, where it is not 64.
        own: generator -> options that only it has there.
    """

    num_classes: int
    unknown_class: bool = False
    instance_edges: bool = False
    upsampling: str = "normal"
    size: tuple[int, int] = (256, 256)
    generators: tuple[str, ...] = ()
    widths: Mapping[str, int] = field(default_factory=dict)
    own: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def options(self, name: str, **changed: Any) -> dict[str, Any]:
        """Keywords of ``create_generator`` for a generator, less those that it does not take.

        Args:
            changed: options to set instead; None leaves one as it is.
        """
        given = {
            "num_classes": self.num_classes,
            "unknown_class": self.unknown_class,
            "instance_edges": self.instance_edges,
            "upsampling": self.upsampling,
            "size": self.size,
            "width": self.widths.get(name),
            **self.own.get(name, {}),
            **{key: value for key, value in changed.items() if value is not None},
        }
        known = generator_options(name)
        return {key: value for key, value in given.items() if key in known and value is not None}


_ADE20K = ("cc-fpse", "dagan", "pix2pixhd", "spade", "clade", "clade-icpe", "spade-light")
_GROUPDNET = ("groupdnet", "groupdnet-clade")
_GROUPDNET_OWN = {name: {"upsampling": "more"} for name in _GROUPDNET}

SETTINGS: dict[str, Setting] = {
    "ade20k": Setting(
        num_classes=150,
        unknown_class=True,
        generators=_ADE20K,
        widths={"spade-light": 8, **dict.fromkeys(_GROUPDNET, 64)},
        own=_GROUPDNET_OWN,
    ),
    "coco-stuff": Setting(
        num_classes=182,
        unknown_class=True,
        instance_edges=True,
        generators=("cc-fpse", "pix2pixhd", "spade", "clade", "clade-icpe", "spade-light"),
        widths={"spade-light": 8},
        own=_GROUPDNET_OWN,
    ),
    "cityscapes": Setting(
        num_classes=35,
        instance_edges=True,
        upsampling="more",
        size=(256, 512),
        generators=(*_ADE20K, *_GROUPDNET),
        widths={"spade-light": 32, **dict.fromkeys(_GROUPDNET, 280)},
        own=_GROUPDNET_OWN,
    ),
    "celebamask-hq": Setting(num_classes=19, generators=("sean", "sean-clade")),
    "deepfashion": Setting(
        num_classes=8,
        generators=_GROUPDNET,
        widths=dict.fromkeys(_GROUPDNET, 160),
        own=_GROUPDNET_OWN,
    ),
}
"""Dataset -> its setting (sections 4.1, 4.2 and 4.10, with the published code's options)."""


def find_setting(dataset: str) -> Setting:
    """The setting of a dataset.

    Raises:
        CladeError: an unknown one, naming the nearest known.
    """
    if dataset not in SETTINGS:
        hint = near_match(dataset, SETTINGS)
        raise CladeError(f"There is no setting for the dataset '{dataset}'.{hint} Known: {', '.join(SETTINGS)}.")
    return SETTINGS[dataset]


def build(name: str, options: Mapping[str, Any], *, values: bool) -> Generator:
    """A generator by name; without values it lies on the meta device, which takes no memory and no time."""
    with torch.device("cpu" if values else "meta"):
        return create_generator(name, **options)
