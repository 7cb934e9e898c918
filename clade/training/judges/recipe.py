"""The recipe of a judge: data, network, how it learns."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from operator import attrgetter
from pathlib import Path
from typing import Any, NoReturn, get_type_hints

import jsonargparse
import yaml

from clade.errors import RecipeError
from clade.recipes import DataConfig
from clade.recipes.sections import not_finite
from clade.recipes.shipped import shipped
from clade.registry import near_match
from clade.system.processor import PRECISIONS


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """A network of segmentation-models-pytorch."""

    architecture: str = "fpn"
    """'fpn', 'unet', 'deeplabv3plus', 'pspnet', 'upernet', ..."""
    encoder: str = "resnet18"
    """'resnet18', 'resnet34', 'resnet50', 'mobilenet_v2', ..."""
    weights: str | None = None
    """File with torchvision's ImageNet weights of the encoder; by default it begins with random ones."""
    options: dict[str, Any] = field(default_factory=dict)
    """Further keywords of the network."""


@dataclass(frozen=True, kw_only=True)
class LearningConfig:
    """Cross-entropy over the pixels that have a class, and AdamW."""

    dice: float = 0.0
    """Weight of the Dice loss beside the cross-entropy; it favours rare classes."""
    lr: float = 1e-3
    """Largest step size."""
    weight_decay: float = 1e-2
    """AdamW's, of all weights."""
    schedule: str = "one-cycle"
    """'one-cycle' rises for the first tenth and falls to 0 by a cosine; 'poly' falls by (1 - t)^0.9."""


@dataclass(frozen=True, kw_only=True)
class JudgeTrainingConfig:
    """How long, how much at once, and what is kept."""

    epochs: float = 50
    """Times that every training picture is seen; 'steps' overrides it."""
    steps: int | None = None
    """Number of optimizer steps."""
    max_minutes: float | None = None
    """Save and stop after this long; the same command goes on."""
    batch_size: int = 8
    """Pictures per device and step."""
    precision: str = "auto"
    """'fp32', 'bf16' (autocast; weights stay float32), or 'auto': bf16 where the device multiplies in it."""
    ema: float = 0.99
    """Decay of the moving average of the weights, which is what is validated and saved; 0 turns it off."""
    seed: int = 0
    """Everything random follows from it."""
    devices: int = 1
    """Processes on this machine; torchrun overrides it."""
    accelerator: str = "auto"
    """'auto', 'cpu' or 'cuda'."""
    threads: int | None = None
    """CPU threads per process; by default as many as find a free core when the training begins, and then the same."""
    save_every: int = 500
    """Steps between training states; a killed run loses at most these."""
    validate_every: float = 5.0
    """Epochs between validations."""
    log_every: int = 20
    """Steps between points of the curves."""


