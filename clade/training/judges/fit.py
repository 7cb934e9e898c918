"""The training loop of a judge, on Lightning Fabric."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from clade.data import Batch, eval_loader, train_loader
from clade.errors import CladeError, DataError, RecipeError
from clade.metrics import ignored_number
from clade.metrics.judges.trained import Architecture, TrainedJudge, load_encoder
from clade.recipes import Recipe, TrainingConfig
from clade.system.processor import resolve_precision
from clade.training.builders import build_augment, build_dataset, build_weights
from clade.training.checks import check_classes, check_parts, data_facts
from clade.training.ema import Ema
from clade.training.folder import BEST, LAST, STATE, precision_note, tidy
from clade.training.judges.changes import changes
from clade.training.judges.losses import Learner, cross_entropy, dice, freeze_unused, step_size
from clade.training.judges.recipe import JudgeRecipe
from clade.training.judges.scoring import Ceiling, ceiling_of, confusion_of
from clade.training.launch import launched
from clade.training.processes import any_of, total
from clade.training.report import Report, announce
from clade.training.signals import Hurried, Stop, stop_on_signal
from clade.training.skipped import Skipped
from clade.training.state import load_state, read_facts, save_state
from clade.training.step import noise_seed


@dataclass(frozen=True)
class Result:
    """What a call of :func:`train_judge` came to.

    Args:
        folder: the run's folder, with last.safetensors, best.safetensors, state.safetensors, tensorboard/.
        step: steps done so far.
        steps: steps of the whole training.
        best: the largest mIoU on held-out photos so far, None before the first validation.
        rank: which process this is; only rank 0 has written files.
        unvalidated: it was stopped before the validation of this step was done; going on begins with that.
    """

    folder: Path
    step: int
    steps: int
    best: float | None
    rank: int = 0
    unvalidated: bool = False

    @property
    def finished(self) -> bool:
        return self.step >= self.steps and not self.unvalidated


def train_judge(
    recipe: JudgeRecipe, out: str | Path | None = None, *, fresh: bool = False, quiet: bool = False
) -> Result:
    """Train a segmenter by a recipe; go on where an earlier call with the same folder stopped, exactly.

    Ctrl-C (SIGINT) and SIGTERM finish the step, save and return. After a kill the run repeats the steps since the last
    saved state.

    Args:
        recipe: what to train on what.
        out: folder of the run; by default runs/judge-NAME.
        fresh: begin anew even if the folder holds a training.
        quiet: no progress bar.

    Raises:
        CladeError: data, recipe or folder cannot be used as they are; or the loss stopped being a number.
    """
    folder = Path(out) if out is not None else Path("runs") / f"judge-{recipe.name}"
    config = recipe.training
    shared = {key: getattr(config, key) for key in ("devices", "accelerator", "precision", "threads")}
    with launched(Recipe(training=TrainingConfig(**shared)), folder, fresh=fresh, quiet=quiet) as fabric:
        return _Run(recipe, folder, fabric, fresh=fresh, quiet=quiet).go()


class _Run:
    """One call of :func:`train_judge`: everything built once, then the loop."""

    def __init__(self, recipe: JudgeRecipe, folder: Path, fabric: Fabric, *, fresh: bool, quiet: bool) -> None:
        self.recipe, self.folder, self.fabric, self.fresh, self.quiet = recipe, folder, fabric, fresh, quiet
        config, data = recipe.training, recipe.data
        self.precision = resolve_precision(config.precision, fabric.device)
        self.started = time.monotonic()
        self.dataset = build_dataset(data, data.train_split)
        self.validation = build_dataset(data, data.val_split)
        check_parts(data, self.dataset, self.validation)
        check_classes(self.dataset, self.validation)
        self.space = self.dataset.label_space
        self.files = data_facts(data, self.dataset)  # now: a file may change while this runs
        self.skipped = Skipped(folder, fabric, fresh=fresh)
        self.weights = build_weights(data, self.dataset, progress=fabric.is_global_zero and not quiet)
        self.architecture = Architecture(
            name=recipe.network.architecture, encoder=recipe.network.encoder, options=recipe.network.options
        )
        torch.manual_seed(config.seed)
        self.network = self.architecture.build(self.space.num_classes)
        resuming = not fresh and (folder / STATE).exists()
        if recipe.network.weights is not None and not resuming:
            load_encoder(self.network, recipe.network.weights)
        self.network.to(fabric.device)
        freeze_unused(self.network, data.size)
        self.optimizer = torch.optim.AdamW(
            [p for p in self.network.parameters() if p.requires_grad],
            lr=recipe.learning.lr,
            weight_decay=recipe.learning.weight_decay,
            fused=True,
        )
        self.ema = Ema(self.network, config.ema)  # pyright: ignore[reportArgumentType]  # any module will do
        self.per_step = config.batch_size * fabric.world_size
        self.steps = config.steps or math.ceil(config.epochs * len(self.dataset) / self.per_step)
        self.validate_every = max(1, round(config.validate_every * len(self.dataset) / self.per_step))
        self.step, self.best, self.unvalidated, self.stop = 0, None, False, Stop()
        if resuming:
            self._resume(folder / STATE)
        self.learner = fabric.setup(Learner(self.network), self.optimizer)[0]

    def go(self) -> Result:
        fabric, config = self.fabric, self.recipe.training
        done = self.step >= self.steps and not self.unvalidated
        if fabric.is_global_zero and not self.quiet:
            length = f"{len(self.dataset)} pictures, {self.steps} steps of {self.per_step}"
            announce(self.architecture.name, fabric, config.precision, length, self.step, self.steps, done)
        if done:
            return self._result()
        if fabric.is_global_zero:
            tidy(self.folder, self.fresh)
        with (
            stop_on_signal() as self.stop,
            Report(self.folder, self.step, self.steps, self.per_step, fabric.is_global_zero, self.quiet) as report,
        ):
            if self.unvalidated:  # its time has no limit: with less than it takes, the training would never go on
                self._validate(report)
                if self.unvalidated or any_of(fabric, self.stop.asked):
                    return self._result()
            self.stop.limit(self.started, config.max_minutes)
            batches = self._training_batches(self.step)
            for step in range(self.step + 1, self.steps + 1):
                self.step = step
                losses = self._train_step(next(batches))
                self.ema.update(self.network, step)
                logging = step % config.log_every == 0 or step in (1, self.steps)
                if logging or fabric.world_size == 1:
                    self.skipped.share(report)
                if logging:
                    rates = {"judge": self.optimizer.param_groups[0]["lr"]}
                    report.losses(step, self._checked(losses), rates, len(self.skipped))
                report.advance(step)
                # Asking all processes waits for all of them: now and then is often enough.
                ask = fabric.world_size == 1 or step % 10 == 0
                stopping = ask and any_of(fabric, self.stop.asked)
                validating = step % self.validate_every == 0 or step == self.steps
                if validating or stopping or step % config.save_every == 0:
                    self._checked(losses)  # what is kept must be good
                    self.unvalidated = validating
                    self._save_judge(LAST, None)
                    self._save_state()  # before the validation, which takes time and must not lose the work
                    if validating:
                        self._validate(report)
                    stopping = any_of(fabric, self.stop.asked)
                if stopping:
                    break
        return self._result()

    def _training_batches(self, start: int) -> Iterator[Batch]:
        """The batches after step ``start``."""
        data, config, fabric = self.recipe.data, self.recipe.training, self.fabric
        loader = train_loader(
            self.dataset,
            size=data.size,
            batch_size=config.batch_size,
            augment=build_augment(data),
            seed=config.seed,
            with_positions=False,
            instances=False,
            rank=fabric.global_rank,
            world_size=fabric.world_size,
            start=start,
            stop=self.steps,
            workers=data.workers,
            pin_memory=fabric.device.type == "cuda",
            weights=self.weights,
            on_skip=self.skipped.add if data.on_error == "skip" else None,
        )
        for batch in loader:
            if batch.image is None:
                raise DataError("The training data hold no photos; images/ is needed beside labels/.")
            yield batch.to(fabric.device, non_blocking=True)

    def _train_step(self, batch: Batch) -> dict[str, Tensor]:
        assert batch.image is not None
        learning, config, fabric = self.recipe.learning, self.recipe.training, self.fabric
        rate = learning.lr * step_size(learning.schedule, self.step - 1, self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        # For dropout: from the step alone, so that a resumed training drops what the other would.
        torch.manual_seed((noise_seed(config.seed, self.step) * fabric.world_size + fabric.global_rank) % 2**63)
        self.learner.train()
        truth, ignored = batch.label_map.ids.long(), ignored_number(self.space.num_classes)
        truth = truth.masked_fill(truth >= self.space.num_classes, ignored)
        logits = self._logits(batch.image.contiguous(memory_format=torch.channels_last))
        losses = {"cross_entropy": cross_entropy(logits, truth, ignored)}
        loss = losses["cross_entropy"]
        if learning.dice:
            losses["dice"] = dice(logits, truth, ignored)
            loss = loss + learning.dice * losses["dice"]
        fabric.backward(loss)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return {name: value.detach() for name, value in losses.items()}

    def _logits(self, image: Tensor) -> Tensor:
        try:
            return self.learner(image).float()
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise RecipeError(
                f"'{self.recipe.network.architecture}' pools a picture to a single value per channel, and BatchNorm "
                f"cannot learn from {len(image)} of them. Set training.batch_size to at least 2."
            ) from error

    def _validate(self, report: Report) -> None:
        """Score the averaged network on the held-out photos, through the same judge that a reader of the file gets.

        Once a stop is overdue it is given up, and the training begins with it when it goes on.
        """
        data, fabric = self.recipe.data, self.fabric
        if fabric.world_size > 1:
            for value in self.ema.generator.state_dict().values():
                torch.distributed.broadcast(value, 0)  # each process has its own BatchNorm statistics
        judge = self._judge({})
        batches = eval_loader(
            self.validation,
            size=data.size,
            batch_size=self.recipe.training.batch_size,
            with_positions=False,
            instances=False,
            rank=fabric.global_rank,
            world_size=fabric.world_size,
            fit=data.fit,  # pyright: ignore[reportArgumentType]  # checked by the recipe
            on_skip=self.skipped.add if data.on_error == "skip" else None,
        )
        most = math.ceil(math.ceil(len(self.validation) / fabric.world_size) / self.recipe.training.batch_size)
        mine = Hurried(batches, most, lambda: any_of(fabric, self.stop.overdue))
        counts = total(fabric, confusion_of(judge.predict, judge, mine, self.space.num_classes))
        if mine.cut:
            return
        ceiling = ceiling_of(counts, self.space.names)
        improved = self.best is None or ceiling.miou > self.best
        if improved:
            self.best = ceiling.miou
            self._save_judge(BEST, ceiling)
        self._save_judge(LAST, ceiling)
        self.skipped.share(report)
        if report.writer is not None:
            report.writer.add_scalar("val/miou", ceiling.miou, self.step)
            report.writer.add_scalar("val/accuracy", ceiling.accuracy, self.step)
        report.say(
            f"step {self.step}: mIoU {ceiling.miou:.4f}, pixel accuracy {ceiling.accuracy:.4f}, "
            f"best mIoU {self.best:.4f}"
        )
        self.unvalidated = False
        self._save_state()

    def _judge(self, info: Mapping[str, Any]) -> TrainedJudge:
        recipe = self.recipe
        return TrainedJudge(
            self.ema.generator,
            self.architecture,
            self.space,
            recipe.data.size,
            recipe.name,
            recipe=recipe.to_dict(),
            info=info,
        )

    def _save_judge(self, name: str, ceiling: Ceiling | None) -> None:
        if self.fabric.is_global_zero:
            info = {
                "step": self.step,
                "epoch": round(self.step * self.per_step / len(self.dataset), 3),
                "precision": self.precision,
                "split": self.recipe.data.val_split,
                "ceiling": None if ceiling is None else ceiling.to_dict(),
            }
            self._judge(info).save(self.folder / name)

    def _save_state(self) -> None:
        """Always after the judge of the same step: what the state says is done must be there."""
        if self.fabric.is_global_zero:
            facts = {
                "kind": "judge",
                "step": self.step,
                "best": self.best,
                "unvalidated": self.unvalidated,
                "threads": torch.get_num_threads(),
                "per_step": self.per_step,
                "pictures": len(self.dataset),
                "precision": self.precision,
                "data": self.files,
                "recipe": self.recipe.to_dict(),
            }
            modules = {"network": self.network, "ema": self.ema.generator}
            save_state(self.folder / STATE, modules, {"optimizer": self.optimizer}, facts)
        self.fabric.barrier()

    def _resume(self, path: Path) -> None:
        facts = read_facts(path)
        if facts.get("kind") != "judge":
            raise RecipeError(f"{self.folder} holds the training of a generator. Use another --out for the judge.")
        changed = changes(facts, self.recipe.to_dict(), self.files, self.per_step, len(self.dataset))
        if changed:
            listed = ", ".join(changed[:5])
            raise RecipeError(
                f"{self.folder} holds a training by another recipe: {listed}. "
                "Use the same recipe to go on, another --out, or --fresh to begin anew there."
            )
        load_state(path, {"network": self.network, "ema": self.ema.generator}, {"optimizer": self.optimizer})
        self.step, self.best = facts["step"], facts["best"]
        self.unvalidated = facts.get("unvalidated", False)  # older states were written after it
        note = precision_note(facts, self.recipe.training.precision, self.precision)
        if note and self.fabric.is_global_zero and not self.quiet:
            print(note, file=sys.stderr)

    def _checked(self, losses: Mapping[str, Tensor]) -> dict[str, float]:
        """Losses as numbers, their means over all processes."""
        good = torch.stack([value.isfinite().all() for value in self.network.state_dict().values()]).all()
        values = torch.stack([*losses.values(), good.to(next(iter(losses.values())).dtype)])
        *means, good_everywhere = (total(self.fabric, values.cpu()) / self.fabric.world_size).tolist()
        named = dict(zip(losses, means, strict=True))
        if good_everywhere < 1 or not all(math.isfinite(value) for value in means):
            raise CladeError(
                f"Step {self.step}: losses or weights are no longer numbers ({named}). Try a smaller learning.lr, or "
                "training.precision=fp32."
            )
        return named

    def _result(self) -> Result:
        return Result(self.folder, self.step, self.steps, self.best, self.fabric.global_rank, self.unvalidated)
