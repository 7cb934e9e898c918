"""Recipe parts -> objects. Each function gets only the part that it needs."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from clade.data import Augment, Cached, Dataset, create_dataset
from clade.data.doctor.foreign import known_nearby
from clade.data.files import layouts
from clade.data.merged import Merged
from clade.data.resized import Resized
from clade.data.sampling import read_classes, repeat_factors
from clade.data.split_files import Part, read_part
from clade.errors import DataError, RecipeError
from clade.labels import LabelSpace
from clade.losses import ADVERSARIAL, VGGPerceptual
from clade.models import DISCRIMINATORS, Generator, create_generator, generator_options
from clade.models.checkpoints import read_checkpoint
from clade.models.discriminators.diff_augment import parse_policy
from clade.models.discriminators.multiscale import Discriminator
from clade.recipes import (
    DataConfig,
    DiscriminatorConfig,
    GeneratorConfig,
    LossConfig,
    OptimizerConfig,
    find_merge_table,
    find_split_file,
)
from clade.training.adam import MomentumFreeAdam
from clade.training.step import Objective


def build_dataset(config: DataConfig, split: str) -> Dataset:
    """One split of the dataset: of what ``clade data prepare`` made, where ``root`` is that, else of the raw files.

    Pictures decoded from raw files are cached in memory up to ``cache_mib``.
    """
    if config.root is not None:
        from clade.data.prepared import is_prepared

        if is_prepared(config.root):
            return _prepared_dataset(config, config.root, split)
    dataset = raw_dataset(config, split)
    return Cached(dataset, config.cache_mib << 20) if config.cache_mib else dataset


def _prepared_dataset(config: DataConfig, root: str, split: str) -> Dataset:
    """A split of a prepared dataset. Parts and merged classes are stored in it, or are made of what is stored."""
    from clade.data.prepared import PreparedDataset, prepared_with

    own = config.name == "prepared"
    part, with_parts, with_merge = part_of(config, split), *prepared_with(root)
    merge = None if config.merge is None else find_merge_table(config.merge)
    expect: dict[str, Any] = {
        "name": config.name,
        "size": config.load_size,
        "fit": config.fit,
        "num_classes": config.num_classes,
        "unknown": config.unknown,
        "remap": config.remap,
        "palette": config.palette,
        "at_least": None if config.load_size else config.size,
        "options": None if own else config.options,
        "part": part.to_dict() if part is not None and with_parts else None,
        "merge": merge if with_merge else None,
    }
    given = config.options if own else {}
    if part is None or with_parts:
        dataset: Dataset = PreparedDataset(root, split, expect=expect, **given)
    else:
        with _read_for(part):
            dataset = PreparedDataset(root, part.split, expect=expect, **given)
        dataset = part.choose(dataset)
    return dataset if merge is None or with_merge else Merged(dataset, merge)


def raw_dataset(config: DataConfig, split: str) -> Dataset:
    """One split of the dataset, or part of the split file, from its own files: classes merged, at the load size."""
    part = part_of(config, split)
    options: dict[str, Any] = {"split": split if part is None else part.split, **config.options}
    for key in ("root", "num_classes", "unknown", "remap", "palette"):
        if getattr(config, key) is not None:
            options[key] = getattr(config, key)
    if config.name == "scenes":  # drawn at the size that is loaded
        height, width = config.load_size or config.size
        options = {"height": height, "width": width, **options}
    with _read_for(part):
        try:
            dataset = create_dataset(config.name, **options)
        except DataError as error:
            hint = _nearby(config)
            if not hint:
                raise
            raise DataError(f"{error} {hint}") from error
    if part is not None:
        dataset = part.choose(dataset)
    if config.merge is not None:
        dataset = Merged(dataset, find_merge_table(config.merge))
    return dataset if config.load_size is None else Resized(dataset, config.load_size, config.fit)  # pyright: ignore[reportArgumentType]  # checked there


def part_of(config: DataConfig, split: str) -> Part | None:
    """What the recipe's split file says of a part; None without a split file.

    Raises:
        DataError: no such file or part.
    """
    return None if config.split_file is None else read_part(find_split_file(config.split_file), split)


@contextmanager
def _read_for(part: Part | None) -> Iterator[None]:
    """Lets the message about a split that cannot be read name the part that it was read for."""
    try:
        yield
    except DataError as error:
        if part is None:
            raise
        raise DataError(f"{error} (Read for {part.where}, from the split '{part.split}'.)") from error


def _nearby(config: DataConfig) -> str:
    """What datasets lie near a root that is none of this layout; empty where it is one, or where there are none."""
    layout = layouts().get(config.name)
    if layout is None or config.root is None or not Path(config.root).is_dir():
        return ""
    return "" if layout.recognizes(Path(config.root)) else known_nearby(Path(config.root))


def build_weights(config: DataConfig, dataset: Dataset, *, progress: bool = False) -> np.ndarray | None:
    """How often each picture of the training data comes; None for once per epoch.

    Balanced over the classes, every label is read once here.
    """
    if config.sampling == "uniform":
        return None
    present = read_classes(dataset, skip=config.on_error == "skip", progress=progress)
    return repeat_factors(present, dataset.label_space.num_classes)


def build_augment(config: DataConfig) -> Augment:
    return Augment(  # checked there
        flip=config.flip,
        max_zoom=config.max_zoom,
        crop=config.crop,  # pyright: ignore[reportArgumentType]
        jitter=config.jitter,
        fit=config.fit,  # pyright: ignore[reportArgumentType]
    )


def build_generator(config: GeneratorConfig, space: LabelSpace, size: tuple[int, int]) -> Generator:
    """The recipe's generator; keys that this kind of network does not have must be left at their defaults."""
    options: dict[str, Any] = {
        "unknown_class": space.unknown_class,
        "instance_edges": config.instance_edges,
        "width": config.width,
        "upsampling": config.upsampling,
        "z_dim": config.z_dim,
        "encoder": config.encoder,
        "size": size,
    }
    known = generator_options(config.name)
    untaken = _untaken(config, set(known), {"instance_edges", "upsampling", "z_dim", "encoder"})
    if untaken:
        raise RecipeError(
            f"generator.{untaken} is {getattr(config, untaken)!r}, but '{config.name}' has no such option. "
            "Leave it out."
        )
    taken = sorted(
        {"num_classes", "unknown_class", "instance_edges", "width", "upsampling", "encoder"} & config.options.keys()
    )
    if taken:
        where = "from the data" if "class" in taken[0] else f"from generator.{taken[0]}"
        raise RecipeError(f"generator.options holds '{taken[0]}', which comes {where}. Leave it out of the options.")
    # What is not set keeps the network's own default: GroupDNet starts at 1/64, CC-FPSE from a latent vector.
    chosen = {key: value for key, value in options.items() if key in known and value is not None}
    return create_generator(config.name, num_classes=space.num_classes, **{**chosen, **config.options})


