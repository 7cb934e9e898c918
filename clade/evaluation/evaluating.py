"""A checkpoint -> its scores under a protocol."""

from __future__ import annotations

import dataclasses
import datetime
import os
import platform
import sys
import time
from collections.abc import Collection, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from clade._version import __version__
from clade.complexity import count
from clade.data import Dataset, eval_loader
from clade.data.prepared.shards import file_hash
from clade.errors import CladeError
from clade.evaluation.data import DataHash, Subject
from clade.evaluation.processes import Processes, processes
from clade.evaluation.result import Evaluation
from clade.metrics.judges import Judge
from clade.metrics.scores import SCORES, Protocol, Scores, find_protocol
from clade.metrics.scores.drawing import draw, draws_samples
from clade.models import Generator
from clade.models.checkpoints import Checkpoint, find_checkpoint
from clade.synthesis.synthesizer import Synthesizer
from clade.system.measure import processor
from clade.system.progress import Progress, runs_on

Size = tuple[int, int]


def evaluate(
    checkpoint: str | Path,
    data: str | Path | None = None,
    protocol: str | Path | Protocol = "paper",
    *,
    dataset: str | None = None,
    split: str | None = None,
    as_is: bool = False,
    metrics: Collection[str] | None = None,
    judge: str | Judge | None = None,
    judge_map: str | Path | None = None,
    extractor: str | None = None,
    weights: Mapping[str, str | Path] | None = None,
    size: Size | None = None,
    samples: int | None = None,
    seed: int | None = None,
    precision: str | None = None,
    device: str = "auto",
    batch: int = 4,
    workers: int = 0,
    progress: bool = False,
) -> Evaluation:
    """Draw every picture of a split once, and score them while they come by.

    Neither ``batch``, ``workers`` nor the number of processes (torchrun) changes a score, but for rounding.

    Args:
        checkpoint: a ``.safetensors`` file of a generator, or the name of weights that come with clade.
        data: folder of the dataset; None for that of the checkpoint's recipe.
        protocol: ``paper``, ``oasis``, a YAML file, or a :class:`Protocol`.
        dataset, split: layout and part of the data; None for those of the recipe.
        as_is: the dataset's own splits and classes, without the recipe's split file and merge table.
        metrics: scores to compute instead of the protocol's. What these need must be there.
        judge_map: YAML file that says which class of the judge is which of the dataset.
        judge, extractor, size, samples, seed, precision: change the protocol.
        weights: files for what has a name: inception, lpips, or the extractor's name.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N``.
        batch: pictures drawn at once.
        workers: processes that read the data.
        progress: tell what begins, and how far it is (:class:`clade.system.progress.Progress`).

    Raises:
        CladeError: a checkpoint, data or protocol that cannot be used; weights that are not there, of a metric that was
            asked for by name; or no score that could be computed. A score of the protocol's own that lacks its weights
            is in ``Evaluation.missing``.
    """
    begin = time.monotonic()
    path = find_checkpoint(checkpoint)
    if batch < 1 or workers < 0:
        raise CladeError(f"batch is {batch} and workers {workers}; needed are at least 1 and at least 0.")
    opened = judge if isinstance(judge, Judge) else None
    changes = {"judge": judge if opened is None else opened.key, "extractor": extractor, "size": size}
    changes |= {"samples": samples, "seed": seed, "precision": precision}
    changes |= {"metrics": None if metrics is None else tuple(metrics)}
    named = metrics is not None or Path(str(protocol)).suffix in (".yaml", ".yml")
    subject = Subject.open(path, find_protocol(protocol, changes), data, dataset, split, as_is)
    found, chosen, config = subject.checkpoint, subject.protocol, subject.config
    of_samples = [name for name in chosen.metrics if SCORES[name].samples]
    if of_samples and not draws_samples(found.generator):
        raise CladeError(
            f"{path}: {of_samples[0]} needs a generator that draws many pictures of one label map, and "
            f"'{found.generator.name}' here has no prior to draw from. Leave it out of the metrics."
        )
    drawn = subject.split(config.val_split)
    same = subject.reference_split == config.val_split

    def reference() -> Dataset:
        return drawn if same else subject.split(subject.reference_split)

    synthesizer = Synthesizer(found.generator, found.label_space, device, chosen.precision)
    chosen = dataclasses.replace(chosen, precision=synthesizer.precision)  # what was drawn in, where it was 'auto'
    with processes(synthesizer.device) as (group, place):
        if place != synthesizer.device:
            synthesizer = Synthesizer(found.generator, found.label_space, place, chosen.precision)
        if progress and group.rank == 0:
            where = runs_on(synthesizer.device, synthesizer.precision, group.world)
            print(f"Evaluating {path.name} on {len(drawn)} pictures: {where}.", file=sys.stderr, flush=True)
        for _ in group.in_turn():
            scores = Scores(
                chosen,
                drawn.label_space,
                reference,
                device=place,
                weights=weights,
                judge=opened,
                judge_map=judge_map,
                pictures=len(drawn),
                named=chosen.metrics if named else (),
                workers=workers,
                progress=progress and group.rank == 0,
            )
        pictures, data_hash = _draw_all(synthesizer, drawn, chosen, scores, group, batch, workers, progress)
        values, details = scores.compute()
        gathered = group.world
    return Evaluation(
        scores=values,
        missing=scores.missing,
        details=details,
        pictures=pictures,
        checkpoint=_facts(found, path, subject.size),
        data={
            "name": config.name,
            "root": config.root,
            "split": config.val_split,
            "split_file": config.split_file,
            "merge": config.merge,
            "reference_split": subject.reference_split,
            "reference_pictures": scores.reference_pictures,
            "reference_sha256": scores.reference_sha256,
            "sha256": data_hash,
        },
        protocol=chosen.to_dict(),
        weights=scores.keys,
        drawn_with=_drawn_with(found.generator),
        versions=_versions(),
        machine=_machine(place),
        created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        seconds=round(time.monotonic() - begin, 3),
        processes=gathered,
    )


