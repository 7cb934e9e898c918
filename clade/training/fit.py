"""The training loop, on Lightning Fabric."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import Tensor

from clade.checkpoints import save
from clade.config import Recipe
from clade.data import Batch
from clade.errors import CladeError, RecipeError
from clade.images import save_png
from clade.labels import LabelPyramid
from clade.models import Generator
from clade.processor import resolve_precision
from clade.scoring import SCORES
from clade.training.builders import (
    build_discriminator,
    build_generator,
    build_objective,
    build_optimizer,
    initialize,
    lr_factor,
)
from clade.training.calibration import calibrated
from clade.training.checks import check_batch, data_facts, weights_facts
from clade.training.diff_augment import DiffAugment, augmentation_numbers, parse_policy
from clade.training.ema import Ema
from clade.training.feed import Feed
from clade.training.folder import BEST, LAST, STATE, changes, precision_note, tidy
from clade.training.launch import make_fabric
from clade.training.report import Report
from clade.training.signals import stop_on_signal
from clade.training.state import load_state, read_facts, save_state
from clade.training.step import (
    TrainableDiscriminator,
    TrainableGenerator,
    latent_noise,
    look_numbers,
    noise_seed,
    training_step,
)
from clade.training.validation import absolute_error, build_scores, draw_mean, sample_sheet, scored, spread


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
    """

    folder: Path
    step: int
    steps: int
    best: float | None
    rank: int = 0
    skipped: int = 0

    @property
    def finished(self) -> bool:
        return self.step >= self.steps


