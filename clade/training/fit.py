"""The training loop, on Lightning Fabric."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from clade.data import Batch
from clade.errors import CladeError, RecipeError
from clade.labels import LabelPyramid
from clade.recipes import Recipe
from clade.system.processor import resolve_precision
from clade.training.builders import (
    build_discriminator,
    build_generator,
    build_objective,
    build_optimizer,
    initialize,
    lr_factor,
)
from clade.training.chance import Chance
from clade.training.checks import check_batch, data_facts, weights_facts
from clade.training.ema import Ema
from clade.training.feed import Feed
from clade.training.folder import STATE, changes, precision_note, tidy
from clade.training.keeping import Keeper
from clade.training.launch import launched, make_fabric
from clade.training.processes import any_of, total
from clade.training.report import Report, announce
from clade.training.signals import Stop, stop_on_signal
from clade.training.state import load_state, read_facts, save_state
from clade.training.step import TrainableDiscriminator, TrainableGenerator, training_step
from clade.training.validation import build_scores


@dataclass(frozen=True)
class Result:
    """What a call of :func:`train` came to.

    Args:
        folder: the run's folder, with last.safetensors, best.safetensors, state.safetensors, samples/, tensorboard/.
        step: steps done so far.
        steps: steps of the whole training.
        best: best validation score so far (training.best_by), None before the first validation.
        rank: which process this is; only rank 0 has written files.
        skipped: files that could not be used so far (data.on_error=skip), listed in skipped.txt.
        unvalidated: it was stopped before the validation of this step was done; going on begins with that.
    """

    folder: Path
    step: int
    steps: int
    best: float | None
    rank: int = 0
    skipped: int = 0
    unvalidated: bool = False

    @property
    def finished(self) -> bool:
        return self.step >= self.steps and not self.unvalidated


def train(
    recipe: Recipe | Mapping[str, Any] | str | Path,
    out: str | Path | None = None,
    *,
    fresh: bool = False,
    quiet: bool = False,
) -> Result:
    """Train by a recipe; go on where an earlier call with the same folder stopped, exactly.

    Ctrl-C (SIGINT) and SIGTERM finish the step, save and return. After a kill the run repeats the steps since the last
    saved state, with the same result: on the CPU, with the same number of threads, bit for bit.

    Args:
        recipe: what to train on what; also as plain values, a YAML file, or the name of one that comes with clade.
        out: folder of the run; by default runs/NAME.
        fresh: begin anew even if the folder holds a training.
        quiet: no progress bar.

    Raises:
        CladeError: data, recipe or folder cannot be used as they are; or the losses stopped being numbers.
    """
    recipe = Recipe.of(recipe)
    folder = Path(out) if out is not None else Path("runs") / recipe.name
    with launched(recipe, folder, fresh=fresh, quiet=quiet) as fabric:
        return _Run(recipe, folder, fabric, fresh=fresh, quiet=quiet).go()


def stepper(recipe: Recipe, folder: Path) -> Callable[[], dict[str, float]]:
    """A function that does one training step each time it is called and returns its losses; nothing is saved."""
    run = _Run(recipe, folder, make_fabric(recipe), fresh=True, quiet=True)
    batches = run._training_batches()

    def step() -> dict[str, float]:
        run.step += 1
        losses = run._train_step(batches)
        run.ema.update(run.generator, run.step)
        return run._checked(losses)

    return step


class _Run:
    """One call of :func:`train`: everything built once, then the loop."""

    def __init__(self, recipe: Recipe, folder: Path, fabric: Fabric, *, fresh: bool, quiet: bool) -> None:
        self.recipe, self.folder, self.fabric, self.quiet = recipe, folder, fabric, quiet
        config = recipe.training
        self.precision = resolve_precision(config.precision, fabric.device)
        self.started = time.monotonic()
        self.chance = Chance(config.seed, recipe.discriminator.diff_augment, fabric)
        self.feed = Feed(recipe, folder, fabric, fresh=fresh, quiet=quiet)
        self.dataset, self.skipped = self.feed.dataset, self.feed.skipped
        self.space, self.edges = self.dataset.label_space, self.feed.edges
        self.files = data_facts(recipe.data, self.dataset)  # now: a file may change while this runs
        with fabric.rank_zero_first():  # the others then find the real photos' statistics on disk
            scores = build_scores(recipe, self.dataset, self.feed.validation, fabric.device)
        torch.manual_seed(config.seed)
        self.generator = build_generator(recipe.generator, self.space, recipe.data.size)
        if config.init_from is not None and (fresh or not (folder / STATE).exists()):
            initialize(self.generator, config.init_from, self.space)
        self.discriminator = build_discriminator(recipe.discriminator, self.space, self.edges)
        self.discriminator.check_size(recipe.data.size)
        # Before the optimizers: their moments live where the weights do.
        self.generator.to(fabric.device)
        self.discriminator.to(fabric.device)
        self.objective = build_objective(recipe.losses)
        if self.objective.vgg is not None:
            self.objective.vgg.to(fabric.device)
        self.files["weights"] = weights_facts(self.objective, scores)
        self.optimizer_g = build_optimizer(recipe.optimizer, self.generator, recipe.optimizer.lr_generator)
        self.optimizer_d = build_optimizer(recipe.optimizer, self.discriminator, recipe.optimizer.lr_discriminator)
        self.ema = Ema(self.generator, config.ema)
        check_batch(self.generator, recipe.data.size, config.batch_size * fabric.world_size)
        self.per_step = config.batch_size * fabric.world_size * config.accumulate
        self.steps = config.steps or math.ceil(config.epochs * len(self.dataset) / self.per_step)
        self.validate_every = max(1, round(config.validate_every * len(self.dataset) / self.per_step))
        self.keeper = Keeper(recipe, folder, fabric, self.feed, self.chance, self.ema, scores, self.per_step)
        self.step, self.unvalidated, self.stop = 0, False, Stop()
        self.fresh = fresh
        if not fresh and (folder / STATE).exists():
            self._resume(folder / STATE)
        self.wrapped_g = fabric.setup(TrainableGenerator(self.generator), self.optimizer_g)[0]
        judge = TrainableDiscriminator(self.discriminator, self.objective, self.edges)
        self.wrapped_d = fabric.setup(judge, self.optimizer_d)[0]

    def go(self) -> Result:
        fabric, config = self.fabric, self.recipe.training
        done = self.step >= self.steps and not self.unvalidated
        if fabric.is_global_zero and not self.quiet:
            length = f"{len(self.dataset)} pictures, {self.steps} steps of {self.per_step}"
            announce(self.recipe.generator.name, fabric, config.precision, length, self.step, self.steps, done)
        if done:
            return self._result()
        if fabric.is_global_zero:
            tidy(self.folder, self.fresh)
        with (
            stop_on_signal() as self.stop,
            Report(self.folder, self.step, self.steps, self.per_step, fabric.is_global_zero, self.quiet) as report,
        ):
            if self.unvalidated:  # its time has no limit: with less than it takes, the training would never go on
                self._keep(report)
                if self.unvalidated or any_of(fabric, self.stop.asked):
                    return self._result()
            self.stop.limit(self.started, config.max_minutes)
            batches = self._training_batches()
            for step in range(self.step + 1, self.steps + 1):
                self.step = step
                losses = self._train_step(batches)
                self.ema.update(self.generator, self.step)
                logging = self.step % config.log_every == 0 or self.step in (1, self.steps)
                if logging or fabric.world_size == 1:
                    self.skipped.share(report)
                if logging:
                    report.losses(self.step, self._checked(losses), self._rates(), len(self.skipped))
                report.advance(self.step)
                # Asking all processes waits for all of them: now and then is often enough.
                ask = fabric.world_size == 1 or self.step % 10 == 0
                stopping = ask and any_of(fabric, self.stop.asked)
                validating = self.step % self.validate_every == 0 or self.step == self.steps
                if validating or stopping or self.step % config.save_every == 0:
                    self._check_weights(self._checked(losses))  # what is kept must be good
                    self.unvalidated = validating
                    self._save_state()  # first: what comes now takes time, and must not lose the work
                    self._keep(report)
                    stopping = any_of(fabric, self.stop.asked)
                if stopping:
                    break
        return self._result()

    def _keep(self, report: Report) -> None:
        """What others get of the step of the state on disk: its generator and, if that is due, its validation.

        Once the training is to stop, this takes seconds: the generator is measured on fewer batches, and a validation
        that was not finished is made up for when the training goes on.
        """

        def overdue() -> bool:
            return any_of(self.fabric, self.stop.overdue)

        if not self.keeper.save(self.step, overdue):
            report.say("In a hurry: last.safetensors has batch statistics of few batches, until the training goes on.")
        if self.unvalidated and self.keeper.validate(self.step, report, overdue):
            self.unvalidated = False
            self._save_state()

    def _training_batches(self) -> Iterator[Batch]:
        """The batches after step ``self.step``."""
        parts = self.recipe.training.accumulate
        return self.feed.training(self.generator, self.step * parts, self.steps * parts, self.recipe.data.workers)

    def _train_step(self, batches: Iterator[Batch]) -> dict[str, Tensor]:
        """One step of the generator and one of the discriminator, on the same fake images."""
        fabric, parts = self.fabric, self.recipe.training.accumulate
        self._set_rates()
        self.wrapped_g.train()
        self.wrapped_d.train()
        totals: dict[str, Tensor] = {}
        for part in range(parts):
            batch, more = next(batches), part + 1 < parts
            number = (self.step - 1) * parts + part
            with fabric.no_backward_sync(self.wrapped_g, more), fabric.no_backward_sync(self.wrapped_d, more):
                losses = training_step(
                    self.wrapped_g,
                    self.wrapped_d,
                    batch,
                    LabelPyramid(batch.label_map, self.space.num_rows),
                    self.objective,
                    noise=self.chance.noise(self.generator, number, batch),
                    augment=self.chance.augmentation(number, len(batch)),
                    numbers=self.chance.looks(self.discriminator.draws, number, len(batch)),
                    parts=parts,
                    backward=fabric.backward,
                    autocast=fabric.autocast,
                )
            for name, loss in losses.items():
                totals[name] = totals.get(name, 0) + loss / parts
        for optimizer in (self.optimizer_g, self.optimizer_d):
            optimizer.step()
            optimizer.zero_grad()
        return totals

    def _rates(self) -> dict[str, float]:
        factor = lr_factor(self.step - 1, self.steps, self.recipe.optimizer.constant)
        config = self.recipe.optimizer
        return {"generator": factor * config.lr_generator, "discriminator": factor * config.lr_discriminator}

    def _set_rates(self) -> None:
        rates = self._rates()
        for optimizer, rate in ((self.optimizer_g, rates["generator"]), (self.optimizer_d, rates["discriminator"])):
            for group in optimizer.param_groups:
                group["lr"] = rate

    def _checked(self, losses: dict[str, Tensor]) -> dict[str, float]:
        """Losses as numbers, their means over all processes."""
        means = total(self.fabric, torch.stack(list(losses.values()))) / self.fabric.world_size
        values = dict(zip(losses, means.tolist(), strict=True))
        self._require(
            all(math.isfinite(value) for value in values.values()), f"losses are no longer numbers ({values})"
        )
        return values

    def _check_weights(self, losses: dict[str, float]) -> None:
        """The step after good losses may be the one that spoils the weights."""
        good = torch.ones((), dtype=torch.bool, device=self.fabric.device)
        for module in (self.generator, self.discriminator):
            for value in module.state_dict().values():
                good &= value.isfinite().all()
        self._require(bool(good), f"weights are no longer numbers (losses were {losses})")

    def _require(self, good: bool, what: str) -> None:
        if any_of(self.fabric, not good):
            kept = "The last state in {} is from before" if (self.folder / STATE).exists() else "No state is in {} yet"
            raise CladeError(
                f"Step {self.step}: the {what}. {kept.format(self.folder)}. Try a smaller optimizer.lr_generator and "
                "optimizer.lr_discriminator, or training.precision=fp32."
            )

    def _save_state(self) -> None:
        """What a state leaves open: ``unvalidated``, the validation of its step. Its generator may be older."""
        if self.fabric.is_global_zero:
            modules = {"generator": self.generator, "discriminator": self.discriminator, "ema": self.ema.generator}
            optimizers = {"optimizer_g": self.optimizer_g, "optimizer_d": self.optimizer_d}
            facts = {
                "step": self.step,
                "steps": self.steps,
                "best": self.keeper.best,
                "unvalidated": self.unvalidated,
                "per_step": self.per_step,
                "pictures": len(self.dataset),
                "threads": torch.get_num_threads(),
                "precision": self.precision,
                "data": self.files,
                "recipe": self.recipe.to_dict(),
            }
            save_state(self.folder / STATE, modules, optimizers, facts)
        self.fabric.barrier()

    def _resume(self, path: Path) -> None:
        facts = read_facts(path)
        changed = changes(facts, self.recipe.to_dict(), self.files, self.per_step, len(self.dataset))
        if changed:
            listed = ", ".join(changed[:5])
            raise RecipeError(
                f"{self.folder} holds a training by another recipe: {listed}. "
                "Use the same recipe to go on, another --out, or --fresh to begin anew there."
            )
        modules = {"generator": self.generator, "discriminator": self.discriminator, "ema": self.ema.generator}
        load_state(path, modules, {"optimizer_g": self.optimizer_g, "optimizer_d": self.optimizer_d})
        self.step, self.keeper.best, self.unvalidated = facts["step"], facts["best"], facts["unvalidated"]
        note = precision_note(facts, self.recipe.training.precision, self.precision)
        if note and self.fabric.is_global_zero and not self.quiet:
            print(note, file=sys.stderr)

    def _result(self) -> Result:
        return Result(
            folder=self.folder,
            step=self.step,
            steps=self.steps,
            best=self.keeper.best,
            rank=self.fabric.global_rank,
            skipped=len(self.skipped),
            unvalidated=self.unvalidated,
        )
