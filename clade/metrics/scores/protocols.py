"""What is scored, against what, and how: everything that two numbers must share to be compared."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

import yaml

from clade.errors import CladeError, first_line
from clade.registry import near_match
from clade.system.processor import PRECISIONS

Size = tuple[int, int]


@dataclass(frozen=True)
class Score:
    """A number that a protocol can ask for.

    Attributes:
        label: as tables print it.
        higher: whether a larger value is better.
        needs: what weights it needs: "inception", "extractor", "judge", "lpips", or "" for none.
        digits: after the point, in tables.
        samples: whether it is of several pictures of each label map, which only ``clade evaluate`` draws.
    """

    label: str
    higher: bool
    needs: str = ""
    digits: int = 2
    samples: bool = False

    @property
    def arrow(self) -> str:
        return "↑" if self.higher else "↓"

    def better(self, value: float, than: float | None) -> bool:
        """Whether a value beats another; None and not-a-number are beaten by every number."""
        if than is None or math.isnan(value) or math.isnan(than):
            return than is None or (math.isnan(than) and not math.isnan(value))
        return value > than if self.higher else value < than


SCORES: dict[str, Score] = {
    "miou": Score("mIoU (%)", True, "judge"),
    "accuracy": Score("accuracy (%)", True, "judge"),
    "fid": Score("FID", False, "inception"),
    "kid": Score("KID (x1000)", False, "inception", 3),
    "fd": Score("FD", False, "extractor"),
    "precision": Score("precision", True, "extractor", 4),
    "recall": Score("recall", True, "extractor", 4),
    "density": Score("density", True, "extractor", 4),
    "coverage": Score("coverage", True, "extractor", 4),
    "diversity": Score("LPIPS diversity", True, "lpips", 4, samples=True),
    "l1": Score("L1", False, "", 4),
}
"""Name -> score. FID and KID are in features of Inception, those after them in features of the protocol's extractor."""

JUDGES = {
    "ade20k": "upernet101",
    "ade20k-outdoor": "upernet101",
    "coco-stuff": "deeplabv2",
    "cityscapes": "drn-d105",
    "celebamask-hq": "unet-celebamask",
}
"""Dataset -> the judge of its published numbers."""


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How pictures are drawn and scored. Scores of two protocols are never ranked against each other."""

    name: str = "paper"
    metrics: tuple[str, ...] = ("miou", "accuracy", "fid")
    """Names of scores."""
    reference: str = "train"
    """Whose photos the pictures' distribution is compared with: those of the 'train' split, or 'val' for those of the
    split that is drawn."""
    size: Size | None = None
    """(height, width) of pictures, photos and label maps; None for that of the checkpoint's recipe."""
    fit: str | None = None
    """'stretch' or 'crop'; None for that of the checkpoint's recipe."""
    precision: str = "fp32"
    """That the generator draws in: 'fp32', by which scores are the same on every machine; 'bf16'; or 'auto', bf16 where
    the device multiplies in it."""
    seed: int = 0
    """With a picture's name it fixes its latent noise."""
    judge: str | None = None
    """The segmenter of mIoU and accuracy; None for the published one of the dataset."""
    extractor: str = "dinov2"
    """Whose features fd, precision, recall, density and coverage are computed in."""
    kid_subsets: int = 100
    """KID is their mean; ``kid_subset_size`` pictures each, drawn by ``kid_seed``."""
    kid_subset_size: int = 1000
    kid_seed: int = 2020
    neighbours: int = 3
    """Of precision and recall."""
    density_neighbours: int = 5
    """Of density and coverage."""
    reference_features: int = 10_000
    """Photos at most whose features KID and the scores after FD compare with; FID and FD use all."""
    absent_classes: str = "skip"
    """What a class counts in mIoU that neither label maps nor predictions have: 'skip' leaves it out, 'zero' is 0."""
    samples: int = 10
    """Pictures per label map that diversity is measured on."""

    def __post_init__(self) -> None:
        for name in self.metrics:
            if name not in SCORES:
                raise CladeError(f"There is no metric '{name}'.{near_match(name, SCORES)} Known: {', '.join(SCORES)}.")
        if not self.metrics or len(set(self.metrics)) < len(self.metrics):
            raise CladeError(f"metrics is {list(self.metrics)}; needed is at least one name, and each only once.")
        problems = [
            (self.reference not in ("train", "val"), "reference", "'train' or 'val'"),
            (self.fit not in (None, "stretch", "crop"), "fit", "'stretch' or 'crop'"),
            (self.precision not in PRECISIONS, "precision", "'auto', 'fp32' or 'bf16'"),
            (self.size is not None and min(self.size) < 1, "size", "[height, width], each at least 1"),
            (not 0 <= self.seed < 2**63, "seed", "a whole number from 0 to 2^63 - 1"),
            (self.kid_subsets < 1, "kid_subsets", "at least 1"),
            (self.kid_subset_size < 2, "kid_subset_size", "at least 2"),
            (not 0 <= self.kid_seed < 2**32, "kid_seed", "a whole number from 0 to 2^32 - 1"),
            (self.neighbours < 1, "neighbours", "at least 1"),
            (self.density_neighbours < 1, "density_neighbours", "at least 1"),
            (self.reference_features < 2, "reference_features", "at least 2"),
            (self.absent_classes not in ("skip", "zero"), "absent_classes", "'skip' or 'zero'"),
            (self.samples < 2, "samples", "at least 2"),
        ]
        for wrong, key, needed in problems:
            if wrong:
                raise CladeError(f"The protocol's {key} is {getattr(self, key)!r}; needed is {needed}.")

    def needs(self, what: str) -> bool:
        """Whether a score of it needs such weights."""
        return any(SCORES[name].needs == what for name in self.metrics)

    def with_judge_of(self, dataset: str) -> Protocol:
        """The same, with the dataset's published judge where none is chosen."""
        return self if self.judge else dataclasses.replace(self, judge=JUDGES.get(dataset))

    def to_dict(self) -> dict[str, Any]:
        """Plain values that survive JSON."""
        value = dataclasses.asdict(self)
        return {key: list(content) if isinstance(content, tuple) else content for key, content in value.items()}


