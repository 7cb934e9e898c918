"""Prepared datasets: the same samples as from the source, and never half of one."""

from __future__ import annotations

import json
import pickle
import shutil
from collections import namedtuple
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import torch
from filelock import FileLock
from safetensors import safe_open

from clade.data import Augment, Dataset, Sample, ScenesDataset, create_dataset, train_loader
from clade.data.prepared import Prepared, PreparedDataset, is_prepared, prepare
from clade.data.resized import Resized
from clade.data.scenes import COLORS
from clade.errors import CladeError, DataError
from clade.labels.labelspace import LabelSpace
from clade.recipes import DataConfig
from clade.training.builders import build_dataset

SIZE = (32, 48)
OPTIONS = {"count": 9, "val_count": 3, "height": 50, "width": 70, "seed": 4}


class Shapes(Dataset):
    """Pictures of differing sizes; what is in ``broken`` cannot be read, and ``reads`` counts."""

    def __init__(
        self,
        length: int = 8,
        classes: int = 5,
        photos: bool = True,
        instances: int | None = 300,
        broken: tuple[int, ...] = (),
        shift: int = 0,
    ) -> None:
        self.label_space = LabelSpace.numbered(classes, unknown=1000)
        self.length, self.photos, self.instances, self.broken, self.shift = length, photos, instances, broken, shift
        self.reads: list[int] = []

    def __len__(self) -> int:
        return self.length

    def name(self, index: int) -> str:
        return f"street/{index:02d} ä"

    def read(self, index: int) -> Sample:
        self.reads.append(index)
        if index in self.broken:
            raise DataError(f"{self.name(index)}: broken.")
        rng = np.random.default_rng(index + self.shift)
        size = 40 + 7 * (index % 3), 60 + 5 * (index % 4)
        ids = rng.integers(0, self.label_space.num_rows, size)
        if self.instances is None:
            numbers = None
        else:
            numbers = rng.integers(0, self.instances, size, dtype=np.int32) - (index == 3)
        return Sample(
            self.name(index),
            rng.integers(0, 256, (*size, 3), np.uint8) if self.photos else None,
            ids.astype(np.uint8 if self.label_space.num_rows <= 256 else np.int32),
            numbers,
        )


def pack(out: Path, dataset: Dataset | None = None, **changes: Any) -> Prepared:
    chosen = Shapes() if dataset is None else dataset
    options: dict[str, Any] = {"size": SIZE, "splits": ("train",), "workers": 0, "shard_mib": 1}
    return prepare(lambda _: chosen, out, **(options | changes))


def pack_scenes(out: Path, **changes: Any) -> Prepared:
    return prepare("scenes", out, **({"options": OPTIONS, "size": SIZE, "workers": 0} | changes))


