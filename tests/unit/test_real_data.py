"""Real photos and labels, as they come: CamVid and Clothing Co-Parsing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from clade.data import Augment, FolderDataset, check, train_loader

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"

SETS = {
    "camvid": {"train": 367, "val": 101, "classes": 11, "sky": 0.16844},
    "ccp": {"train": 804, "val": 100, "classes": 59, "sky": 0.76901},
}
"""Pictures per split, classes, and share of class 0 in train, from the README of each set."""


@pytest.fixture(params=SETS)
def folder(request: pytest.FixtureRequest) -> Path:
    path = DATA / request.param
    if not path.is_dir():
        pytest.skip(f"the data set '{request.param}' is not beside this checkout (shared/data)")
    return path


@pytest.mark.parametrize("split", ["train", "val"])
def test_reads_as_it_is(folder: Path, split: str):
    facts = SETS[folder.name]
    dataset = FolderDataset(folder, split=split)
    assert len(dataset) == facts[split]
    assert dataset.label_space.num_classes == facts["classes"]
    assert dataset.label_space.unknown == 255
    for index in (0, len(dataset) // 2, len(dataset) - 1):
        sample = dataset.read(index)
        assert sample.image is not None
        assert sample.image.shape == (*sample.ids.shape, 3)
        assert int(sample.ids.max()) < dataset.label_space.num_rows


def test_batches_have_photos_labels_and_positions(folder: Path):
    loader = train_loader(
        FolderDataset(folder),
        size=(64, 96),
        batch_size=3,
        augment=Augment(),
        seed=0,
        with_positions=True,
        instances=True,
        stop=2,
    )
    for batch in loader:
        assert batch.image.shape == (3, 3, 64, 96)
        assert -1 <= float(batch.image.min()) < float(batch.image.max()) <= 1
        assert batch.label_map.ids.shape == (3, 64, 96)
        assert float(batch.label_map.positions.abs().max()) <= 1
        assert batch.label_map.instances is None


def test_doctor_finds_it_clean_and_counts_as_its_readme_does(folder: Path):
    report = check(folder)
    assert report.problems == []
    train, val = report.splits
    assert (train.pairs, val.pairs) == (SETS[folder.name]["train"], SETS[folder.name]["val"])
    assert train.share(0) == pytest.approx(SETS[folder.name]["sky"], abs=5e-6)


def test_photos_and_labels_are_of_the_same_scene():
    """The sky is brighter than the road; labels that were turned or mixed up would not show it."""
    if not (DATA / "camvid").is_dir():
        pytest.skip("the data set 'camvid' is not beside this checkout (shared/data)")
    dataset = FolderDataset(DATA / "camvid")
    sky, road = (dataset.label_space.names.index(name) for name in ("Sky", "Road"))
    brighter = 0
    for index in range(0, 360, 30):
        sample = dataset.read(index)
        assert sample.image is not None
        light = sample.image.mean(axis=-1)
        brighter += bool(np.mean(light[sample.ids == sky]) > np.mean(light[sample.ids == road]) + 20)
    assert brighter >= 11