PROTOCOLS: dict[str, Protocol] = {
    "paper": Protocol(),
    "oasis": Protocol(name="oasis", reference="val"),
}


def find_protocol(name: str | Path | Protocol, changes: Mapping[str, Any] | None = None) -> Protocol:
    """A protocol by name or from a YAML file.

    Args:
        name: one of ``PROTOCOLS``, or a ``.yaml`` file with fields of :class:`Protocol`; its key ``protocol`` names the
            one that it starts from.
        changes: fields to set instead; None leaves one as it is.

    Raises:
        CladeError: an unknown protocol or field, or a value that is none.
    """
    found = name if isinstance(name, Protocol) else _named(str(name))
    chosen = {key: value for key, value in (changes or {}).items() if value is not None}
    return _changed(found, chosen, "the protocol")


def _named(name: str) -> Protocol:
    if Path(name).suffix not in (".yaml", ".yml"):
        if name not in PROTOCOLS:
            hint = near_match(name, PROTOCOLS)
            raise CladeError(
                f"There is no protocol '{name}'.{hint} Known: {', '.join(PROTOCOLS)}, or a path ending in .yaml."
            )
        return PROTOCOLS[name]
    path = Path(name)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise CladeError(f"{path}: not readable as a protocol in YAML ({first_line(error)}).") from error
    if not isinstance(content, Mapping):
        raise CladeError(f"{path}: a protocol is a mapping of keys to values, as in `reference: val`.")
    base = PROTOCOLS.get(str(content.get("protocol", "paper")))
    if base is None:
        raise CladeError(f"{path}: protocol is {content['protocol']!r}; known are {', '.join(PROTOCOLS)}.")
    values = {"name": path.stem, **{str(key): value for key, value in content.items() if key != "protocol"}}
    return _changed(base, values, str(path))


def _changed(protocol: Protocol, values: Mapping[str, Any], source: str) -> Protocol:
    hints = get_type_hints(Protocol)
    checked: dict[str, Any] = {}
    for key, value in values.items():
        if key not in hints:
            raise CladeError(f"{source}: there is no key '{key}'.{near_match(key, hints)} Known: {', '.join(hints)}.")
        if isinstance(value, Sequence) and not isinstance(value, str):
            value = tuple(value)
        if not _fits(value, hints[key], key):
            raise CladeError(f"{source}: {key} is {value!r}; needed is {_words(hints[key])}.")
        checked[key] = value
    try:
        return dataclasses.replace(protocol, **checked)
    except CladeError as error:
        raise CladeError(f"{source}: {error}") from error


def _fits(value: Any, hint: Any, key: str) -> bool:
    if value is None:
        return type(None) in get_args(hint)
    if key == "metrics":
        return isinstance(value, tuple) and all(isinstance(name, str) for name in value)
    if key == "size":
        return isinstance(value, tuple) and len(value) == 2 and all(type(side) is int for side in value)
    return type(value) in (hint, *get_args(hint))


def _words(hint: Any) -> str:
    return str(hint.__name__ if isinstance(hint, type) else hint).replace("typing.", "")