def tree(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def assert_same(a: Sample, b: Sample) -> None:
    assert a.name == b.name
    for part in ("image", "ids", "instances"):
        x, y = getattr(a, part), getattr(b, part)
        assert (x is None) == (y is None)
        if x is not None:
            assert x.dtype == y.dtype
            assert np.array_equal(x, y)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("prepared") / "scenes"
    pack_scenes(out)
    return out


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shard takes two or three pictures, though shard_mib is at least 1."""
    monkeypatch.setattr("clade.data.prepared.packing._MIB", 30_000)


@pytest.fixture
def remote(scenes: Path) -> Iterator[str]:
    files = fsspec.filesystem("memory")
    files.put(str(scenes), "/bucket/scenes", recursive=True)
    yield "memory://bucket/scenes"
    files.rm("/bucket", recursive=True)


# --- The same samples -------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("fit", ["stretch", "crop"])
@pytest.mark.parametrize("workers", [0, 2])
def test_training_sees_the_same_batches_as_from_the_source(tmp_path: Path, fit: Any, workers: int):
    raw = Resized(Shapes(), SIZE, fit)
    assert pack(tmp_path / "out", fit=fit).shards > 1
    batches = [
        list(
            train_loader(
                dataset,
                size=(24, 32),
                batch_size=3,
                augment=Augment(flip=True, max_zoom=1.3, jitter=0.2, fit=fit),
                seed=5,
                with_positions=True,
                instances=True,
                stop=8,
                workers=workers,
            )
        )
        for dataset in (raw, PreparedDataset(tmp_path / "out"))
    ]
    assert len(batches[0]) == 8
    for one, other in zip(*batches, strict=True):
        assert one.names == other.names
        assert torch.equal(one.image, other.image)
        for part in ("ids", "instances", "positions"):
            assert torch.equal(getattr(one.label_map, part), getattr(other.label_map, part))


@pytest.mark.parametrize("fit", ["stretch", "crop"])
@pytest.mark.parametrize(
    "options",
    [{}, {"classes": 700}, {"photos": False}, {"instances": None}, {"instances": 1 << 20}, {"instances": 200}],
    ids=str,
)
def test_every_sample_is_stored_without_loss(tmp_path: Path, fit: Any, options: dict[str, Any]):
    raw = Resized(Shapes(**options), SIZE, fit)
    summary = pack(tmp_path / "out", Shapes(**options), fit=fit)
    stored = create_dataset("prepared", root=tmp_path / "out")
    assert summary.pictures == {"train": len(stored)} == {"train": 8}
    assert stored.label_space == raw.label_space
    for k in range(8):
        sample = raw.read(k)
        assert_same(sample, stored.read(k))
        assert stored.name(k) == sample.name
        assert np.array_equal(stored.classes(k), np.unique(sample.ids))
        assert stored.classes(k).dtype == sample.ids.dtype


def test_both_splits_of_a_named_dataset_are_stored(scenes: Path):
    for split, count in (("train", 9), ("val", 3)):
        raw = Resized(ScenesDataset(split=split, **OPTIONS), SIZE)
        stored = PreparedDataset(scenes, split)
        assert len(stored) == len(raw) == count
        for k in range(count):
            assert_same(raw.read(k), stored.read(k))


def test_an_open_dataset_can_be_sent_to_another_process(scenes: Path):
    dataset = PreparedDataset(scenes)
    first = dataset.read(0)
    assert_same(pickle.loads(pickle.dumps(dataset)).read(0), first)


def test_places_outside_are_refused(scenes: Path):
    for index in (-1, 9):
        with pytest.raises(IndexError):
            PreparedDataset(scenes).read(index)


# --- Writing ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.usefixtures("small_shards")
def test_the_bytes_do_not_depend_on_the_number_of_workers(tmp_path: Path):
    for workers in (0, 1, 2):
        pack(tmp_path / str(workers), Shapes(broken=(2, 6)), workers=workers, on_error="skip")
    assert len(tree(tmp_path / "0")) > 3
    assert tree(tmp_path / "0") == tree(tmp_path / "1") == tree(tmp_path / "2")


@pytest.mark.usefixtures("small_shards")
def test_a_stopped_preparation_goes_on_where_it_was(tmp_path: Path):
    pack(tmp_path / "whole")
    dataset = Shapes(broken=(7,))
    with pytest.raises(DataError, match="street/07 ä: broken"):
        pack(tmp_path / "out", dataset)
    assert not is_prepared(tmp_path / "out")
    finished = {path.name for path in (tmp_path / "out").glob("*.safetensors")}
    assert finished
    (tmp_path / "out" / ".train-00002.safetensors.1-1.tmp").write_bytes(b"half")

    mended = Shapes()
    summary = pack(tmp_path / "out", mended)
    assert summary.kept == len(finished)
    assert mended.reads == [0, 6, 7]  # the first to know the size of a picture, the others for the last shard
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")

    again = Shapes()
    assert pack(tmp_path / "out", again).kept == summary.shards
    assert again.reads == [0]
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"size": (30, 48)}, "size"),
        ({"fit": "crop"}, "fit"),
        ({"shard_mib": 2}, "shard_mib"),
        ({"options": OPTIONS | {"seed": 5}}, "options"),
        ({"options": OPTIONS | {"count": 8}}, "options"),
        ({"splits": ("train",)}, "splits"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_another_source_into_the_same_folder_is_refused(scenes: Path, changes: dict[str, Any], key: str):
    before = tree(scenes)
    options: dict[str, Any] = {"shard_mib": 256}
    with pytest.raises(DataError, match=f"prepared with {key} .*; now it is"):
        pack_scenes(scenes, **(options | changes))
    assert tree(scenes) == before


def test_other_names_or_classes_are_another_source(tmp_path: Path):
    pack(tmp_path / "out")
    with pytest.raises(DataError, match="prepared with splits"):
        pack(tmp_path / "out", Shapes(length=7))
    with pytest.raises(DataError, match="prepared with label_space"):
        pack(tmp_path / "out", Shapes(classes=6))


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path):
    (tmp_path / "holiday.jpg").write_bytes(b"beach")
    with pytest.raises(DataError, match="holds files, but no prepared dataset"):
        pack(tmp_path)
    assert tree(tmp_path) == {"holiday.jpg": b"beach"}
    with pytest.raises(DataError, match="is a file"):
        pack(tmp_path / "holiday.jpg")


def test_two_at_once_are_refused(tmp_path: Path):
    with FileLock(tmp_path / ".lock"), pytest.raises(DataError, match="another process"):
        pack(tmp_path)
    assert pack(tmp_path).pictures == {"train": 8}


def test_a_full_disk_is_noticed_before_it_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**6, 10**6 - 1000, 1000))
    dataset = Shapes()
    with pytest.raises(DataError, match=r"needs 0\.00 GiB, but 0\.00 GiB are free"):
        pack(tmp_path / "out", dataset)
    assert dataset.reads == [0]
    monkeypatch.undo()
    assert pack(tmp_path / "out").pictures == {"train": 8}


@pytest.mark.usefixtures("small_shards")
def test_broken_pictures_are_skipped_only_when_asked_and_counted(tmp_path: Path):
    dataset = Shapes(broken=(0, 3, 4, 5))  # the second shard stays empty
    with pytest.raises(DataError, match="street/00 ä: broken"):
        pack(tmp_path / "stop", dataset)
    summary = pack(tmp_path / "skip", dataset, on_error="skip")
    assert summary.pictures == {"train": 4}
    assert summary.skipped == [f"train/street/{k:02d} ä: street/{k:02d} ä: broken." for k in (0, 3, 4, 5)]
    assert "4 pictures could not be read and were left out:" in str(summary)
    stored = PreparedDataset(tmp_path / "skip")
    for k, index in enumerate((1, 2, 6, 7)):
        assert_same(stored.read(k), Resized(Shapes(), SIZE).read(index))


@pytest.mark.usefixtures("small_shards")
def test_what_a_broken_picture_stopped_goes_on_without_it_and_not_the_other_way(tmp_path: Path):
    with pytest.raises(DataError, match="broken"):
        pack(tmp_path / "out", Shapes(broken=(5,)))
    done = sorted(path.name for path in (tmp_path / "out").glob("*.safetensors"))
    summary = pack(tmp_path / "out", Shapes(broken=(5,)), on_error="skip")
    assert (summary.kept, summary.pictures) == (len(done), {"train": 7})
    assert done
    pack(tmp_path / "whole", Shapes(broken=(5,)), on_error="skip")
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")
    with pytest.raises(DataError, match="prepared with on_error skip; now it is stop"):
        pack(tmp_path / "out", Shapes())


def test_names_that_are_no_utf_8_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Shapes, "name", lambda _, index: f"{index}\udcff")
    pack(tmp_path / "out")
    assert PreparedDataset(tmp_path / "out").read(3).name == "3\udcff"


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"file/out: cannot be written \(Not a directory\)"):
        pack(tmp_path / "file/out")


def test_nothing_usable_is_an_error(tmp_path: Path):
    with pytest.raises(DataError, match="None of the 8 pictures can be used"):
        pack(tmp_path / "out", Shapes(broken=tuple(range(8))), on_error="skip")


@pytest.mark.parametrize(
    "changes",
    [{"shard_mib": 0}, {"workers": -1}, {"splits": ()}, {"splits": ("a/b",)}, {"on_error": "ignore"}, {"size": (0, 9)}],
    ids=str,
)
def test_options_that_make_no_sense_are_refused(tmp_path: Path, changes: dict[str, Any]):
    with pytest.raises(CladeError):
        pack(tmp_path / "out", **changes)
    assert not (tmp_path / "out").exists()


def test_splits_of_other_classes_are_refused(tmp_path: Path):
    with pytest.raises(DataError, match="'a' and 'b' have other classes"):
        prepare(lambda split: Shapes(classes=5 + (split == "b")), tmp_path / "out", size=SIZE, splits=("a", "b"))


# --- Damage -----------------------------------------------------------------------------------------------------------


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def swap(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


def scribble(path: Path) -> None:
    path.write_bytes(b"\xff" * path.stat().st_size)


@pytest.mark.parametrize("damage", [cut, scribble, Path.unlink])
def test_a_damaged_shard_is_named_and_made_anew(tmp_path: Path, damage: Any):
    pack(tmp_path)
    before = tree(tmp_path)
    damage(tmp_path / "train-00000.safetensors")
    with pytest.raises(DataError, match=r"train-00000\.safetensors: .*clade data prepare"):
        PreparedDataset(tmp_path).read(0)
    assert pack(tmp_path).kept == 0
    assert tree(tmp_path) == before


@pytest.mark.usefixtures("small_shards")
def test_one_changed_bit_is_found_by_verify_and_by_preparing_again(tmp_path: Path):
    pack(tmp_path)
    before = tree(tmp_path)
    PreparedDataset(tmp_path).verify()
    swap(tmp_path / "train-00001.safetensors")
    with pytest.raises(DataError, match=r"train-00001\.safetensors: .*another hash"):
        PreparedDataset(tmp_path).verify()
    summary = pack(tmp_path)
    assert summary.kept == summary.shards - 1
    assert tree(tmp_path) == before


@pytest.mark.usefixtures("small_shards")
def test_a_damaged_shard_is_not_taken_up_though_mending_was_stopped(tmp_path: Path):
    pack(tmp_path)
    before = tree(tmp_path)
    for name in ("train-00000.safetensors", "train-00001.safetensors"):
        swap(tmp_path / name)
    with pytest.raises(DataError, match="broken"):
        pack(tmp_path, Shapes(broken=(1,)))
    assert not is_prepared(tmp_path)
    pack(tmp_path)
    assert tree(tmp_path) == before


def change_manifest(folder: Path, change: Any) -> None:
    value = json.loads((folder / "prepared.json").read_text(encoding="utf-8"))
    change(value)
    (folder / "prepared.json").write_text(json.dumps(value), encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda value: value.update(format=2), "has format 2, this version of clade reads format 1"),
        (lambda value: value.pop("splits"), "is damaged"),
        (lambda value: value["splits"]["train"]["names"].pop(), "is damaged"),
        (lambda value: value["splits"]["train"]["shards"][0].update(file="../secret.safetensors"), "is damaged"),
        (lambda value: value["splits"]["train"]["shards"][0].update(sha256="../../x"), "is damaged"),
        (lambda value: value["facts"].update(size=[1]), "is damaged"),
        (lambda value: value["facts"].update(label_space={"names": []}), "is damaged"),
    ],
)
def test_a_damaged_manifest_is_refused(tmp_path: Path, change: Any, message: str):
    pack(tmp_path)
    change_manifest(tmp_path, change)
    with pytest.raises(DataError, match=f"prepared.json: {message}"):
        PreparedDataset(tmp_path)


def test_shards_are_plain_safetensors(scenes: Path):
    with safe_open(scenes / "train-00000.safetensors", framework="np") as file:
        expected = Resized(ScenesDataset(**OPTIONS), SIZE).read(2)
        assert np.array_equal(file.get_tensor("000002.image"), expected.image)
        assert np.array_equal(file.get_tensor("000002.instances"), expected.instances)
        assert file.get_tensor("000002.instances").dtype == np.uint8


# --- Opening ----------------------------------------------------------------------------------------------------------


def test_a_prepared_folder_is_known_by_its_manifest(scenes: Path, tmp_path: Path, remote: str):
    assert is_prepared(scenes)
    assert is_prepared(str(scenes))
    assert is_prepared(remote)
    assert not is_prepared(tmp_path)
    assert not is_prepared(tmp_path / "nowhere")
    for url in ("memory://elsewhere", "nosuchprotocol://x"):
        with pytest.raises(DataError, match=url):
            is_prepared(url)
    with pytest.raises(DataError, match=r"prepared\.json: no such file"):
        PreparedDataset(tmp_path)
    with pytest.raises(DataError, match=r"there is no split 'vla'\. Did you mean 'val'\?"):
        PreparedDataset(scenes, "vla")


@pytest.mark.parametrize(
    ("expect", "message"),
    [
        ({"name": "cityscapes"}, "data.name scenes, but the recipe has cityscapes"),
        ({"size": (64, 96)}, r"data.load_size \[32, 48\], but the recipe has \[64, 96\]"),
        ({"size": SIZE, "fit": "crop"}, "data.fit stretch, but the recipe has crop"),
        ({"num_classes": 13}, "data.num_classes 12, but the recipe has 13"),
        ({"unknown": 254}, "data.unknown 255, but the recipe has 254"),
        ({"remap": {7: 1}}, "data.remap.7 unset, but the recipe has 1"),
        ({"palette": [(1, 2, 3)]}, r"data.palette \[\[.*\]\], but the recipe has \[\[1, 2, 3\]\]"),
        ({"at_least": (32, 49)}, r"prepared at 32 x 48 \(height x width\), which is smaller than data.size, 32 x 49"),
        ({"options": {"seed": 5}}, "data.options.seed 4, but the recipe has 5"),
    ],
    ids=str,
)
def test_a_recipe_that_asks_for_something_else_is_refused(scenes: Path, expect: dict[str, Any], message: str):
    with pytest.raises(DataError, match=message):
        PreparedDataset(scenes, expect=expect)


def test_training_asks_for_its_palette_and_for_no_smaller_pictures(scenes: Path):
    config = DataConfig(name="scenes", root=str(scenes), size=SIZE)
    assert len(build_dataset(config, "train")) == 9
    with pytest.raises(DataError, match=r"data\.palette"):
        build_dataset(replace(config, palette=[(1, 2, 3)]), "train")
    with pytest.raises(DataError, match=r"smaller than data\.size"):
        build_dataset(replace(config, size=(64, 48)), "train")


def test_a_recipe_that_asks_for_what_is_stored_or_for_nothing_opens(scenes: Path):
    everything = {"name": "scenes", "size": SIZE, "fit": "stretch", "num_classes": 12, "unknown": 255, "remap": {}}
    everything |= {"palette": COLORS, "at_least": SIZE}
    for expect in (everything, {"options": {"seed": 4}}, {"fit": "crop"}, {"name": "prepared"}, {}):
        assert len(PreparedDataset(scenes, "val", expect=expect)) == 3


def test_a_url_is_read_through_the_cache_and_copied_once(scenes: Path, remote: str, tmp_path: Path):
    here, there = PreparedDataset(scenes), PreparedDataset(remote, cache=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
    for k in range(9):
        assert_same(here.read(k), there.read(k))
    fsspec.filesystem("memory").rm("/bucket/scenes/train-00000.safetensors")
    again = PreparedDataset(remote, cache=tmp_path / "cache")
    again.verify()
    assert_same(again.read(8), here.read(8))
    with pytest.raises(DataError, match=r"memory://bucket/scenes/train-00000\.safetensors: no such file"):
        PreparedDataset(remote, cache=tmp_path / "other").read(0)


@pytest.mark.parametrize("damage", [cut, swap])
def test_a_damaged_remote_shard_never_reaches_the_cache(remote: str, tmp_path: Path, damage: Any):
    files = fsspec.filesystem("memory")
    copy = tmp_path / "shard"
    files.get_file("/bucket/scenes/train-00000.safetensors", str(copy))
    damage(copy)
    files.put_file(str(copy), "/bucket/scenes/train-00000.safetensors")
    with pytest.raises(DataError, match=r"train-00000\.safetensors: is not what was written"):
        PreparedDataset(remote, cache=tmp_path / "cache").read(0)
    assert not list((tmp_path / "cache").glob("*.safetensors"))


def test_a_cut_copy_in_the_cache_is_fetched_again(scenes: Path, remote: str, tmp_path: Path):
    PreparedDataset(remote, cache=tmp_path).read(0)
    (copy,) = tmp_path.glob("*.safetensors")
    cut(copy)
    assert_same(PreparedDataset(remote, cache=tmp_path).read(0), PreparedDataset(scenes).read(0))


def test_the_cache_is_in_the_user_s_cache_folder(remote: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    PreparedDataset(remote, "val").read(0)
    assert len(list((tmp_path / "clade" / "prepared").glob("*.safetensors"))) == 1


def test_preparing_into_a_url_is_refused():
    with pytest.raises(DataError, match="Prepare into a local folder"):
        pack_scenes("memory://bucket")  # pyright: ignore[reportArgumentType]
