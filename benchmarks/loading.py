"""How many pictures a second a training is fed, from raw files, from prepared ones, and from other ways to store them.

`python -m benchmarks.loading` makes pictures of Cityscapes' size (real CamVid pictures, enlarged to 2048x1024, with a
little noise so that a photo takes about 2.3 MB as PNG, as there; scenes, where ``../shared/data`` is missing) and takes
CamVid and COCO-Stuff's samples as they are. `--quick` is a look at a few.
"""

from __future__ import annotations

import argparse
import io
import statistics
import tarfile
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import cc3d
import numpy as np
import torch
from PIL import Image

from benchmarks.common import Row, alternate, write_table
from clade.data import Augment, Dataset, FolderDataset, Sample, create_dataset, train_loader
from clade.data.prepared import PreparedDataset, prepare
from clade.data.resized import Resized
from clade.data.scenes import NAMES, UNKNOWN, draw_scene
from clade.labels import LabelSpace

SEED = 0
DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
NOISE = 0.6
BATCH = 4


@dataclass(frozen=True)
class Case:
    """Originals, and the (height, width) that is trained on."""

    title: str
    dataset: Dataset
    size: tuple[int, int]
    other_forms: bool = False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=16, help="of 2048x1024")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.5, help="of each run, after its first batches")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--quick", action="store_true", help="4 pictures, 1 round")
    args = parser.parse_args()

    pictures, rounds, seconds = (4, 1, 0.2) if args.quick else (args.pictures, args.rounds, args.seconds)
    torch.set_num_threads(1)  # as in the workers
    warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as temporary:
        for number, case in enumerate(cases(Path(temporary), pictures)):
            rows += measure(case, Path(temporary) / str(number), rounds, seconds, args.workers)
    write_table(
        "loading" + ("-quick" if args.quick else ""),
        (
            "originals",
            "form",
            "MiB a picture",
            "reading (pictures/s)",
            *(f"{workers} workers (pictures/s)" for workers in args.workers),
            "x raw, least",
        ),
        rows,
        [
            f"Medians of {rounds} alternating runs. Reading: pictures in random order in this process, nothing else. "
            f"Workers: train_loader with batches of {BATCH}, zoom, flip and instances, from the third batch of each "
            f"worker on, {seconds:g} s each. Everything was read before, so files come from memory.",
            "raw: the augmentation takes each picture from the original in one step. raw, load_size: the picture is "
            "resized first, which gives the samples that the other forms give. prepared: what `clade data prepare` "
            "writes, safetensors with a tensor per array. memory map: the same arrays in one flat file. npy, PNG in "
            "tar: WebDataset's layout, found by offset.",
        ],
        seed=SEED,
        command="loading" + (" --quick" if args.quick else ""),
    )


def cases(folder: Path, pictures: int) -> list[Case]:
    camvid, coco = DATA / "camvid", DATA / "samples" / "coco_stuff"
    large, source = folder / "large", "CamVid" if camvid.is_dir() else "scenes"
    space = write_large(large, FolderDataset(camvid) if camvid.is_dir() else None, pictures)
    found = [
        Case(f"2048x1024 PNG ({source}), 256x512", FolderDataset(large, None, space), (256, 512), other_forms=True)
    ]
    if camvid.is_dir():
        found.append(Case("342x256 JPEG (CamVid), 256x256", FolderDataset(camvid), (256, 256)))
    if coco.is_dir():
        dataset = create_dataset("coco-stuff", root=coco)
        found.append(Case("640x480 JPEG (COCO-Stuff), 256x256", dataset, (256, 256)))
    return found