def train(recipe: Recipe, out: str | Path | None = None, *, fresh: bool = False, quiet: bool = False) -> Result:
    """Train by a recipe; go on where an earlier call with the same folder stopped, exactly.

    Ctrl-C (SIGINT) and SIGTERM finish the step, save and return. After a kill the run repeats the steps since the last
    saved state, with the same result: on the CPU, with the same number of threads, bit for bit.

    Args:
        recipe: what to train on what.
        out: folder of the run; by default runs/NAME.
        fresh: begin anew even if the folder holds a training.
        quiet: no progress bar.

    Raises:
        CladeError: data, recipe or folder cannot be used as they are; or the losses stopped being numbers.
    """
    folder = Path(out) if out is not None else Path("runs") / recipe.name
    if folder.exists() and not folder.is_dir():
        raise CladeError(f"{folder}: is a file; a folder is needed for the training.")
    fabric = make_fabric(recipe)
    fabric.launch()
    if recipe.training.threads is not None:
        torch.set_num_threads(recipe.training.threads)  # after the launch, which sets a number of its own
    try:
        return _Run(recipe, folder, fabric, fresh=fresh, quiet=quiet).go()
    except RuntimeError as error:
        if fabric.world_size > 1 and "peer" in str(error):
            raise CladeError("Another process of this training has stopped; its own message says why.") from error
        raise


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
        if fabric.device.type == "cpu":
            from clade.engine.pages import keep_pages  # not for every command that only looks at a recipe

            keep_pages()
        self.policy = parse_policy(recipe.discriminator.diff_augment)
        self.feed = Feed(recipe, folder, fabric, fresh=fresh, quiet=quiet)
        self.dataset, self.validation, self.skipped = self.feed.dataset, self.feed.validation, self.feed.skipped
        self.space, self.edges = self.dataset.label_space, self.feed.edges
        self.files = data_facts(recipe.data, self.dataset)  # now: a file may change while this runs
        with fabric.rank_zero_first():  # the others then find the real photos' statistics on disk
            self.scores = build_scores(recipe, self.dataset, self.validation, fabric.device)
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
        self.files["weights"] = weights_facts(self.objective, self.scores)
        self.optimizer_g = build_optimizer(recipe.optimizer, self.generator, recipe.optimizer.lr_generator)
        self.optimizer_d = build_optimizer(recipe.optimizer, self.discriminator, recipe.optimizer.lr_discriminator)
        self.ema = Ema(self.generator, config.ema)
        check_batch(self.generator, recipe.data.size, config.batch_size * fabric.world_size)
        self.per_step = config.batch_size * fabric.world_size * config.accumulate
        self.steps = config.steps or math.ceil(config.epochs * len(self.dataset) / self.per_step)
        self.validate_every = max(1, round(config.validate_every * len(self.dataset) / self.per_step))
        self.step, self.best, self.unvalidated = 0, None, False
        self._made: tuple[int, Generator | None] = (-1, None)
        self.fresh = fresh
        if not fresh and (folder / STATE).exists():
            self._resume(folder / STATE)
        self.wrapped_g = fabric.setup(TrainableGenerator(self.generator), self.optimizer_g)[0]
        judge = TrainableDiscriminator(self.discriminator, self.objective, self.edges)
        self.wrapped_d = fabric.setup(judge, self.optimizer_d)[0]

    def go(self) -> Result:
        if self.step and self.fabric.is_global_zero and not self.quiet:
            done = self.step >= self.steps
            print(f"{'Already finished' if done else 'Going on'}: step {self.step} of {self.steps}.", file=sys.stderr)
        if self.step >= self.steps and not self.unvalidated:
            return self._result()
        fabric, config = self.fabric, self.recipe.training
        if fabric.is_global_zero:
            tidy(self.folder, self.fresh)
        with (
            stop_on_signal() as stop,
            Report(self.folder, self.step, self.steps, fabric.is_global_zero, self.quiet) as report,
        ):
            if self.unvalidated:
                self._validate(report)
                self._save_state()
            batches = self._training_batches()
            for step in range(self.step + 1, self.steps + 1):
                self.step = step
                losses = self._train_step(batches)
                self.ema.update(self.generator, self.step)
                logging = self.step % config.log_every == 0 or self.step in (1, self.steps)
                if logging or fabric.world_size == 1:
                    self.skipped.share(report)
                if logging:
                    checked = self._checked(losses)
                    report.losses(self.step, checked, self.per_step, self._rates(), len(self.skipped))
                report.advance(self.step)
                late = config.max_minutes is not None and time.monotonic() - self.started > config.max_minutes * 60
                # Asking all processes waits for all of them: now and then is often enough.
                ask = fabric.world_size == 1 or self.step % 10 == 0
                stopping = ask and self._any(stop.requested or late)
                validating = self.step % self.validate_every == 0 or self.step == self.steps
                saving = validating or stopping or self.step % config.save_every == 0
                if saving:
                    self._check_weights(self._checked(losses))  # what is kept must be good
                    self.unvalidated = validating  # saved before, so that no validation can lose the work
                    self._save_generator(LAST, None)
                    self._save_state()
                if validating:
                    self._validate(report)
                    self._save_state()
                if stopping:
                    break
        return self._result()

    def _training_batches(self) -> Iterator[Batch]:
        """The batches after step ``self.step``."""
        parts = self.recipe.training.accumulate
        return self.feed.training(self.generator, self.step * parts, self.steps * parts, self.recipe.data.workers)

    def _measured(self) -> Generator:
        """What is validated and saved: the averaged generator with BatchNorm statistics of its own, once per step.

        A copy, measured on always the same batches: when and how often it is made changes nothing in the training.
        """
        if self._made[0] != self.step:

            def draw(generator: Generator, batch: Batch, number: int) -> None:
                with self.fabric.autocast():
                    TrainableGenerator(generator)(batch.label_map, batch.image, self._noise(number, batch))

            batches = self.feed.training(self.generator, 0, self.recipe.training.calibrate)
            self._made = (self.step, calibrated(self.ema.generator, batches, draw))
        assert self._made[1] is not None
        return self._made[1]

    def _train_step(self, batches: Iterator[Batch]) -> dict[str, Tensor]:
        """One step of the generator and one of the discriminator, on the same fake images."""
        fabric, parts = self.fabric, self.recipe.training.accumulate
        self._set_rates()
        self.wrapped_g.train()
        self.wrapped_d.train()
        totals: dict[str, Tensor] = {}
        for part in range(parts):
            batch, more = next(batches), part + 1 < parts
            with fabric.no_backward_sync(self.wrapped_g, more), fabric.no_backward_sync(self.wrapped_d, more):
                losses = training_step(
                    self.wrapped_g,
                    self.wrapped_d,
                    batch,
                    LabelPyramid(batch.label_map, self.space.num_rows),
                    self.objective,
                    noise=self._noise((self.step - 1) * parts + part, batch),
                    augment=self._augmentation((self.step - 1) * parts + part, len(batch)),
                    numbers=self._numbers((self.step - 1) * parts + part, len(batch)),
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

    def _noise(self, number: int, batch: Batch) -> Tensor | None:
        """Latent noise of a micro-batch of the training; also seeds what the generator draws by itself."""
        seed = noise_seed(self.recipe.training.seed, number)
        rank, world = self.fabric.global_rank, self.fabric.world_size
        if self.generator.stochastic:
            torch.manual_seed((seed * world + rank) % 2**63)
        shape = self.generator.latent_shape(batch.label_map.size)
        return None if shape is None else latent_noise(seed, len(batch), shape, rank, world).to(self.fabric.device)

    def _augmentation(self, number: int, count: int) -> DiffAugment | None:
        """What a micro-batch's images go through before the discriminator sees them."""
        if not self.policy:
            return None
        rank, world = self.fabric.global_rank, self.fabric.world_size
        return DiffAugment(self.policy, augmentation_numbers(self.recipe.training.seed, number, count, rank, world))

    def _numbers(self, number: int, count: int) -> Tensor | None:
        """What the discriminator draws for a micro-batch."""
        draws, fabric = self.discriminator.draws, self.fabric
        if not draws:
            return None
        seed, rank, world = self.recipe.training.seed, fabric.global_rank, fabric.world_size
        return look_numbers(seed, number, count, draws, rank, world).to(fabric.device)

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
        means = self._sum(torch.stack(list(losses.values()))) / self.fabric.world_size
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
        if self._any(not good):
            kept = "The last state in {} is from before" if (self.folder / STATE).exists() else "No state is in {} yet"
            raise CladeError(
                f"Step {self.step}: the {what}. {kept.format(self.folder)}. Try a smaller optimizer.lr_generator and "
                "optimizer.lr_discriminator, or training.precision=fp32."
            )

    def _validate(self, report: Report) -> None:
        config, feed, fabric = self.recipe.training, self.feed, self.fabric
        generator = self._measured()  # by all processes together: one may have nothing to validate on

        def draw(batch: Batch) -> Tensor:
            with fabric.autocast():
                return draw_mean(generator, batch, config.seed)

        rank, world = fabric.global_rank, fabric.world_size
        mine = feed.evaluation(self.generator, self.validation, config.batch_size, rank, world)
        seen = None if self.scores is None else scored(self.scores, generator, fabric.autocast)
        error, count = self._sum(absolute_error(draw, mine, seen))
        if not count:
            feed.require_validation()
        scores = {"l1": float(error / count), **({} if self.scores is None else self.scores.compute()[0])}
        score = scores[config.best_by]
        if SCORES[config.best_by].better(score, self.best):
            self.best = score
            self._save_generator(BEST, scores)
        if fabric.is_global_zero:
            shown = spread(self.validation, config.samples)
            picture = sample_sheet(draw, feed.evaluation(self.generator, shown, 1), self.space)
            if picture is not None:
                save_png(picture, self.folder / "samples" / f"step-{self.step:07d}.png")
            assert self.best is not None
            report.validation(self.step, scores, self.best, picture, config.best_by)
        self.skipped.share(report)
        self.unvalidated = False

    def _save_state(self) -> None:
        """Always after the generators of the same step: what the state says is done must be there."""
        if self.fabric.is_global_zero:
            modules = {"generator": self.generator, "discriminator": self.discriminator, "ema": self.ema.generator}
            optimizers = {"optimizer_g": self.optimizer_g, "optimizer_d": self.optimizer_d}
            facts = {
                "step": self.step,
                "steps": self.steps,
                "best": self.best,
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

    def _save_generator(self, name: str, scores: Mapping[str, float] | None) -> None:
        generator = self._measured()  # by all processes together
        if self.fabric.is_global_zero:
            epoch = self.step * self.per_step / len(self.dataset)
            info = {"step": self.step, "epoch": round(epoch, 3), "precision": self.precision, "val_l1": None}
            info |= {f"val_{key}": value for key, value in (scores or {}).items()}
            save(generator, self.folder / name, self.space, self.recipe, info)

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
        self.step, self.best, self.unvalidated = facts["step"], facts["best"], facts["unvalidated"]
        note = precision_note(facts, self.recipe.training.precision, self.precision)
        if note and self.fabric.is_global_zero and not self.quiet:
            print(note, file=sys.stderr)
        if self.fabric.is_global_zero and not self.quiet and facts["threads"] != torch.get_num_threads():
            print(
                f"Note: this training ran with {facts['threads']} CPU threads, now {torch.get_num_threads()}. "
                "Results stay valid, but are not bit-identical; set training.threads for that."
            )

    def _any(self, flag: bool) -> bool:
        """Whether any process says so."""
        return flag if self.fabric.world_size == 1 else bool(self._sum(torch.tensor([float(flag)]))[0] > 0)

    def _sum(self, value: Tensor) -> Tensor:
        if self.fabric.world_size == 1:
            return value
        reduced = self.fabric.all_reduce(value.to(self.fabric.device), reduce_op="sum")
        assert isinstance(reduced, Tensor)
        return reduced.cpu()

    def _result(self) -> Result:
        return Result(
            folder=self.folder,
            step=self.step,
            steps=self.steps,
            best=self.best,
            rank=self.fabric.global_rank,
            skipped=len(self.skipped),
        )