def initialize(generator: Generator, path: str, space: LabelSpace) -> None:
    """Give the generator the weights of a checkpoint, without its recipe and its step.

    Raises:
        CheckpointError: missing or damaged.
        RecipeError: weights of other shapes, or of other classes.
    """
    checkpoint = read_checkpoint(path)
    theirs = checkpoint.label_space
    if theirs is not None and (theirs.names, theirs.unknown_class) != (space.names, space.unknown_class):
        raise RecipeError(
            f"training.init_from: {path} was trained with other classes ({theirs.num_rows} ids, {theirs.names[0]} "
            f"first) than the data have ({space.num_rows} ids, {space.names[0]} first). Choose a generator for them."
        )
    before, now = (
        {key: tuple(value.shape) for key, value in network.state_dict().items()}
        for network in (checkpoint.generator, generator)
    )
    different = [key for key in {**now, **before} if before.get(key) != now.get(key)]
    if different:
        key = different[0]
        raise RecipeError(
            f"training.init_from: the weights in {path} ('{checkpoint.generator.name}') do not fit the recipe's "
            f"generator ('{generator.name}'): {len(different)} are missing, further or of another shape, first {key} "
            f"({before.get(key, 'not there')}, needed is {now.get(key, 'none')}). Make the recipe's generator section "
            "that of the checkpoint; `clade info` shows it."
        )
    generator.load_state_dict(checkpoint.generator.state_dict())


def build_discriminator(config: DiscriminatorConfig, space: LabelSpace, instance_edges: bool) -> Discriminator:
    """The recipe's discriminator; keys that this kind does not have must be left at their defaults."""
    parse_policy(config.diff_augment)  # of the training step: what is wrong with it is said before anything is built
    build = DISCRIMINATORS[config.name]
    known = set(inspect.signature(build).parameters)
    untaken = _untaken(config, known, {"scales", "layers"})
    if untaken:
        raise RecipeError(
            f"discriminator.{untaken} is {getattr(config, untaken)}, but '{config.name}' has no such option. "
            "Leave it out."
        )
    data = {
        "channels_in": space.num_rows + instance_edges + 3,
        "num_classes": space.num_classes,
        "unknown_class": space.unknown_class,
    }
    options = {**data, "width": config.width, "scales": config.scales, "layers": config.layers}
    taken = sorted(options.keys() & config.options.keys())
    if taken:
        raise RecipeError(
            f"discriminator.options holds '{taken[0]}', which has a key of its own, or comes from the data."
        )
    chosen: dict[str, Any] = {key: value for key, value in options.items() if key in known}
    try:
        return build(**chosen, **config.options)
    except TypeError as error:
        raise RecipeError(f"discriminator.options does not fit '{config.name}': {error}.") from error


def _untaken(config: Any, known: set[str], keys: set[str]) -> str | None:
    """A key that is not known, but set to something else than its default."""
    defaults = {field.name: field.default for field in dataclasses.fields(config)}
    return next((key for key in sorted(keys - known) if getattr(config, key) != defaults[key]), None)


def build_objective(config: LossConfig) -> Objective:
    return Objective(
        adversarial=ADVERSARIAL[config.adversarial],
        feature_matching=config.feature_matching,
        perceptual=config.perceptual,
        l1=config.l1,
        kl=config.kl,
        vgg=_perception(config) if config.perceptual else None,
    )


def _perception(config: LossConfig) -> nn.Module:
    if config.perceptual_judge is None:
        return VGGPerceptual(config.vgg_weights, vgg_input=config.vgg_input)  # pyright: ignore[reportArgumentType]  # checked there
    if config.vgg_weights is not None:
        raise RecipeError("losses.perceptual_judge and losses.vgg_weights are both given. Leave one of them out.")
    from clade.metrics.judges.perceptual import EncoderPerceptual

    return EncoderPerceptual(config.perceptual_judge)


def build_optimizer(config: OptimizerConfig, module: nn.Module, lr: float) -> torch.optim.Optimizer:
    if config.beta1 == 0:
        return MomentumFreeAdam(module.parameters(), lr, config.beta2)
    return torch.optim.Adam(module.parameters(), lr=lr, betas=(config.beta1, config.beta2), fused=True)


def lr_factor(step: int, steps: int, constant: float) -> float:
    """Step size relative to the start: 1 for the first part, then linearly to 0 (section 4.2; SPADE's schedule)."""
    hold = constant * steps
    return 1.0 if step < hold or hold >= steps else (steps - step) / (steps - hold)