def write_large(folder: Path, source: Dataset | None, count: int) -> LabelSpace:
    """PNGs of 2048x1024: photos, 8-bit ids, and 16-bit instances (a number per object) as Cityscapes has them."""
    for part in ("images", "labels", "instances"):
        (folder / part).mkdir(parents=True)
    rng = np.random.default_rng(SEED)
    for k in range(count):
        if source is None:
            scene = draw_scene(k, seed=SEED, height=1024, width=2048)
            image, ids = scene.image, scene.ids
        else:
            sample = source.read(k * len(source) // count)
            assert sample.image is not None
            image = np.asarray(Image.fromarray(sample.image).resize((2048, 1024), Image.Resampling.BICUBIC))
            image = np.clip(np.rint(image + rng.normal(0, NOISE, image.shape)), 0, 255).astype(np.uint8)
            ids = np.asarray(Image.fromarray(sample.ids).resize((2048, 1024), Image.Resampling.NEAREST))
        objects = cc3d.connected_components(ids + 1, connectivity=8).astype(np.uint16)
        for part, array in (("images", image), ("labels", ids), ("instances", objects)):
            Image.fromarray(array).save(folder / part / f"{k:03d}.png")
    if source is None:
        return LabelSpace(names=NAMES, unknown=UNKNOWN)
    # The ids are encoded already: the unknown class is the last row.
    return replace(source.label_space, unknown=source.label_space.num_classes, remap={})


def measure(case: Case, folder: Path, rounds: int, seconds: float, workers: list[int]) -> list[Row]:
    folder.mkdir()
    loaded = Resized(case.dataset, case.size)
    prepare(lambda _: case.dataset, folder / "prepared", size=case.size, splits=("train",), progress=False)
    forms: dict[str, Dataset] = {
        "raw": case.dataset,
        "raw, load_size": loaded,
        "prepared": PreparedDataset(folder / "prepared"),
    }
    if case.other_forms:
        samples = [loaded.read(k) for k in range(len(loaded))]
        forms["memory map"] = Flat(samples, loaded, folder / "flat")
        forms["npy in tar"] = Tar(samples, loaded, folder / "npy.tar", _to_npy, _from_npy)
        forms["PNG in tar"] = Tar(samples, loaded, folder / "png.tar", _to_png, _from_png)
    sizes = {"raw": _bytes_below(case.dataset), "prepared": _bytes_in(folder / "prepared")}
    sizes |= {"memory map": _bytes_in(folder / "flat"), "npy in tar": _bytes_in(folder / "npy.tar")}
    sizes |= {"raw, load_size": sizes["raw"], "PNG in tar": _bytes_in(folder / "png.tar")}

    rates: dict[tuple[str, int], list[float]] = {(form, count): [] for form in forms for count in (-1, *workers)}

    def run(form: str, count: int) -> None:
        dataset = forms[form]
        rate = reading_rate(dataset, seconds) if count < 0 else loader_rate(dataset, case.size, count, seconds)
        rates[form, count].append(rate)

    calls: dict[str, Callable[[], object]] = {f"{form} {count}": partial(run, form, count) for form, count in rates}
    alternate(calls, rounds, warmup=0)
    medians = {key: statistics.median(values) for key, values in rates.items()}
    return [
        (
            case.title,
            form,
            sizes[form] / len(case.dataset) / (1 << 20),
            medians[form, -1],
            *(medians[form, count] for count in workers),
            min(medians[form, count] / medians["raw", count] for count in workers),
        )
        for form in forms
    ]


def reading_rate(dataset: Dataset, seconds: float) -> float:
    rng = np.random.default_rng(SEED)
    dataset.read(0)
    begin, count = time.perf_counter(), 0
    while (spent := time.perf_counter() - begin) < seconds:
        dataset.read(int(rng.integers(len(dataset))))
        count += 1
    return count / spent


def loader_rate(dataset: Dataset, size: tuple[int, int], workers: int, seconds: float) -> float:
    """Pictures a second, without the start of the workers and the batches that they have ready by then."""
    loader = train_loader(
        dataset,
        size=size,
        batch_size=BATCH,
        augment=Augment(max_zoom=1.117),
        seed=SEED,
        with_positions=False,
        instances=True,
        workers=workers,
    )
    batches = iter(loader)
    for _ in range(max(2 * workers, 1)):
        next(batches)
    begin, count = time.perf_counter(), 0
    while (spent := time.perf_counter() - begin) < seconds or count < 2 * BATCH:
        count += len(next(batches))
    return count / spent


class Stored(Dataset):
    """Samples that a form of its own keeps."""

    def __init__(self, dataset: Dataset) -> None:
        self.label_space = dataset.label_space
        self.names = [dataset.name(k) for k in range(len(dataset))]

    def __len__(self) -> int:
        return len(self.names)

    def name(self, index: int) -> str:
        return self.names[index]


class Flat(Stored):
    """One file of all photos, one of all ids, one of all instances, each mapped into memory."""

    def __init__(self, samples: list[Sample], dataset: Dataset, folder: Path) -> None:
        super().__init__(dataset)
        folder.mkdir()
        self.parts: dict[str, np.ndarray] = {}
        for part in ("image", "ids", "instances"):
            np.save(folder / f"{part}.npy", np.stack([getattr(sample, part) for sample in samples]))
            self.parts[part] = np.load(folder / f"{part}.npy", mmap_mode="r")

    def read(self, index: int) -> Sample:
        return Sample(self.names[index], **{part: np.array(all_[index]) for part, all_ in self.parts.items()})


class Tar(Stored):
    """A tar file of encoded arrays, read at their offsets."""

    def __init__(
        self,
        samples: list[Sample],
        dataset: Dataset,
        path: Path,
        encode: Callable[[np.ndarray], bytes],
        decode: Callable[[bytes], np.ndarray],
    ) -> None:
        super().__init__(dataset)
        self.path, self.decode = path, decode
        with tarfile.open(path, "w") as tar:
            for k, sample in enumerate(samples):
                for part in ("image", "ids", "instances"):
                    content = encode(getattr(sample, part))
                    member = tarfile.TarInfo(f"{k:06d}.{part}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
        with tarfile.open(path) as tar:
            self.places = {member.name: (member.offset_data, member.size) for member in tar}

    def read(self, index: int) -> Sample:
        parts: dict[str, Any] = {}
        with open(self.path, "rb") as file:
            for part in ("image", "ids", "instances"):
                offset, size = self.places[f"{index:06d}.{part}"]
                file.seek(offset)
                parts[part] = self.decode(file.read(size))
        parts["instances"] = parts["instances"].astype(np.int32)
        return Sample(self.names[index], **parts)


def _to_npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def _from_npy(content: bytes) -> np.ndarray:
    return np.load(io.BytesIO(content))


def _to_png(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array.astype(np.uint16) if array.dtype == np.int32 else array).save(buffer, "png")
    return buffer.getvalue()


def _from_png(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)))


def _bytes_below(dataset: Any) -> int:
    """Of the raw files of a dataset."""
    parts = (dataset.files.labels, dataset.files.images, dataset.files.instances)
    return sum(path.stat().st_size for part in parts if part is not None for path in part.values())


def _bytes_in(place: Path) -> int:
    if place.is_file():
        return place.stat().st_size
    return sum(path.stat().st_size for path in place.rglob("*") if path.is_file())


if __name__ == "__main__":
    main()
