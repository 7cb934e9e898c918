"""Balanced sampling: repeat factors, systematic resampling, and a stream that stays without a state."""

from __future__ import annotations

import math
from collections import Counter
from itertools import chain, islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from clade.data import Augment, Dataset, Sample, ScenesDataset, Stream, train_loader
from clade.data.prepared import prepare
from clade.data.resized import Resized, covering
from clade.data.sampling import read_classes, repeat_factors, systematic
from clade.errors import DataError, LabelError, RecipeError
from clade.labels import LabelSpace
from clade.recipes import Recipe
from clade.training.builders import build_dataset, build_weights


class Pictures(Dataset):
    """Pictures of given classes, one pixel each; those without any cannot be read."""

    def __init__(self, *classes: list[int]) -> None:
        self.label_space = LabelSpace.numbered(4)
        self.held = classes

    def __len__(self) -> int:
        return len(self.held)

    def name(self, index: int) -> str:
        return f"picture {index}"

    def read(self, index: int) -> Sample:
        if not self.held[index]:
            raise LabelError(f"{self.name(index)}: broken.")
        ids = np.array([self.held[index]], np.uint8).repeat(3, axis=0)
        image = np.random.default_rng(index).integers(0, 256, (*ids.shape, 3), np.uint8)
        return Sample(self.name(index), image, ids)


def factors_by_hand(present: list[list[int]], num_classes: int, t: float | None) -> list[float]:
    shares = {
        c: sum(c in ids for ids in present) / len(present) for c in range(num_classes) if any(c in i for i in present)
    }
    ordered = sorted(shares.values())
    if t is None:
        middle = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2 if ordered else 1
    else:
        middle = t
    return [max([1.0, *(math.sqrt(middle / shares[c]) for c in ids if c in shares)]) for ids in present]


@given(
    st.lists(st.lists(st.integers(0, 6), max_size=5), min_size=1, max_size=20),
    st.sampled_from([None, 0.001, 0.2, 1.0]),
)
def test_repeat_factors_equal_their_equation(present: list[list[int]], t: float | None):
    """Ids 5 and 6 stand for unlabelled pixels."""
    found = repeat_factors([np.array(ids, np.int64) for ids in present], 5, t)
    assert found == pytest.approx(factors_by_hand(present, 5, t))


def test_pictures_of_a_rare_class_get_its_factor():
    present = [np.array([0, 1])] * 9 + [np.array([0, 3])]
    assert repeat_factors(present, 4) == pytest.approx([1.0] * 9 + [3.0])  # shares 1, 0.9 and 0.1: sqrt(0.9 / 0.1)


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=30), st.integers(1, 60), st.integers(0, 2**32))
def test_systematic_resampling_rounds_every_expectation_down_or_up(weights: list[float], count: int, seed: int):
    chosen = systematic(np.array(weights), count, np.random.default_rng(seed))
    assert len(chosen) == count
    counts = np.bincount(chosen, minlength=len(weights))
    expected = np.array(weights) * count / sum(weights)
    assert (np.floor(expected - 1e-9) <= counts).all()
    assert (counts <= np.ceil(expected + 1e-9)).all()


def test_systematic_resampling_is_unbiased():
    weights = np.array([1.0, 1.5, 4.0, 1.0, 1.25, 2.0])
    rng = np.random.default_rng(0)
    counts = np.mean([np.bincount(systematic(weights, 6, rng), minlength=6) for _ in range(4000)], axis=0)
    assert counts == pytest.approx(6 * weights / weights.sum(), abs=0.03)


def test_neighbours_of_equal_weight_do_not_come_and_go_together():
    """In the order of the dataset, of four pictures with an expectation of 1/2 every other one would be chosen."""
    rng = np.random.default_rng(1)
    pairs = {tuple(sorted(systematic(np.ones(4), 2, rng))) for _ in range(200)}
    assert len(pairs) == 6


WEIGHTS = np.array([1.0, 3.0, 1.0, 1.0, 8.0, 1.0, 1.0])


def test_epochs_keep_their_length_and_number_the_repeats():
    keys = list(chain(*islice(Stream(7, 3, seed=0, weights=WEIGHTS), 28)))
    for epoch in range(12):
        part = keys[epoch * 7 : epoch * 7 + 7]
        assert {e for e, _, _ in part} == {epoch}
        counts = Counter(index for _, index, _ in part)
        assert all(math.floor(w * 7 / 16) <= counts[k] <= math.ceil(w * 7 / 16) for k, w in enumerate(WEIGHTS))
        for index, count in counts.items():
            assert [r for _, i, r in part if i == index] == list(range(count))
    shares = Counter(index for _, index, _ in chain(*islice(Stream(7, 7, 3, weights=WEIGHTS), 2000)))
    assert [shares[k] / 2000 for k in range(7)] == pytest.approx(7 * WEIGHTS / 16, abs=0.05)


