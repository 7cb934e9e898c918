"""A whole recipe, read from YAML and overridden by dotted keys."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NoReturn, get_args, get_type_hints

import jsonargparse
import yaml

from clade.errors import RecipeError
from clade.recipes.sections import (
    DataConfig,
    DiscriminatorConfig,
    GeneratorConfig,
    LossConfig,
    OptimizerConfig,
    TrainingConfig,
    not_finite,
)
from clade.recipes.shipped import shipped
from clade.registry import import_modules, near_match
from clade.system.processor import PRECISIONS


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that defines a training."""

    name: str = "recipe"
    """Name of the run; its default folder is runs/NAME."""
    imports: list[str] = field(default_factory=list)
    """Modules that register layers, generators or datasets of your own: imported when the recipe is read from its
    file."""
    data: DataConfig = field(default_factory=DataConfig)
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    losses: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)

    @classmethod
    def from_yaml(cls, path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
        """Read a recipe.

        Args:
            path: a YAML file, or the name of a recipe that comes with clade (``clade.list_recipes()``).
            overrides: ``["--generator.width", "32", ...]``, as on the command line.

        Raises:
            RecipeError: unreadable, an unknown key (with the nearest known one), a value of the wrong type.
        """
        found = find_recipe(path)
        try:
            content = yaml.safe_load(found.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
            raise RecipeError(f"{found}: not readable as YAML ({error}).") from error
        content = {} if content is None else content
        if not isinstance(content, Mapping):
            raise RecipeError(f"{found}: a recipe is a mapping of keys to values, got {type(content).__name__}.")
        recipe = cls.from_dict({"name": found.stem, **content}, overrides, source=str(found))
        import_modules(recipe.imports)  # not in from_dict: a checkpoint, too, holds a recipe, and may be a stranger's
        return recipe

    @classmethod
    def from_dict(cls, value: Mapping[str, Any], overrides: Sequence[str] = (), source: str = "recipe") -> Recipe:
        """The same from plain values, as :meth:`to_dict` gives them."""
        for key in _dotted(value, source):
            _check_key(key, source)
        for argument in overrides:
            if argument.startswith("--"):
                _check_key(argument[2:].split("=")[0], "command line")
        parser = _parser()
        where = source
        try:
            parsed = parser.parse_object(dict(value), defaults=True)
            if overrides:
                where = "command line"
                parsed = parser.parse_args(list(overrides), namespace=parsed)
                where = source
            recipe = _build(cls, parsed.as_dict())
        except (jsonargparse.ArgumentError, RecipeError) as error:
            raise RecipeError(f"{where}: {_plainly(str(error))}") from error
        recipe._check(source, {argument[2:].split("=")[0] for argument in overrides if argument.startswith("--")})
        return recipe

    @classmethod
    def of(cls, recipe: Recipe | Mapping[str, Any] | str | Path) -> Recipe:
        """A recipe in any form: itself, its plain values, a YAML file, or the name of one that comes with clade."""
        if isinstance(recipe, (str, Path)):
            return cls.from_yaml(recipe)
        return cls.from_dict(recipe) if isinstance(recipe, Mapping) else recipe

    def to_dict(self) -> dict[str, Any]:
        """Plain values that survive JSON and YAML."""
        return _plain(dataclasses.asdict(self))

    def _check(self, source: str, overridden: Set[str]) -> None:
        problems = [
            *not_finite(self),
            (self.training.batch_size < 1, "training.batch_size", "at least 1"),
            (self.training.accumulate < 1, "training.accumulate", "at least 1"),
            (self.training.save_every < 1, "training.save_every", "at least 1"),
            (self.training.log_every < 1, "training.log_every", "at least 1"),
            (self.training.validate_every <= 0, "training.validate_every", "above 0"),
            (not 0 <= self.training.ema < 1, "training.ema", "in [0, 1)"),
            (self.training.precision not in PRECISIONS, "training.precision", "'auto', 'fp32' or 'bf16'"),
            (not 0 <= self.optimizer.constant <= 1, "optimizer.constant", "in [0, 1]"),
            *self.data.problems(),
            (self.training.steps is not None and self.training.steps < 1, "training.steps", "at least 1"),
            (self.training.calibrate < 1, "training.calibrate", "at least 1"),
            (self.training.epochs <= 0, "training.epochs", "above 0"),
            (self.training.devices < 1, "training.devices", "at least 1"),
            (self.training.threads is not None and self.training.threads < 1, "training.threads", "at least 1"),
            (self.training.seed < 0, "training.seed", "at least 0"),
            (self.training.samples < 1, "training.samples", "at least 1"),
            (
                self.training.accelerator not in ("auto", "cpu", "cuda"),
                "training.accelerator",
                "'auto', 'cpu' or 'cuda'",
            ),
            (self.discriminator.width < 1, "discriminator.width", "at least 1"),
            (self.discriminator.scales < 1, "discriminator.scales", "at least 1"),
            (self.discriminator.layers < 1, "discriminator.layers", "at least 1"),
            (
                self._segments() and self.losses.feature_matching != 0,
                "losses.feature_matching",
                "0, because discriminator.name is 'segmentation', which has no feature matching",
            ),
            (
                self._segments() and self.losses.adversarial != LossConfig.adversarial,
                "losses.adversarial",
                f"'{LossConfig.adversarial}' (leave it out), because discriminator.name is 'segmentation', which has "
                "losses of its own",
            ),
            (self.optimizer.lr_generator < 0, "optimizer.lr_generator", "at least 0"),
            (self.optimizer.lr_discriminator < 0, "optimizer.lr_discriminator", "at least 0"),
            (not 0 <= self.optimizer.beta1 < 1, "optimizer.beta1", "in [0, 1)"),
            (not 0 <= self.optimizer.beta2 < 1, "optimizer.beta2", "in [0, 1)"),
        ]
        for wrong, key, needed in problems:
            if wrong:
                value: Any = self
                for part in key.split("."):
                    value = getattr(value, part)
                where = "command line" if key in overridden else source
                raise RecipeError(f"{where}: {key} is {value!r}; needed is {needed}.")

    def _segments(self) -> bool:
        return self.discriminator.name == "segmentation"


def find_recipe(name: str | Path) -> Path:
    """The file of a recipe given by path or by the name of one that comes with clade."""
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise RecipeError(f"{path}: no such recipe file.")
        return path
    if path.exists():
        raise RecipeError(f"{path}: is no recipe; a recipe is a file that ends in .yaml.")
    known = shipped()
    if str(name) in known:
        return known[str(name)]
    hint = near_match(str(name), list_recipes())
    raise RecipeError(
        f"There is no recipe '{name}'.{hint} Known: {', '.join(list_recipes())}, or a path ending in .yaml."
    )


def list_recipes() -> list[str]:
    """Names of the recipes that come with clade."""
    return sorted(shipped())


class _Parser(jsonargparse.ArgumentParser):
    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        raise RecipeError(" ".join(str(message).split())) from ex


def recipe_parser(prog: str = "clade train RECIPE") -> jsonargparse.ArgumentParser:
    """The parser of dotted overrides; its help explains every field."""
    jsonargparse.set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = _Parser(prog=prog, exit_on_error=False, default_env=False)
    parser.add_class_arguments(Recipe)
    return parser


@cache
def _parser() -> jsonargparse.ArgumentParser:
    """The one that reads: made once, for making it takes most of the time of a recipe; parsing leaves nothing in it."""
    return recipe_parser()


@cache
def known_keys() -> dict[str, bool]:
    """Every dotted key of a recipe -> whether it holds a free mapping."""
    keys: dict[str, bool] = {}

    def walk(cls: Any, prefix: str) -> None:
        hints = get_type_hints(cls)
        for f in dataclasses.fields(cls):
            keys[prefix + f.name] = "dict" in str(hints[f.name])
            if dataclasses.is_dataclass(hints[f.name]):
                walk(hints[f.name], f"{prefix}{f.name}.")

    walk(Recipe, "")
    return keys


def _plainly(message: str) -> str:
    """What the parser says of a value of the wrong type, in our words; anything else as it is."""
    found = re.search(r'(?:Parser key |argument --)"?([a-z0-9_.]+)"?: .*?(?:Got|Given) value: (\S+)', message)
    if found is None or found[1] not in known_keys():
        return message
    cls: Any = Recipe
    for part in found[1].split("."):
        cls = get_type_hints(cls)[part]
    needed = cls.__name__ if isinstance(cls, type) and not get_args(cls) else str(cls)
    if needed.startswith("tuple[int, int]"):
        needed = "two numbers, as in '[256,256]'"
    return f"{found[1]} is {found[2]}; needed is {needed}."


def _check_key(key: str, source: str) -> None:
    known = known_keys()
    if key in known or key == "help":
        return
    parent = key.rsplit(".", 1)[0]
    if known.get(parent):  # data.options.count
        return
    siblings = [k for k in known if k.startswith(parent + ".")] if parent in known else []
    hint = near_match(key, siblings) or near_match(key, known)
    if not hint:
        by_last = {k.split(".")[-1]: k for k in known}
        close = difflib.get_close_matches(key.split(".")[-1], by_last, n=1)
        hint = f" Did you mean '{by_last[close[0]]}'?" if close else ""
    raise RecipeError(f"{source}: there is no key '{key}' in a recipe.{hint} `clade train --help` explains all keys.")


def _dotted(value: Mapping[str, Any], source: str, prefix: str = "") -> Iterator[str]:
    known = known_keys()
    for key, content in value.items():
        dotted = f"{prefix}{key}"
        yield dotted
        if any(k.startswith(f"{dotted}.") for k in known):
            if not isinstance(content, Mapping):
                raise RecipeError(f"{source}: '{dotted}' is a group of keys ({dotted}.name, ...), got {content!r}.")
            yield from _dotted(content, source, f"{dotted}.")


def _build(cls: Any, values: Mapping[str, Any], prefix: str = "") -> Any:
    hints = get_type_hints(cls)
    built = {}
    for key, value in values.items():
        if dataclasses.is_dataclass(hints[key]):
            value = _build(hints[key], value, f"{prefix}{key}.")
        elif value is None and type(None) not in get_args(hints[key]):  # jsonargparse lets it through
            raise RecipeError(f"'{prefix}{key}' has no value; leave the key out for its default.")
        built[key] = value
    return cls(**built)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value
