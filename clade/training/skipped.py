"""The files that a training could not use and went on without: each told once, all listed in skipped.txt."""

from __future__ import annotations

from pathlib import Path

import torch.distributed as dist
from lightning_fabric import Fabric

from clade.errors import CladeError
from clade.io.atomic import atomic_path
from clade.training.folder import SKIPPED
from clade.training.report import Report


class Skipped:
    """Messages about broken files, in the order in which they were met, without those that came before.

    Args:
        folder: the run's folder; the list of an earlier part of the training is read from there.
        fabric: whose processes meet files; the first one tells.
        fresh: there is no earlier part.
    """

    def __init__(self, folder: Path, fabric: Fabric, *, fresh: bool) -> None:
        self.path, self.fabric = folder / SKIPPED, fabric
        self.messages: dict[str, None] = {}
        self._untold: list[str] = []
        if self.path.exists() and not fresh:
            try:
                # A file name in a message may be no UTF-8.
                text = self.path.read_text(encoding="utf-8", errors="surrogateescape")
                self.messages = dict.fromkeys(text.splitlines())
            except OSError as error:
                raise CladeError(f"{self.path}: cannot be read ({error}). Remove it; it is only a list.") from error
        self._written = len(self.messages)

    def __len__(self) -> int:
        return len(self.messages)

    def add(self, message: str) -> None:
        """Note a file, which this process has met."""
        message = " ".join(message.split())
        if message not in self.messages and message not in self._untold:
            self._untold.append(message)

    def share(self, report: Report) -> None:
        """Tell and write down what is new; by all processes together."""
        found = [self._untold]
        if self.fabric.world_size > 1:
            found = [[] for _ in range(self.fabric.world_size)]
            dist.all_gather_object(found, self._untold)
        self._untold = []
        for message in dict.fromkeys(message for part in found for message in part):
            if message not in self.messages:
                self.messages[message] = None
                report.skipped(message)
        if len(self.messages) > self._written and self.fabric.is_global_zero:
            with atomic_path(self.path) as temporary:
                lines = "".join(f"{message}\n" for message in self.messages)
                temporary.write_text(lines, encoding="utf-8", errors="surrogateescape")
        self._written = len(self.messages)
