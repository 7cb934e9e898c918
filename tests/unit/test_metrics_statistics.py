"""Statistics of real photos: what they are, when they come from the cache, and when they must not."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from clade.data import FolderDataset, ScenesDataset
from clade.data.base import Dataset, Sample
from clade.data.loading import Cached
from clade.data.prepared import PreparedDataset, prepare
from clade.data.resized import Resized
from clade.errors import CladeError, DataError
from clade.metrics import Extractor, Statistics, dataset_key, real_statistics


class Means(Extractor):
    """The mean colour of each quarter of a picture."""

    dim = 12

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__("means", torch.nn.Linear(1, 1, bias=False))
        torch.nn.init.constant_(self.network.weight, scale)
        self.pictures = 0

    def compute(self, pixels: torch.Tensor) -> torch.Tensor:
        self.pictures += len(pixels)
        return torch.nn.functional.adaptive_avg_pool2d(pixels.float(), 2).flatten(1) * self.network.weight[0, 0]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "clade"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    scenes = ScenesDataset(count=7, height=32, width=48)
    root = tmp_path / "data"
    for kind in ("images", "labels"):
        (root / kind).mkdir(parents=True)
    for index in range(len(scenes)):
        sample = scenes.read(index)
        Image.fromarray(sample.image).save(root / f"images/{index}.png")
        Image.fromarray(np.minimum(sample.ids, 11).astype(np.uint8)).save(root / f"labels/{index}.png")
    return root


def opened(folder: Path) -> FolderDataset:
    return FolderDataset(folder, num_classes=12)


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_statistics_are_numpy_s_mean_and_covariance_of_the_photos(folder: Path, batch_size: int) -> None:
    dataset = opened(folder)
    found = real_statistics(dataset, Means(), (32, 48), batch_size=batch_size, cache=False)
    photos = np.stack([dataset.read(k).image for k in range(7)]).astype(np.float64)
    quarters = [photos[:, i : i + 16, j : j + 24].mean((1, 2)) for i in (0, 16) for j in (0, 24)]
    expected = np.stack(quarters, 2).reshape(7, 12)
    assert (found.count, found.dim) == (7, 12)
    np.testing.assert_allclose(found.features.numpy(), expected, rtol=1e-5)
    np.testing.assert_allclose(found.mean.numpy(), expected.mean(0), rtol=1e-6)
    np.testing.assert_allclose(found.covariance.numpy(), np.cov(expected.T), rtol=1e-4, atol=1e-4)


def test_workers_change_nothing(folder: Path) -> None:
    one, two = (real_statistics(opened(folder), Means(), (16, 16), workers=n, cache=False) for n in (0, 2))
    assert torch.equal(one.moments, two.moments)
    assert torch.equal(one.features, two.features)


def test_what_is_in_the_cache_is_not_read_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = real_statistics(opened(folder), Means(), (16, 16))
    dataset, extractor = opened(folder), Means()
    monkeypatch.setattr(FolderDataset, "read", lambda *_: pytest.fail("a photo was read"))
    again = real_statistics(dataset, extractor, (16, 16))
    assert extractor.pictures == 0
    assert torch.equal(again.moments, first.moments)
    assert torch.equal(again.features, first.features)


def test_another_size_fit_extractor_or_file_is_computed_anew(folder: Path) -> None:
    def pictures_read(size=(16, 16), fit="stretch", extractor=None, keep=100) -> int:
        extractor = extractor or Means()
        real_statistics(opened(folder), extractor, size, fit, keep=keep)
        return extractor.pictures

    assert [pictures_read(), pictures_read()] == [7, 0]
    assert [pictures_read((16, 32)), pictures_read((16, 32))] == [7, 0]
    assert [pictures_read(fit="crop"), pictures_read(fit="crop")] == [7, 0]
    assert [pictures_read(extractor=Means(2.0)), pictures_read(extractor=Means(2.0))] == [7, 0]
    assert [pictures_read(keep=3), pictures_read(keep=3)] == [7, 0]
    path = folder / "images/3.png"
    Image.new("RGB", (48, 32), (255, 0, 0)).save(path)
    assert [pictures_read(), pictures_read()] == [7, 0]
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1_000_000_000))
    assert [pictures_read(), pictures_read()] == [7, 0]
    for part in ("images", "labels"):
        (folder / part / "6.png").unlink()
    assert [pictures_read(), pictures_read()] == [6, 0]


def test_a_damaged_file_in_the_cache_is_made_anew(folder: Path, own_cache: Path) -> None:
    first = real_statistics(opened(folder), Means(), (16, 16))
    (stored,) = own_cache.glob("real-statistics-*.npz")
    stored.write_bytes(b"half a file")
    assert torch.equal(real_statistics(opened(folder), Means(), (16, 16)).moments, first.moments)
    assert len(stored.read_bytes()) > 100


def test_kept_features_are_spread_and_moments_are_of_all(folder: Path) -> None:
    all_of_them = real_statistics(opened(folder), Means(), (16, 16), batch_size=2)
    some = real_statistics(opened(folder), Means(), (16, 16), batch_size=3, keep=4)
    torch.testing.assert_close(some.moments, all_of_them.moments, rtol=1e-12, atol=1e-9)
    assert torch.equal(some.features, all_of_them.features[[0, 2, 4, 6]])
    with pytest.raises(CladeError, match="keep is 0"):
        real_statistics(opened(folder), Means(), (16, 16), keep=0)


def test_datasets_of_an_unknown_kind_are_read_every_time(own_cache: Path) -> None:
    class Mine(Dataset):
        label_space = ScenesDataset().label_space

        def __len__(self) -> int:
            return 3

        def name(self, index: int) -> str:
            return str(index)

        def read(self, index: int) -> Sample:
            return ScenesDataset(height=16, width=16).read(index)

    assert dataset_key(Mine()) is None
    extractor = Means()
    real_statistics(Mine(), extractor, (16, 16))
    real_statistics(Mine(), extractor, (16, 16))
    assert extractor.pictures == 6
    assert not own_cache.exists()


def test_keys_tell_datasets_apart_and_see_through_wrappers(folder: Path) -> None:
    dataset = opened(folder)
    assert dataset_key(Cached(dataset)) == dataset_key(opened(folder))
    scenes = [ScenesDataset(count=5), ScenesDataset(count=6), ScenesDataset(count=5, seed=1), dataset]
    scenes += [Resized(dataset, (16, 16)), Resized(dataset, (16, 16), "crop"), Resized(dataset, (16, 17))]
    assert len({dataset_key(each) for each in scenes}) == len(scenes)
    assert dataset_key(ScenesDataset(count=5)) == dataset_key(scenes[0])


def test_a_prepared_dataset_is_known_by_its_content(tmp_path: Path) -> None:
    for name, seed in (("one", 0), ("copy", 0), ("other", 1)):
        options = {"count": 3, "height": 16, "width": 16, "seed": seed}
        prepare("scenes", tmp_path / name, size=(16, 16), options=options, splits=("train",), workers=0, progress=False)
    one, copy, other = (PreparedDataset(tmp_path / name) for name in ("one", "copy", "other"))
    assert dataset_key(one) == dataset_key(copy) != dataset_key(other)
    extractor = Means()
    real_statistics(one, extractor, (16, 16))
    assert extractor.pictures == 3
    real_statistics(copy, extractor, (16, 16))
    assert extractor.pictures == 3


def test_without_photos_there_is_nothing_to_compare_with(folder: Path) -> None:
    blind = FolderDataset(folder, num_classes=12, labels_only=True)
    with pytest.raises(DataError, match="'0' has no photo"):
        real_statistics(blind, Means(), (16, 16))
    with pytest.raises(DataError, match="1 pictures came"):
        real_statistics(ScenesDataset(count=1), Means(), (16, 16))


def test_one_picture_has_no_covariance() -> None:
    with pytest.raises(DataError, match="a covariance needs at least 2"):
        _ = Statistics.of(torch.rand(1, 4)).covariance
