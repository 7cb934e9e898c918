"""What a training is fed with: its datasets, and batches of them on the device."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lightning_fabric import Fabric

from clade.data import Batch, Dataset, eval_loader, is_prepared, train_loader
from clade.data.loading import first_usable
from clade.errors import CladeError, DataError, LabelError
from clade.models import Generator
from clade.recipes import Recipe
from clade.training.builders import build_augment, build_dataset, build_weights
from clade.training.checks import check_classes, check_parts, lacks_instances
from clade.training.skipped import Skipped


class Feed:
    """The pictures that a training learns from and those that it is validated on, for one of its processes.

    Args:
        recipe: says which.
        folder: the run's folder, for the list of broken files.
        fresh: the list begins anew.
        quiet: no progress bar and no notes.

    Raises:
        CladeError: data that cannot be used, or that do not fit together.
    """

    def __init__(self, recipe: Recipe, folder: Path, fabric: Fabric, *, fresh: bool, quiet: bool) -> None:
        self.recipe, self.fabric = recipe, fabric
        self.dataset = build_dataset(recipe.data, recipe.data.train_split)
        self.validation = build_dataset(recipe.data, recipe.data.val_split)
        self._prepared = recipe.data.root is not None and is_prepared(recipe.data.root)
        check_parts(recipe.data, self.dataset, self.validation)
        check_classes(self.dataset, self.validation)
        self.edges, skip = recipe.generator.instance_edges, recipe.data.on_error == "skip"
        self.skipped = Skipped(folder, fabric, fresh=fresh)
        self._on_skip = self.skipped.add if skip else None
        telling = fabric.is_global_zero and not quiet
        with self._telling_way_out():
            if self.edges and lacks_instances(self.dataset, self.validation, skip=skip) and telling:
                print("Note: the data have no instance maps; class borders serve as instance edges.", file=sys.stderr)
            self.weights = build_weights(recipe.data, self.dataset, progress=telling)

    def training(self, generator: Generator, start: int, stop: int, workers: int = 0) -> Iterator[Batch]:
        """Micro-batches ``start`` to ``stop``, as the generator needs them."""
        data, config, fabric = self.recipe.data, self.recipe.training, self.fabric
        loader = train_loader(
            self.dataset,
            size=data.size,
            batch_size=config.batch_size,
            augment=build_augment(data),
            seed=config.seed,
            with_positions=generator.uses_positions,
            skip_class=generator.skip_class,
            instances=self.edges,
            rank=fabric.global_rank,
            world_size=fabric.world_size,
            start=start,
            stop=stop,
            workers=workers,
            pin_memory=fabric.device.type == "cuda",
            weights=self.weights,
            on_skip=self._on_skip,
        )
        for batch in self._with_way_out(loader):
            if batch.image is None:
                raise CladeError("The training data hold no photos; images/ is needed beside labels/.")
            yield batch.to(fabric.device, non_blocking=True)

    def evaluation(
        self, generator: Generator, dataset: Dataset, batch_size: int, rank: int = 0, world_size: int = 1
    ) -> Iterator[Batch]:
        """One pass over a dataset, or a rank's share of it, without augmentation."""
        data = self.recipe.data
        batches = eval_loader(
            dataset,
            size=data.size,
            batch_size=batch_size,
            with_positions=generator.uses_positions,
            skip_class=generator.skip_class,
            instances=self.edges,
            rank=rank,
            world_size=world_size,
            fit=data.fit,  # pyright: ignore[reportArgumentType]  # checked by the recipe
            on_skip=self._on_skip,
        )
        return (batch.to(self.fabric.device) for batch in self._with_way_out(batches))

    def require_validation(self) -> None:
        """Raises DataError where no picture to validate on can be used."""
        first_usable(self.validation, 0)

    def _with_way_out(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        with self._telling_way_out():
            yield from batches

    @contextmanager
    def _telling_way_out(self) -> Iterator[None]:
        """Lets the message about a broken file that stops the training end with what can be done."""
        try:
            yield
        except (DataError, LabelError) as error:
            root = self.recipe.data.root
            if self._on_skip is not None or root is None or self._prepared:
                raise
            raise type(error)(
                f"{error} `--data.on_error skip` goes on without such files; `clade data check {shlex.quote(root)}` "
                "lists them all."
            ) from error
