"""The training loop, on Lightning Fabric."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from clade.checkpoints import save
from clade.config import Recipe
from clade.data import Batch, Dataset, eval_loader, train_loader
from clade.errors import CladeError, RecipeError
from clade.images import save_png
from clade.labels import LabelPyramid
from clade.training.builders import (
    build_augment,
    build_dataset,
    build_discriminator,
    build_generator,
    build_objective,
    build_optimizer,
    lr_factor,
)
from clade.training.ema import Ema
from clade.training.report import Report
from clade.training.signals import stop_on_signal
from clade.training.state import load_state, read_facts, save_state
from clade.training.step import TrainableGenerator, discriminator_step, generator_step, latent_noise
from clade.training.validation import absolute_error, draw_mean, sample_sheet, spread

STATE, LAST, BEST = "state.safetensors", "last.safetensors", "best.safetensors"

# What may change between the parts of one training without making it another one.
_FREE = {
    "name",
    "data.root",
    "data.workers",
    "data.cache_mib",
    "training.max_minutes",
    "training.save_every",
    "training.log_every",
    "training.samples",
    "training.threads",
    "training.accelerator",
}


@dataclass(frozen=True)
class Result:
    """What a call of :func:`train` came to.

    Args:
        folder: the run's folder, with last.safetensors, best.safetensors, state.safetensors, samples/, tensorboard/.
        step: steps done so far.
        steps: steps of the whole training.
        best: smallest validation error so far, None before the first validation.
        rank: which process this is; only rank 0 has written files.
    """

    folder: Path
    step: int
    steps: int
    best: float | None
    rank: int = 0

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
    config = recipe.training
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    fabric = _fabric(recipe)
    fabric.launch()
    return _Run(recipe, folder, fabric, fresh=fresh, quiet=quiet).go()


def stepper(recipe: Recipe, folder: Path) -> Callable[[], object]:
    """A function that does one training step each time it is called: for measuring, nothing is saved."""
    run = _Run(recipe, folder, _fabric(recipe), fresh=True, quiet=True)
    batches = run._batches(0)

    def step() -> None:
        run.step += 1
        run._train_step(batches)
        run.ema.update(run.generator, run.step)

    return step


def _fabric(recipe: Recipe) -> Fabric:
    config = recipe.training
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it announces the precision on every start
    return Fabric(
        accelerator=config.accelerator,
        devices=config.devices,
        strategy="ddp" if config.devices > 1 else "auto",
        precision="bf16-mixed" if config.precision == "bf16" else "32-true",
    )


class _Run:
    """One call of :func:`train`: everything built once, then the loop."""

    def __init__(self, recipe: Recipe, folder: Path, fabric: Fabric, *, fresh: bool, quiet: bool) -> None:
        self.recipe, self.folder, self.fabric, self.quiet = recipe, folder, fabric, quiet
        config = recipe.training
        self.started = time.monotonic()
        self.dataset = build_dataset(recipe.data, recipe.data.train_split)
        self.validation = build_dataset(recipe.data, recipe.data.val_split)
        self.space = self.dataset.label_space
        if self.validation.label_space.num_rows != self.space.num_rows:
            raise RecipeError("Training and validation data have different classes; both need the same classes.json.")
        self.edges = recipe.generator.instance_edges
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.generator = build_generator(recipe.generator, self.space, recipe.data.size)
            self.discriminator = build_discriminator(recipe.discriminator, self.space, self.edges)
        self.objective = build_objective(recipe.losses)
        if self.objective.vgg is not None:
            self.objective.vgg.to(fabric.device)
        self.optimizer_g = build_optimizer(recipe.optimizer, self.generator, recipe.optimizer.lr_generator)
        self.optimizer_d = build_optimizer(recipe.optimizer, self.discriminator, recipe.optimizer.lr_discriminator)
        self.ema = Ema(self.generator.to(fabric.device), config.ema)
        self.per_step = config.batch_size * fabric.world_size * config.accumulate
        self.steps = config.steps or math.ceil(config.epochs * len(self.dataset) / self.per_step)
        self.validate_every = max(1, round(config.validate_every * len(self.dataset) / self.per_step))
        self.step, self.best = 0, None
        self._resume(fresh)
        self.wrapped_g = fabric.setup(TrainableGenerator(self.generator), self.optimizer_g)[0]
        self.wrapped_d = fabric.setup(self.discriminator, self.optimizer_d)[0]

    def go(self) -> Result:
        if self.step >= self.steps:
            return self._result()
        fabric, config = self.fabric, self.recipe.training
        with (
            stop_on_signal() as stop,
            Report(self.folder, self.step, self.steps, fabric.is_global_zero, self.quiet) as report,
        ):
            done = self.step
            batches = self._batches(done)
            for step in range(done + 1, self.steps + 1):
                self.step = step
                losses = self._train_step(batches)
                self.ema.update(self.generator, self.step)
                if self.step % config.log_every == 0 or self.step in (1, self.steps):
                    report.losses(self.step, self._checked(losses), self.per_step, self._rates())
                report.advance(self.step)
                late = config.max_minutes is not None and time.monotonic() - self.started > config.max_minutes * 60
                stopping = self._any(stop.requested or late)
                if self.step % self.validate_every == 0 or self.step == self.steps:
                    self._validate(report)
                if self.step % config.save_every == 0 or self.step == self.steps or stopping:
                    self._checked(losses)
                    self._save()
                if stopping:
                    break
        return self._result()

    def _batches(self, done: int) -> Iterator[Batch]:
        """The batches after step ``done``."""
        data, config, fabric = self.recipe.data, self.recipe.training, self.fabric
        loader = train_loader(
            self.dataset,
            size=data.size,
            batch_size=config.batch_size,
            augment=build_augment(data),
            seed=config.seed,
            with_positions=self.generator.uses_positions,
            instances=self.edges,
            rank=fabric.global_rank,
            world_size=fabric.world_size,
            start=done * config.accumulate,
            stop=self.steps * config.accumulate,
            workers=data.workers,
            pin_memory=fabric.device.type == "cuda",
        )
        for batch in loader:
            if batch.image is None:
                raise CladeError("The training data hold no photos; images/ is needed beside labels/.")
            yield batch.to(fabric.device, non_blocking=True)

    def _train_step(self, batches: Iterator[Batch]) -> dict[str, Tensor]:
        """One step of the generator, then one of the discriminator on the same fake images."""
        fabric, config = self.fabric, self.recipe.training
        self._set_rates()
        self.wrapped_g.train()
        self.wrapped_d.train()
        totals: dict[str, Tensor] = {}
        done: list[tuple[Batch, LabelPyramid, Tensor]] = []
        self.discriminator.requires_grad_(False)  # it passes gradients on, and needs none itself
        for part in range(config.accumulate):
            batch = next(batches)
            labels = LabelPyramid(batch.label_map, self.space.num_rows)
            with fabric.no_backward_sync(self.wrapped_g, enabled=part + 1 < config.accumulate), fabric.autocast():
                fake, losses = generator_step(
                    self.wrapped_g,
                    self.discriminator,
                    batch,
                    labels,
                    self.objective,
                    instance_edges=self.edges,
                    noise=self._noise(part, len(batch)),
                )
                self._backward(losses, totals)
            done.append((batch, labels, fake.detach()))
        self.optimizer_g.step()
        self.optimizer_g.zero_grad()
        self.discriminator.requires_grad_(True)
        for part, (batch, labels, fake) in enumerate(done):
            with fabric.no_backward_sync(self.wrapped_d, enabled=part + 1 < config.accumulate), fabric.autocast():
                losses = discriminator_step(
                    self.wrapped_d, batch, labels, fake, self.objective, instance_edges=self.edges
                )
                self._backward(losses, totals)
        self.optimizer_d.step()
        self.optimizer_d.zero_grad()
        return totals

    def _backward(self, losses: dict[str, Tensor], totals: dict[str, Tensor]) -> None:
        parts = self.recipe.training.accumulate
        self.fabric.backward(torch.stack([loss.float() for loss in losses.values()]).sum() / parts)
        for name, loss in losses.items():
            totals[name] = totals.get(name, 0) + loss.detach().float() / parts

    def _noise(self, part: int, count: int) -> Tensor | None:
        if self.generator.z_dim is None:
            return None
        number = (self.step - 1) * self.recipe.training.accumulate + part
        rank, world = self.fabric.global_rank, self.fabric.world_size
        noise = latent_noise(self.recipe.training.seed, number, count, self.generator.z_dim, rank, world)
        return noise.to(self.fabric.device)

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
        values = {name: float(value) for name, value in losses.items()}
        if self._any(not all(math.isfinite(value) for value in values.values())):
            raise CladeError(
                f"Step {self.step}: the losses are no longer numbers ({values}). The last state in {self.folder} is "
                "from before. Try a smaller optimizer.lr_generator and lr_discriminator, or training.precision=fp32."
            )
        return values

    def _validate(self, report: Report) -> None:
        data, config, fabric = self.recipe.data, self.recipe.training, self.fabric

        def draw(batch: Batch) -> Tensor:
            with fabric.autocast():
                return draw_mean(self.ema.generator, batch)

        def loader(dataset: Dataset, batch_size: int, rank: int, world_size: int) -> Iterable[Batch]:
            batches = eval_loader(
                dataset,
                size=data.size,
                batch_size=batch_size,
                with_positions=self.generator.uses_positions,
                instances=self.edges,
                rank=rank,
                world_size=world_size,
                fit=data.fit,  # pyright: ignore[reportArgumentType]  # checked by the recipe
            )
            return (batch.to(fabric.device) for batch in batches)

        mine = loader(self.validation, config.batch_size, fabric.global_rank, fabric.world_size)
        error, count = self._sum(absolute_error(draw, mine))
        score = float(error / count)
        if self.best is None or score < self.best:
            self.best = score
            self._save_generator(BEST, score)
        if fabric.is_global_zero:
            shown = spread(self.validation, config.samples)
            picture = sample_sheet(draw, loader(shown, 1, 0, 1), self.space)
            save_png(picture, self.folder / "samples" / f"step-{self.step:07d}.png")
            report.validation(self.step, score, self.best, picture)

    def _save(self) -> None:
        self._save_generator(LAST, None)
        if self.fabric.is_global_zero:
            modules = {"generator": self.generator, "discriminator": self.discriminator, "ema": self.ema.generator}
            optimizers = {"optimizer_g": self.optimizer_g, "optimizer_d": self.optimizer_d}
            facts = {
                "step": self.step,
                "steps": self.steps,
                "best": self.best,
                "per_step": self.per_step,
                "threads": torch.get_num_threads(),
                "recipe": self.recipe.to_dict(),
            }
            # The state goes last: what it says is done must be there.
            save_state(self.folder / STATE, modules, optimizers, facts)
        self.fabric.barrier()

    def _save_generator(self, name: str, score: float | None) -> None:
        if self.fabric.is_global_zero:
            epoch = self.step * self.per_step / len(self.dataset)
            info = {"step": self.step, "epoch": round(epoch, 3), "val_l1": score}
            save(self.ema.generator, self.folder / name, self.space, self.recipe, info)

    def _resume(self, fresh: bool) -> None:
        path = self.folder / STATE
        if self.fabric.is_global_zero:
            self.folder.mkdir(parents=True, exist_ok=True)
            for leftover in self.folder.glob(".*.tmp"):  # of a killed run
                leftover.unlink(missing_ok=True)
        if fresh or not path.exists():
            return
        facts = read_facts(path)
        before, now = _flat(facts["recipe"]), _flat(self.recipe.to_dict())
        changed = sorted(k for k in before.keys() | now.keys() if k not in _FREE and before.get(k) != now.get(k))
        if facts["per_step"] != self.per_step and not changed:
            changed = ["training.devices"]
        if changed:
            listed = ", ".join(f"{k} ({before.get(k)} -> {now.get(k)})" for k in changed[:5])
            raise RecipeError(
                f"{self.folder} holds a training by another recipe: {listed}. "
                "Use the same recipe to go on, another --out, or --fresh to begin anew there."
            )
        modules = {"generator": self.generator, "discriminator": self.discriminator, "ema": self.ema.generator}
        load_state(path, modules, {"optimizer_g": self.optimizer_g, "optimizer_d": self.optimizer_d})
        self.step, self.best = facts["step"], facts["best"]
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
            folder=self.folder, step=self.step, steps=self.steps, best=self.best, rank=self.fabric.global_rank
        )


def _flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, content in value.items():
        if isinstance(content, dict):
            flat.update(_flat(content, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = content
    return flat