@dataclass(frozen=True, kw_only=True)
class JudgeRecipe:
    """Everything that defines the training of a judge. The data section is that of a generator's recipe."""

    name: str = "judge"
    """Name of the judge; its default folder is runs/judge-NAME."""
    data: DataConfig = field(default_factory=DataConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    learning: LearningConfig = field(default_factory=LearningConfig)
    training: JudgeTrainingConfig = field(default_factory=JudgeTrainingConfig)

    @classmethod
    def from_yaml(cls, path: str | Path, overrides: Sequence[str] = ()) -> JudgeRecipe:
        """Read a recipe.

        Args:
            path: a YAML file, or the name of one that comes with clade (:func:`list_judge_recipes`).
            overrides: ``["--network.encoder", "resnet34", ...]``, as on the command line.

        Raises:
            RecipeError: unreadable, an unknown key (with the nearest known one), a value of the wrong type.
        """
        found = find_judge_recipe(path)
        try:
            content = yaml.safe_load(found.read_text(encoding="utf-8")) or {}
        except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
            raise RecipeError(f"{found}: not readable as YAML ({error}).") from error
        if not isinstance(content, Mapping):
            raise RecipeError(f"{found}: a recipe is a mapping of keys to values, got {type(content).__name__}.")
        return cls.from_dict({"name": found.stem, **content}, overrides, source=str(found))

    @classmethod
    def from_dict(cls, value: Mapping[str, Any], overrides: Sequence[str] = (), source: str = "recipe") -> JudgeRecipe:
        """The same from plain values, as :meth:`to_dict` gives them."""
        _check_keys(cls, value, source)
        for argument in overrides:
            if argument.startswith("--"):
                _check_option(cls, argument[2:].split("=")[0])
        parser = _parser()
        where = source
        try:
            parsed = parser.parse_object(dict(value), defaults=True)
            if overrides:
                where = "command line"
                parsed = parser.parse_args(list(overrides), namespace=parsed)
            recipe = _build(cls, parsed.as_dict())
        except (jsonargparse.ArgumentError, RecipeError) as error:
            raise RecipeError(f"{where}: {' '.join(str(error).split())}") from error
        recipe._check(source)
        return recipe

    def to_dict(self) -> dict[str, Any]:
        """Plain values that survive JSON and YAML."""
        return _plain(dataclasses.asdict(self))

    def _check(self, source: str) -> None:
        training, learning = self.training, self.learning
        shared = [*not_finite(self), *self.data.problems()]
        problems = [
            *((wrong, key, attrgetter(key)(self), needed) for wrong, key, needed in shared),
            (learning.dice < 0, "learning.dice", learning.dice, "at least 0"),
            (learning.lr < 0, "learning.lr", learning.lr, "at least 0"),
            (learning.weight_decay < 0, "learning.weight_decay", learning.weight_decay, "at least 0"),
            (
                learning.schedule not in ("one-cycle", "poly"),
                "learning.schedule",
                learning.schedule,
                "'one-cycle' or 'poly'",
            ),
            (training.batch_size < 1, "training.batch_size", training.batch_size, "at least 1"),
            (training.epochs <= 0, "training.epochs", training.epochs, "above 0"),
            (training.steps is not None and training.steps < 1, "training.steps", training.steps, "at least 1"),
            (training.validate_every <= 0, "training.validate_every", training.validate_every, "above 0"),
            (training.save_every < 1, "training.save_every", training.save_every, "at least 1"),
            (training.log_every < 1, "training.log_every", training.log_every, "at least 1"),
            (not 0 <= training.ema < 1, "training.ema", training.ema, "in [0, 1)"),
            (training.seed < 0, "training.seed", training.seed, "at least 0"),
            (training.devices < 1, "training.devices", training.devices, "at least 1"),
            (training.threads is not None and training.threads < 1, "training.threads", training.threads, "at least 1"),
            (
                training.precision not in PRECISIONS,
                "training.precision",
                training.precision,
                "'auto', 'fp32' or 'bf16'",
            ),
            (
                training.accelerator not in ("auto", "cpu", "cuda"),
                "training.accelerator",
                training.accelerator,
                "'auto', 'cpu' or 'cuda'",
            ),
        ]
        for wrong, key, value, needed in problems:
            if wrong:
                raise RecipeError(f"{source}: {key} is {value!r}; needed is {needed}.")


def find_judge_recipe(name: str | Path) -> Path:
    """The file of a recipe given by path or by the name of one that comes with clade."""
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise RecipeError(f"{path}: no such recipe file.")
        return path
    found = shipped("judges")
    if str(name) not in found:
        raise RecipeError(
            f"There is no recipe '{name}' for a judge.{near_match(str(name), found)} Known: "
            f"{', '.join(sorted(found))}, or a path ending in .yaml."
        )
    return found[str(name)]


def list_judge_recipes() -> list[str]:
    """Names of the recipes for judges that come with clade."""
    return sorted(shipped("judges"))


class _Parser(jsonargparse.ArgumentParser):
    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        raise RecipeError(" ".join(str(message).split())) from ex


def judge_recipe_parser(prog: str = "clade judge train RECIPE") -> jsonargparse.ArgumentParser:
    """The parser of dotted overrides; its help explains every field."""
    jsonargparse.set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = _Parser(prog=prog, exit_on_error=False, default_env=False)
    parser.add_class_arguments(JudgeRecipe)
    return parser


@cache
def _parser() -> jsonargparse.ArgumentParser:
    """The one that reads, made once; parsing leaves nothing in it."""
    return judge_recipe_parser()


def _check_keys(cls: Any, value: Mapping[str, Any], source: str, prefix: str = "") -> None:
    hints = get_type_hints(cls)
    for key, content in value.items():
        if key not in hints:
            raise RecipeError(
                f"{source}: there is no key '{prefix}{key}' in a judge's recipe.{near_match(str(key), hints)} "
                "`clade judge train --help` explains all keys."
            )
        if dataclasses.is_dataclass(hints[key]):
            if not isinstance(content, Mapping):
                raise RecipeError(f"{source}: '{prefix}{key}' is a group of keys, got {content!r}.")
            _check_keys(hints[key], content, source, f"{prefix}{key}.")


def _check_option(cls: Any, dotted: str) -> None:
    """Raises RecipeError for an override of a key that is not there."""
    part: Any = cls
    for key in dotted.split("."):
        if not dataclasses.is_dataclass(part):  # inside a free mapping, data.options.count say
            return
        hints = get_type_hints(part)
        if key not in hints:
            hint = near_match(key, hints)
            raise RecipeError(f"command line: there is no key '{dotted}' in a judge's recipe.{hint}")
        part = hints[key]


def _build(cls: Any, values: Mapping[str, Any]) -> Any:
    hints = get_type_hints(cls)
    built = {k: _build(hints[k], v) if dataclasses.is_dataclass(hints[k]) else v for k, v in values.items()}
    return cls(**built)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value