@pytest.mark.parametrize("start", [0, 1, 5, 23])
def test_a_resumed_balanced_stream_goes_on_as_if_nothing_had_happened(start: int):
    whole = list(Stream(7, 4, seed=2, stop=40, weights=WEIGHTS))
    assert list(Stream(7, 4, seed=2, start=start, stop=40, weights=WEIGHTS)) == whole[start:]


def test_ranks_together_see_the_larger_balanced_batch_of_one_process():
    ranks = [Stream(7, 2, 5, rank, 3, stop=20, weights=WEIGHTS) for rank in range(3)]
    whole = list(Stream(7, 6, 5, stop=20, weights=WEIGHTS))
    assert [list(chain(*parts)) for parts in zip(*ranks, strict=True)] == whole


def test_uniform_order_is_that_of_the_seed_alone():
    """As it always was: a training of before goes on with the same pictures."""
    source = np.random.SeedSequence((3, 1), spawn_key=(0,))
    expected = np.random.default_rng(source).permutation(9)
    keys = list(chain(*Stream(9, 3, 3, start=3, stop=6)))
    assert keys == [(1, index, 0) for index in expected]


@pytest.mark.parametrize("weights", [[1.0, 1.0], [1.0, 0.0, 1.0], [1.0, -1.0, 1.0], [1.0, np.nan, 1.0], [1, np.inf, 1]])
def test_weights_that_make_no_sense_are_refused(weights: list[float]):
    with pytest.raises(DataError, match="for 3 pictures; needed is one for each, above 0 and finite"):
        Stream(3, 1, 0, weights=np.array(weights))


def test_a_picture_that_comes_twice_in_an_epoch_is_augmented_differently():
    data = ScenesDataset(count=3, height=32, width=32)
    weights = np.array([1.0, 1.0, 100.0])
    options = {"size": (32, 32), "augment": Augment(), "seed": 1, "with_positions": False, "instances": False}
    (batch,) = train_loader(data, batch_size=3, stop=1, weights=weights, **options)
    same = [k for k, name in enumerate(batch.names) if name == data.name(2)]
    assert len(same) >= 2
    assert not np.array_equal(batch.image[same[0]], batch.image[same[1]])
    keyed = {(name, k) for k, name in enumerate(batch.names)}
    whole = list(train_loader(data, batch_size=1, stop=3, weights=weights, **options))
    assert {(b.names[0], k) for k, b in enumerate(whole)} == keyed
    assert all(np.array_equal(b.image[0], batch.image[k]) for k, b in enumerate(whole))


def test_classes_are_read_in_order_and_a_broken_picture_stops_or_has_none():
    data = Pictures([0, 1], [3], [], [2, 2, 0])
    assert [ids.tolist() for ids in read_classes(data, skip=True)] == [[0, 1], [3], [], [0, 2]]
    with pytest.raises(LabelError, match="picture 2: broken"):
        read_classes(data)


def test_the_recipe_chooses_the_weights():
    data = ScenesDataset(count=12, height=32, width=32)
    config = Recipe.from_dict({"data": {"sampling": "balanced"}}).data
    present = [np.unique(data.read(k).ids).tolist() for k in range(12)]
    found = build_weights(config, data)
    assert found == pytest.approx(factors_by_hand(present, data.label_space.num_classes, None))
    assert found.max() > 1
    assert build_weights(Recipe().data, data) is None


@pytest.mark.parametrize(
    ("have", "size", "expected"),
    [
        ((100, 200), (50, 50), (50, 100)),
        ((200, 100), (50, 50), (100, 50)),
        ((100, 100), (30, 60), (60, 60)),
        ((7, 5), (14, 10), (14, 10)),
        ((720, 960), (286, 286), (286, 381)),
        ((3, 1000), (2, 2), (2, 667)),
    ],
)
def test_the_covering_size_keeps_the_aspect_ratio(have: tuple[int, int], size: tuple[int, int], expected: object):
    assert covering(have, size) == expected


