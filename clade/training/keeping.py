"""What a training leaves for others at a step: the averaged generator, its validation scores, a sheet of samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path

from lightning_fabric import Fabric
from torch import Tensor

from clade.data import Batch
from clade.io.images import save_png
from clade.metrics.scores import SCORES, Scores
from clade.models import Generator
from clade.models.checkpoints import save
from clade.recipes import Recipe
from clade.system.processor import resolve_precision
from clade.training.calibration import calibrated
from clade.training.chance import Chance
from clade.training.ema import Ema
from clade.training.feed import Feed
from clade.training.folder import BEST, LAST
from clade.training.processes import total
from clade.training.report import Report
from clade.training.signals import Hurried
from clade.training.step import TrainableGenerator
from clade.training.validation import absolute_error, draw_mean, sample_sheet, scored, spread


class Keeper:
    """Measures, validates and writes the averaged generator. Nothing of it changes anything in the training.

    Args:
        folder: the run's folder.
        chance: what is drawn by chance.
        ema: holds the generator.
        scores: what a validation computes besides the error.
        per_step: pictures of a step, over all processes.

    Attributes:
        best: best validation score so far (training.best_by), None before the first validation.
    """

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        fabric: Fabric,
        feed: Feed,
        chance: Chance,
        ema: Ema,
        scores: Scores | None,
        per_step: int,
    ) -> None:
        self.recipe, self.folder, self.fabric, self.feed, self.chance = recipe, folder, fabric, feed, chance
        self.ema, self.scores, self.per_step = ema, scores, per_step
        self.best: float | None = None
        self._made: tuple[int, Generator, bool] | None = None

    def save(self, step: int, overdue: Callable[[], bool]) -> bool:
        """Write last.safetensors; False if it was ``overdue`` (in any process) before all batches were measured."""
        generator, whole = self._measured(step, overdue)
        self._save(step, LAST, generator, None)
        return whole

    def validate(self, step: int, report: Report, overdue: Callable[[], bool]) -> bool:
        """Score the generator on the validation pictures, and write it if it is the best; False if ``overdue`` first.

        Raises:
            DataError: no picture to validate on can be used.
        """
        config, feed, fabric = self.recipe.training, self.feed, self.fabric
        generator, whole = self._measured(step, overdue)  # by all processes together: one may have nothing to look at
        if not whole:
            return False

        def draw(batch: Batch) -> Tensor:
            with fabric.autocast():
                return draw_mean(generator, batch, config.seed)

        rank, world = fabric.global_rank, fabric.world_size
        batches = feed.evaluation(generator, feed.validation, config.batch_size, rank, world)
        mine = Hurried(batches, math.ceil(math.ceil(len(feed.validation) / world) / config.batch_size), overdue)
        seen = None if self.scores is None else scored(self.scores, generator, fabric.autocast)
        error, count = total(fabric, absolute_error(draw, mine, seen))
        if mine.cut:
            return False
        if not count:
            feed.require_validation()
        scores = {"l1": float(error / count), **({} if self.scores is None else self.scores.compute()[0])}
        score = scores[config.best_by]
        if SCORES[config.best_by].better(score, self.best):
            self.best = score
            self._save(step, BEST, generator, scores)
        if fabric.is_global_zero:
            shown = spread(feed.validation, config.samples)
            picture = sample_sheet(draw, feed.evaluation(generator, shown, 1), feed.dataset.label_space)
            if picture is not None:
                save_png(picture, self.folder / "samples" / f"step-{step:07d}.png")
            assert self.best is not None
            report.validation(step, scores, self.best, picture, config.best_by)
        feed.skipped.share(report)
        return True

    def _measured(self, step: int, overdue: Callable[[], bool]) -> tuple[Generator, bool]:
        """The averaged generator with BatchNorm statistics of its own, and whether from as many batches as it needs.

        A copy, measured once per step on always the same batches: when and how often it is made changes nothing.
        """
        if self._made is None or self._made[0] != step:

            def draw(generator: Generator, batch: Batch, number: int) -> None:
                noise = self.chance.noise(generator, number, batch)
                with self.fabric.autocast():
                    TrainableGenerator(generator)(batch.label_map, batch.image, noise)

            count = self.recipe.training.calibrate
            batches = Hurried(self.feed.training(self.ema.generator, 0, count), count, overdue)
            generator = calibrated(self.ema.generator, batches, draw)
            self._made = (step, generator, not batches.cut)
        return self._made[1:]

    def _save(self, step: int, name: str, generator: Generator, scores: Mapping[str, float] | None) -> None:
        if self.fabric.is_global_zero:
            epoch = step * self.per_step / len(self.feed.dataset)
            precision = resolve_precision(self.recipe.training.precision, self.fabric.device)
            info = {"step": step, "epoch": round(epoch, 3), "precision": precision, "val_l1": None}
            info |= {f"val_{key}": value for key, value in (scores or {}).items()}
            save(generator, self.folder / name, self.feed.dataset.label_space, self.recipe, info)
