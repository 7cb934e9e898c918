"""What only data and networks together show, said before a training starts."""

from __future__ import annotations

import hashlib
import json
import math
from typing import TYPE_CHECKING, Any

from clade.data import Dataset
from clade.data.loading import first_usable
from clade.data.split_files import require_apart
from clade.errors import RecipeError
from clade.models import Generator
from clade.nn import BatchNorm
from clade.recipes import DataConfig
from clade.training.builders import part_of
from clade.training.step import Objective

if TYPE_CHECKING:
    from clade.metrics.scores import Scores


def check_classes(training: Dataset, validation: Dataset) -> None:
    """Raises RecipeError where the two have different classes."""
    ours, theirs = training.label_space, validation.label_space
    if (ours.names, ours.unknown_class) != (theirs.names, theirs.unknown_class):
        raise RecipeError("Training and validation data have different classes; both need the same classes.json.")


def check_parts(config: DataConfig, training: Dataset, validation: Dataset) -> None:
    """Raises DataError where different parts of a split file share pictures."""
    one, two = part_of(config, config.train_split), part_of(config, config.val_split)
    if one is not None and two is not None and config.train_split != config.val_split:
        require_apart(one, two, training, validation)


def data_facts(config: DataConfig, training: Dataset) -> dict[str, Any]:
    """What files say that a recipe only names, in JSON's plain values: the parts of its split file, and the classes.

    The classes also tell of ``data.merge``, whose table is in their names and numbers.
    """
    parts = {name: part_of(config, name) for name in (config.train_split, config.val_split)}
    facts = {
        "parts": {name: None if part is None else part.to_dict() for name, part in parts.items()},
        "classes": training.label_space.to_dict(),
    }
    return json.loads(json.dumps(facts))


def weights_facts(objective: Objective, scores: Scores | None) -> dict[str, str]:
    """Hashes of the networks that a training uses and does not train: of its perceptual loss, of its scores."""
    facts = {} if scores is None else dict(scores.keys)
    if objective.vgg is not None:
        digest = hashlib.sha256()
        for key, value in sorted([*objective.vgg.named_parameters(), *objective.vgg.named_buffers()]):
            digest.update(key.encode())
            digest.update(value.detach().cpu().contiguous().numpy().data)
        facts["perceptual loss"] = digest.hexdigest()[:16]
    return facts


def check_batch(generator: Generator, size: tuple[int, int], pictures: int) -> None:
    """Raises RecipeError where BatchNorm would see a single value per channel; ``pictures`` over all processes."""
    grid = math.ceil(size[0] / generator.multiple) * math.ceil(size[1] / generator.multiple)
    if pictures * grid == 1 and any(isinstance(module, BatchNorm) for module in generator.modules()):
        raise RecipeError(
            f"One picture of {size[0]} x {size[1]} leaves BatchNorm a single value per channel at "
            f"1/{generator.multiple} of the size. Raise training.batch_size or data.size."
        )


def lacks_instances(training: Dataset, validation: Dataset, *, skip: bool = False) -> bool:
    """Whether both have no instance maps; raises RecipeError where one has them and the other not.

    Looks at the first picture of each, with ``skip`` at the first that can be read.
    """
    parts = {"training": training, "validation": validation}
    samples = {name: first_usable(data, 0)[0] if skip else data.read(0) for name, data in parts.items()}
    missing = [name for name, sample in samples.items() if sample.instances is None]
    if len(missing) == 1:
        raise RecipeError(f"The {missing[0]} data have no instance maps, the others have. Both need them, or neither.")
    return bool(missing)