def _draw_all(
    synthesizer: Synthesizer,
    dataset: Dataset,
    protocol: Protocol,
    scores: Scores,
    group: Processes,
    batch_size: int,
    workers: int,
    progress: bool,
) -> tuple[int, str]:
    """Draw this process's share; (number of pictures, hash of the data) over all processes."""
    generator, digest, count = synthesizer.generator, DataHash(), 0
    batches = eval_loader(
        dataset,
        size=protocol.size,
        batch_size=batch_size,
        with_positions=generator.uses_positions,
        instances=generator.uses_instances,
        skip_class=generator.skip_class,
        workers=workers,
        rank=group.rank,
        world_size=group.world,
        pin_memory=synthesizer.device.type == "cuda",
        fit=protocol.fit,  # pyright: ignore[reportArgumentType]  # checked by the protocol
    )
    quiet = not progress or group.rank > 0
    count_here = len(range(group.rank, len(dataset), group.world))
    with Progress("picture", count_here, unit="pictures", each=group.world, quiet=quiet) as bar:
        for batch in batches:
            digest.update(batch)
            batch = batch.to(synthesizer.device, non_blocking=True)
            images = draw(synthesizer.engine, generator, batch, protocol.seed)
            scores.update(batch, images)
            if scores.wants_samples:
                others = [
                    draw(synthesizer.engine, generator, batch, protocol.seed, k) for k in range(1, protocol.samples)
                ]
                scores.update_samples(torch.stack([images, *others], dim=1))
            count += len(batch)
            bar.advance(len(batch))
    counts = group.gather((count, digest.total))
    for rank, (_, total) in enumerate(counts):
        if rank != group.rank:
            digest.add(total)
    return sum(part for part, _ in counts), digest.hexdigest()


def _drawn_with(generator: Generator) -> str:
    if generator.latent_shape((256, 256)) is None:
        return "no latents"
    return "draws of the prior" if draws_samples(generator) else "the style of each label map's own photo"


def _facts(checkpoint: Checkpoint, path: Path, size: Size) -> dict[str, Any]:
    cost = count(checkpoint.generator, size, "paper")
    return {
        "path": str(path),
        "sha256": file_hash(path),
        "generator": checkpoint.generator.name,
        "options": checkpoint.generator.options,
        "parameters": cost.params,
        "multiply_adds": cost.macs,
        "info": checkpoint.info,
        "recipe": checkpoint.recipe,
    }


def _versions() -> dict[str, str]:
    found = {"clade": __version__, "python": platform.python_version(), "torch": torch.__version__}
    libraries = ("torchvision", "numpy", "pillow", "scipy", "torchmetrics", "torch-fidelity", "timm", "transformers")
    for name in (*libraries, "segmentation-models-pytorch"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _machine(device: torch.device) -> dict[str, Any]:
    accelerator = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": platform.platform(),
        "device": str(device),
        "accelerator": accelerator,
    }
