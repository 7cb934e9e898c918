"""What several systems draw of the same label maps, side by side."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from clade.data import Chosen, eval_loader
from clade.errors import CladeError
from clade.evaluation.data import Subject
from clade.io.images import sheet, to_uint8
from clade.metrics.scores import Protocol, find_protocol
from clade.metrics.scores.drawing import draw
from clade.synthesis.synthesizer import Synthesizer

_HEADING = 18  # pixels


def comparison_sheet(
    systems: Mapping[str, str | Path],
    data: str | Path | None = None,
    protocol: str | Path | Protocol = "paper",
    *,
    dataset: str | None = None,
    split: str | None = None,
    as_is: bool = False,
    size: tuple[int, int] | None = None,
    seed: int | None = None,
    precision: str | None = None,
    maps: int = 6,
    device: str = "auto",
) -> np.ndarray:
    """Rows of label map, photo and each system's picture, (H, W, 3) uint8, under their names.

    The pictures are those that :func:`clade.evaluate` scores.

    Args:
        systems: name -> checkpoint.
        data, protocol, dataset, split, as_is, size, seed, precision, device: as in :func:`clade.evaluate`.
        maps: how many label maps; the protocol's seed chooses which.

    Raises:
        CladeError: no map or no system, or systems whose data have other pictures.
    """
    if maps < 1 or not systems:
        raise CladeError(f"{maps} maps of {len(systems)} checkpoints; a sheet needs at least one of each.")
    columns: dict[str, list[np.ndarray]] = {}
    names: tuple[str, ...] | None = None
    for title, path in systems.items():
        changed = find_protocol(protocol, {"size": size, "seed": seed, "precision": precision})
        subject = Subject.open(path, changed, data, dataset, split, as_is)
        found = subject.split(subject.config.val_split)
        order = np.random.default_rng(changed.seed).permutation(len(found))
        chosen = Chosen(found, sorted(int(k) for k in order[:maps]))
        own = tuple(chosen.name(k) for k in range(len(chosen)))
        if names not in (None, own):
            raise CladeError(f"{path}: its data have other pictures than those of the first system. Give --data.")
        names = own
        labels, photos, columns[title] = _drawn(subject, chosen, device)
        columns = {"label map": labels, "photo": photos, **columns} if len(columns) == 1 else columns
    rows = [list(row) for row in zip(*columns.values(), strict=True)]
    return sheet([[_heading(title, row[0].shape[1]) for title, row in columns.items()], *rows])


def _drawn(
    subject: Subject, chosen: Chosen, device: str
) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
    """Coloured labels, photos and drawn pictures."""
    network = Synthesizer(
        subject.checkpoint.generator, subject.checkpoint.label_space, device, subject.protocol.precision
    )
    generator = network.generator
    batches = eval_loader(
        chosen,
        size=subject.size,
        batch_size=1,
        with_positions=generator.uses_positions,
        instances=generator.uses_instances,
        skip_class=generator.skip_class,
        fit=subject.protocol.fit,  # pyright: ignore[reportArgumentType]  # checked by the protocol
    )
    labels, photos, pictures = [], [], []
    for batch in batches:
        if batch.image is None:
            raise CladeError(f"'{batch.names[0]}' has no photo; images/ is needed beside labels/.")
        labels += list(chosen.label_space.colorize(batch.label_map.ids.numpy()))
        photos += list(to_uint8(batch.image))
        images = draw(network.engine, generator, batch.to(network.device), subject.protocol.seed)
        pictures += list(to_uint8(images))
    return labels, photos, pictures


def _heading(text: str, width: int) -> np.ndarray:
    """Black on white, as wide as its column."""
    page = Image.new("RGB", (width, _HEADING), "white")
    ImageDraw.Draw(page).text((1, 1), text, fill="black", font=ImageFont.load_default(size=12))
    return np.asarray(page)
