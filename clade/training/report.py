"""What a training tells while it runs: progress bar, curves, sample sheets."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import numpy as np
from lightning_fabric import Fabric
from torch.utils.tensorboard import SummaryWriter

from clade.system.processor import resolve_precision
from clade.system.progress import Progress, runs_on


def announce(what: str, fabric: Fabric, precision: str, length: str, step: int, steps: int, done: bool) -> None:
    """The first lines of a training on stderr: what begins where, unless all is ``done``, and where it goes on."""
    if not done:
        place = runs_on(fabric.device, resolve_precision(precision, fabric.device), fabric.world_size)
        print(f"Training {what}: {place}, {length}.", file=sys.stderr, flush=True)
    if step:
        print(f"{'Already finished' if done else 'Going on'}: step {step} of {steps}.", file=sys.stderr, flush=True)


class Report:
    """Progress on stderr (:class:`clade.system.progress.Progress`) and TensorBoard files in ``folder/tensorboard``.

    Args:
        folder: the run's folder.
        step, steps: steps done and to do in all.
        per_step: pictures of each.
        active: False on all processes but the first, which say nothing.
        quiet: no bar and no lines.
    """

    def __init__(self, folder: Path, step: int, steps: int, per_step: int, active: bool, quiet: bool) -> None:
        self.active = active
        self.folder, self.steps, self.first, self.per_step = folder, steps, step, per_step
        self._text, self._last_log = "", (step, time.monotonic())
        self._progress = Progress(
            "step", steps, done=step, unit="images", each=per_step, quiet=quiet or not active, keep=True
        )

    def __enter__(self) -> Report:
        # Points after the step that is resumed from are those of a run that was killed; they will be drawn again.
        self.writer = (
            SummaryWriter(str(self.folder / "tensorboard"), purge_step=self.first + 1) if self.active else None
        )
        self._progress.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.__exit__(kind, error, trace)
        if self.writer is not None:
            self.writer.close()

    def advance(self, step: int) -> None:
        """A step is done; the first and the last one are told of in any case."""
        self._progress.update(step, self._text, always=step in (self.first + 1, self.steps))

    def say(self, text: str) -> None:
        """A line, where not all is quiet."""
        self._progress.say(text)

    def losses(self, step: int, values: dict[str, float], rates: dict[str, float], skipped: int = 0) -> None:
        """One point of the curves: losses by name, images per second, step sizes, files skipped so far (if any)."""
        if self.writer is None:
            return
        now = time.monotonic()
        speed = (step - self._last_log[0]) * self.per_step / max(now - self._last_log[1], 1e-9)
        self._last_log = (step, now)
        for name, value in values.items():
            self.writer.add_scalar(f"loss/{name}", value, step)
        for name, value in rates.items():
            self.writer.add_scalar(f"lr/{name}", value, step)
        self.writer.add_scalar("images_per_second", speed, step)
        self._text = " ".join(f"{name} {value:.2f}" for name, value in values.items())
        if skipped:
            self.writer.add_scalar("skipped_files", skipped, step)
            self._text += f"  {skipped} skipped"

    def skipped(self, message: str) -> None:
        """What is wrong with a file that is skipped: said even where all else is quiet."""
        if self.active:
            self._progress.say(f"Skipped: {message}", always=True)

    def validation(
        self, step: int, scores: Mapping[str, float], best: float, picture: np.ndarray | None, best_by: str = "l1"
    ) -> None:
        """A validation's scores by name, the best so far of one of them, and a sheet of samples, (H, W, 3) uint8."""
        if self.writer is None:
            return
        for name, value in scores.items():
            self.writer.add_scalar(f"val/{name}", value, step)
        if picture is not None:
            self.writer.add_image("val/samples", picture, step, dataformats="HWC")
        self.writer.flush()
        others = "".join(f", {name} {value:.4f}" for name, value in scores.items() if name != "l1")
        by = "" if best_by == "l1" else f" {best_by}"
        self.say(f"step {step}: validation error (L1) {scores['l1']:.4f}{others}, best{by} {best:.4f}")
