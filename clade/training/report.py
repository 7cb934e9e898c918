"""What a training tells while it runs: progress bar, curves, sample sheets."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch.utils.tensorboard import SummaryWriter

_LINE_EVERY = 15.0  # seconds between lines where there is no terminal to draw a bar in


class Report:
    """Progress bar (or now and then a line where there is no terminal) and TensorBoard files in ``folder/tensorboard``.

    Args:
        folder: the run's folder.
        step, steps: steps done and to do in all.
        active: False on all processes but the first, which say nothing.
        quiet: no bar and no lines.
    """

    def __init__(self, folder: Path, step: int, steps: int, active: bool, quiet: bool) -> None:
        self.active = active
        self.folder, self.steps, self.first = folder, steps, step
        self.console = Console(stderr=True)
        self.bar = active and not quiet and self.console.is_terminal
        self.lines = active and not quiet and not self.bar
        self._text, self._last_line, self._last_log = "", 0.0, (step, time.monotonic())
        self._progress = Progress(
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[text]}"),
            console=self.console,
            disable=not self.bar,
        )
        self._task = self._progress.add_task("", total=steps, completed=step, text="")

    def __enter__(self) -> Report:
        # Points after the step that is resumed from are those of a run that was killed; they will be drawn again.
        self.writer = (
            SummaryWriter(str(self.folder / "tensorboard"), purge_step=self.first + 1) if self.active else None
        )
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
        if self.writer is not None:
            self.writer.close()

    def advance(self, step: int) -> None:
        if self.bar:
            self._progress.update(self._task, completed=step, text=self._text)

    def losses(
        self, step: int, values: dict[str, float], per_step: int, rates: dict[str, float], skipped: int = 0
    ) -> None:
        """One point of the curves: losses by name, images per second, step sizes, files skipped so far (if any)."""
        if self.writer is None:
            return
        now = time.monotonic()
        speed = (step - self._last_log[0]) * per_step / max(now - self._last_log[1], 1e-9)
        self._last_log = (step, now)
        for name, value in values.items():
            self.writer.add_scalar(f"loss/{name}", value, step)
        for name, value in rates.items():
            self.writer.add_scalar(f"lr/{name}", value, step)
        self.writer.add_scalar("images_per_second", speed, step)
        self._text = " ".join(f"{name} {value:.2f}" for name, value in values.items()) + f"  {speed:.1f} images/s"
        if skipped:
            self.writer.add_scalar("skipped_files", skipped, step)
            self._text += f"  {skipped} skipped"
        if self.lines and (now - self._last_line > _LINE_EVERY or step == self.steps):
            self._last_line = now
            self.console.print(f"step {step}/{self.steps}  {self._text}", soft_wrap=True)

    def skipped(self, message: str) -> None:
        """What is wrong with a file that is skipped: said even where all else is quiet."""
        if self.active:
            self.console.print(f"Skipped: {message}", soft_wrap=True, markup=False, highlight=False)

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
        if self.bar or self.lines:
            others = "".join(f", {name} {value:.4f}" for name, value in scores.items() if name != "l1")
            by = "" if best_by == "l1" else f" {best_by}"
            text = f"step {step}: validation error (L1) {scores['l1']:.4f}{others}, best{by} {best:.4f}"
            self.console.print(text, soft_wrap=True)
