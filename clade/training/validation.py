"""What a training looks at now and then: the error on validation pictures, and a sheet of samples."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from clade.data import Batch, Chosen, Dataset
from clade.errors import CladeError, RecipeError
from clade.io.images import sheet, to_uint8
from clade.labels import LabelSpace
from clade.metrics.scores import SCORES, find_protocol
from clade.metrics.scores.drawing import draw as draw_samples
from clade.metrics.scores.drawing import draws_samples
from clade.models import Generator
from clade.recipes import Recipe
from clade.registry import near_match

if TYPE_CHECKING:
    from clade.metrics.scores import Scores

Draw = Callable[[Batch], Tensor]


@torch.no_grad()
def draw_mean(generator: Generator, batch: Batch, seed: int = 0) -> Tensor:
    """Images (N, 3, H, W) float32 of a batch.

    A latent generator draws the mean of the prior, SEAN the style of the photo; what else is random follows the seed.
    """
    assert batch.image is not None
    z = generator.validation_latent(batch.label_map, batch.image)
    if not generator.stochastic:
        return generator(batch.label_map, z=z).float()
    # One by one, so that a picture does not depend on the others in its batch.
    images = []
    for k in range(len(batch)):
        torch.manual_seed(seed)
        images.append(generator(batch.label_map[k : k + 1], z=None if z is None else z[k : k + 1]))
    return torch.cat(images).float()


def absolute_error(
    draw: Draw, batches: Iterable[Batch], seen: Callable[[Batch, Tensor], object] | None = None
) -> Tensor:
    """Mean absolute differences of drawn images to photos, both in [-1, 1]: (their sum over pictures, their number).

    Args:
        seen: is handed every batch with its images.
    """
    total = torch.zeros(2, dtype=torch.float64)
    for batch in batches:
        assert batch.image is not None
        images = draw(batch)
        error = (images - batch.image).abs().mean((1, 2, 3)).double()
        total += torch.stack([error.sum().cpu(), torch.tensor(len(batch), dtype=torch.float64)])
        if seen is not None:
            seen(batch, images)
    return total


def build_scores(recipe: Recipe, training: Dataset, validation: Dataset, device: torch.device) -> Scores | None:
    """What a validation computes besides the error; None where the recipe asks for nothing. Draws no random numbers.

    Raises:
        RecipeError: no such score, or one that cannot be computed here.
    """
    config, data = recipe.training, recipe.data
    names = tuple(name for name in dict.fromkeys([*config.metrics, config.best_by]) if name != "l1")
    for name in names:
        key = "metrics" if name in config.metrics else "best_by"
        if name not in SCORES:
            raise RecipeError(
                f"training.{key}: there is no score '{name}'.{near_match(name, SCORES)} Known: {', '.join(SCORES)}."
            )
        if SCORES[name].samples:
            raise RecipeError(f"training.{key}: {name} needs many pictures of a map; only `clade evaluate` has it.")
    if not names:
        return None
    from clade.metrics.scores import Scores

    own = {"metrics": names, "judge": config.judge, "size": data.size, "fit": data.fit}
    try:
        protocol = find_protocol(config.protocol, own).with_judge_of(data.name)
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            return Scores(
                protocol,
                validation.label_space,
                lambda: validation if protocol.reference == "val" else training,
                device=device,
                weights=config.score_weights,
                named=names,
                pictures=len(validation),
            )
    except CladeError as error:
        raise RecipeError(f"The scores of the validation (training.metrics, training.best_by): {error}") from error


def scored(
    scores: Scores, generator: Generator, autocast: Callable[[], AbstractContextManager[object]]
) -> Callable[[Batch, Tensor], None]:
    """What hands a batch and its images, as :func:`draw_mean` makes them, to the scores.

    Of a generator with a prior, these see draws of it instead, as in ``clade evaluate``: its means lack variety.
    """
    scores.reset()

    def see(batch: Batch, images: Tensor) -> None:
        if draws_samples(generator):
            with autocast():
                images = draw_samples(lambda maps, z: generator(maps, z=z), generator, batch, scores.protocol.seed)
        scores.update(batch, images)

    return see


def sample_sheet(draw: Draw, batches: Iterable[Batch], space: LabelSpace) -> np.ndarray | None:
    """Rows of label, drawn image and photo: (H, W, 3) uint8; None without batches."""
    rows = []
    for batch in batches:
        assert batch.image is not None
        labels = space.colorize(batch.label_map.ids.cpu().numpy())
        for row in zip(labels, to_uint8(draw(batch)), to_uint8(batch.image), strict=True):
            rows.append(row)
    return sheet(rows) if rows else None


def spread(dataset: Dataset, count: int) -> Dataset:
    """At most ``count`` pictures, evenly spread over a dataset."""
    count = min(count, len(dataset))
    return Chosen(dataset, [k * len(dataset) // count for k in range(count)])