@example((40, 100), (49, 1))  # half a pixel exactly, but for rounding
@given(st.tuples(*[st.integers(1, 3000)] * 2), st.tuples(*[st.integers(1, 600)] * 2))
def test_the_covering_size_covers_and_is_no_larger_than_it_must(have: tuple[int, int], size: tuple[int, int]):
    found = covering(have, size)
    scale = max(size[0] / have[0], size[1] / have[1])
    assert all(f >= s for f, s in zip(found, size, strict=True))
    assert any(f == s for f, s in zip(found, size, strict=True))
    assert all(abs(f - h * scale) <= 0.5 + 1e-9 * f or f == s for f, h, s in zip(found, have, size, strict=True))


@pytest.mark.parametrize(("fit", "expected"), [("stretch", (20, 20)), ("crop", (20, 30))])
def test_pictures_come_at_the_load_size(fit: str, expected: tuple[int, int]):
    source = ScenesDataset(count=2, height=40, width=60)
    data = Resized(source, (20, 20), fit)
    sample = data.read(1)
    assert sample.size == sample.image.shape[:2] == sample.instances.shape == expected
    assert (sample.name, len(data), data.label_space) == (source.name(1), 2, source.label_space)
    rows, columns = ((np.arange(n) * 2 + 1) * m // (2 * n) for n, m in zip(expected, (40, 60), strict=True))
    assert np.array_equal(sample.ids, source.read(1).ids[rows][:, columns])
    assert np.array_equal(data.classes(1), sorted(set(sample.ids.flatten())))
    with pytest.raises(RecipeError, match="fit is 'pad'"):
        Resized(source, (20, 20), "pad")  # pyright: ignore[reportArgumentType]
    with pytest.raises(RecipeError, match="load_size is 0 x 20"):
        Resized(source, (0, 20))


def test_the_recipe_s_load_size_comes_before_the_cache(tmp_path: Path):
    for split in ("train", "val"):
        write_folder(tmp_path / split)
    plain = {"name": "folder", "root": str(tmp_path), "size": [32, 32], "load_size": [40, 36]}
    data = build_dataset(Recipe.from_dict({"data": plain}).data, "train")
    assert data.read(0).size == (40, 36)
    assert data.read(0) is data.read(0)
    assert data.classes(0).tolist() == np.unique(data.read(0).ids).tolist()


@pytest.mark.parametrize("fit", ["stretch", "crop"])
@pytest.mark.parametrize("name", ["folder", "prepared"])
def test_a_prepared_root_gives_the_batches_of_the_raw_one_balanced_too(tmp_path: Path, fit: str, name: str):
    write_folder(tmp_path / "raw" / "train")
    changes = ["--data.size=[32, 32]", "--data.load_size=[40, 36]", f"--data.fit={fit}", "--data.sampling=balanced"]
    raw = Recipe.from_dict({"data": {"name": "folder", "root": str(tmp_path / "raw")}}, changes).data
    options = {"root": str(tmp_path / "raw")}
    prepare("folder", tmp_path / "stored", size=(40, 36), options=options, splits=["train"], fit=fit, progress=False)  # pyright: ignore[reportArgumentType]
    stored = Recipe.from_dict({"data": {"name": name, "root": str(tmp_path / "stored")}}, changes).data
    batches = []
    for config in (raw, stored):
        data = build_dataset(config, "train")
        weights = build_weights(config, data)
        assert weights is not None
        assert weights.max() > 1
        options = {"size": (32, 32), "augment": Augment(), "seed": 1, "with_positions": True, "instances": False}
        batches.append(list(train_loader(data, batch_size=2, stop=5, weights=weights, **options)))
    for a, b in zip(*batches, strict=True):
        assert a.names == b.names
        assert np.array_equal(a.image, b.image)
        assert np.array_equal(a.label_map.ids, b.label_map.ids)
    with pytest.raises(DataError, match="load_size"):
        build_dataset(
            Recipe.from_dict({"data": {"root": stored.root, "name": name, "load_size": [64, 64]}}).data, "train"
        )


def write_folder(root: Path) -> None:
    """Four pictures, of which one alone has a tree, and that of a single pixel."""
    for k in range(4):
        rng = np.random.default_rng(k)
        labels = np.zeros((48, 64), np.uint8)
        labels[20 + k :, k:] = 2
        labels[::7, ::5][0, 0] = k == 1
        for part, pixels in (("images", rng.integers(0, 256, (48, 64, 3), np.uint8)), ("labels", labels)):
            (root / part).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(root / part / f"{k}.png")
    (root / "classes.json").write_text('{"names": ["sky", "tree", "grass"]}', encoding="utf-8")
