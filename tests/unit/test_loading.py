"""Batches: the same ones however training is interrupted, spread over processes or read by workers."""

from __future__ import annotations

import pickle
import signal
import subprocess
import sys
from collections import Counter
from itertools import chain, islice
from typing import Any

import numpy as np
import pytest
import torch

from clade.data import Augment, Batch, Cached, Dataset, Sample, ScenesDataset, Stream, eval_loader, train_loader
from clade.data.transforms import random_crop
from clade.errors import DataError
from clade.labels.labelspace import LabelSpace


class Numbered(Dataset):
    """Pictures that are known by their number; number ``broken`` cannot be read."""

    def __init__(self, length: int, broken: int | None = None) -> None:
        self.label_space = LabelSpace.numbered(4)
        self.length, self.broken, self.reads = length, broken, 0

    def __len__(self) -> int:
        return self.length

    def name(self, index: int) -> str:
        return f"picture {index}"

    def read(self, index: int) -> Sample:
        self.reads += 1
        if index == self.broken:
            raise DataError(f"{self.name(index)}: broken.")
        ids = np.random.default_rng(index).integers(0, 4, (9 + index % 3, 12), np.uint8)
        return Sample(self.name(index), np.repeat(ids[..., None], 3, axis=2) * 80, ids, ids.astype(np.int32))


def loader(dataset: Dataset, **changes: Any):
    options: dict[str, Any] = {"size": (8, 10), "batch_size": 4, "augment": Augment(jitter=0.2), "seed": 1}
    options |= {"with_positions": True, "instances": True, "stop": 6}
    return train_loader(dataset, **(options | changes))


def plain_loader(dataset: Dataset, **changes: Any):
    options: dict[str, Any] = {"size": (8, 10), "batch_size": 4, "with_positions": False, "instances": False}
    return eval_loader(dataset, **(options | changes))


def same(a: Batch, b: Batch) -> bool:
    pairs = [
        (a.image, b.image),
        *((getattr(a.label_map, p), getattr(b.label_map, p)) for p in ("ids", "instances", "positions")),
    ]
    return a.names == b.names and all(torch.equal(x, y) for x, y in pairs)


def names(batches: Any) -> list[str]:
    return [name for batch in batches for name in batch.names]


def test_every_picture_comes_once_per_epoch_in_another_order():
    keys = [key for batch in islice(Stream(7, 3, seed=0), 28) for key in batch]
    epochs = [keys[k : k + 7] for k in range(0, 84, 7)]
    for epoch, part in enumerate(epochs):
        assert {e for e, _, _ in part} == {epoch}
        assert sorted(index for _, index, _ in part) == list(range(7))
    assert len({tuple(index for _, index, _ in part) for part in epochs}) > 8


@pytest.mark.parametrize(("length", "batch_size"), [(7, 3), (5, 5), (2, 9), (1, 4), (11, 1)])
def test_no_picture_gets_ahead_of_another_by_more_than_one(length: int, batch_size: int):
    counts = Counter(dict.fromkeys(range(length), 0))
    for batch in islice(Stream(length, batch_size, seed=3), 60):
        counts.update(index for _, index, _ in batch)
        assert max(counts.values()) - min(counts.values()) <= 1


@pytest.mark.parametrize("start", [0, 1, 5, 23])
def test_a_resumed_stream_goes_on_as_if_nothing_had_happened(start: int):
    whole = list(Stream(10, 4, seed=2, stop=40))
    assert list(Stream(10, 4, seed=2, start=start, stop=40)) == whole[start:]
    assert len(Stream(10, 4, seed=2, start=start, stop=40)) == 40 - start


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_together_see_the_larger_batch_of_one_process(world_size: int):
    ranks = [Stream(11, 4, 5, rank, world_size, stop=20) for rank in range(world_size)]
    whole = list(Stream(11, 4 * world_size, 5, stop=20))
    assert [list(chain(*parts)) for parts in zip(*ranks, strict=True)] == whole


def test_seeds_shuffle_differently_and_streams_survive_pickling():
    assert list(Stream(50, 50, 1, stop=1)) != list(Stream(50, 50, 2, stop=1))
    assert list(pickle.loads(pickle.dumps(Stream(9, 4, 1, stop=9)))) == list(Stream(9, 4, 1, stop=9))


def test_stream_without_end_has_no_length():
    with pytest.raises(TypeError):
        len(Stream(5, 2, 0))


def test_stream_refuses_numbers_that_make_no_sense():
    for arguments in ((0, 4, 0), (5, 0, 0), (5, 4, -1), (5, 4, 0, 2, 2), (5, 4, 0, -1, 2), (5, 4, 0, 0, 1, -1)):
        with pytest.raises(DataError):
            Stream(*arguments)


def test_a_resumed_loader_gives_the_same_batches():
    whole = list(loader(Numbered(10)))
    resumed = list(loader(Numbered(10), start=3))
    assert len(whole) == 6
    assert len(resumed) == 3
    assert all(same(a, b) for a, b in zip(whole[3:], resumed, strict=True))


def test_a_picture_is_augmented_differently_in_every_epoch():
    first, second, third = loader(Numbered(4), size=(9, 12), stop=3)
    shown = [{name: batch.image[k] for k, name in enumerate(batch.names)} for batch in (first, second, third)]
    assert sum(torch.equal(shown[0][name], shown[1][name]) for name in shown[0]) < 4
    assert sum(torch.equal(shown[1][name], shown[2][name]) for name in shown[0]) < 4


def test_ranks_of_the_loader_join_to_the_larger_batch():
    ranks = [loader(Numbered(10), batch_size=2, rank=rank, world_size=2, stop=5) for rank in (0, 1)]
    for whole, a, b in zip(loader(Numbered(10), stop=5), *ranks, strict=True):
        assert whole.names == a.names + b.names
        assert torch.equal(whole.image, torch.cat([a.image, b.image]))
        assert torch.equal(whole.label_map.positions, torch.cat([a.label_map.positions, b.label_map.positions]))


@pytest.mark.slow
def test_workers_change_nothing():
    dataset = ScenesDataset(count=10, height=24, width=32)
    alone = list(loader(dataset))
    with_workers = loader(dataset, workers=2)
    for _ in range(2):  # the second pass goes through the same processes
        assert all(same(a, b) for a, b in zip(alone, with_workers, strict=True))
    evaluated = [list(plain_loader(dataset, with_positions=True, instances=True, workers=w)) for w in (0, 2)]
    assert all(same(a, b) for a, b in zip(*evaluated, strict=True))


@pytest.mark.slow
def test_an_error_comes_out_of_a_worker_as_it_was_raised():
    for workers in (0, 1):
        message = None
        try:  # pytest.raises would keep the loader, and with it the workers
            list(plain_loader(Numbered(6, broken=5), workers=workers))
        except DataError as error:
            message = str(error)
        assert message == "picture 5: broken."


def test_range_of_the_ids_is_known_before_the_batch_reaches_a_gpu():
    batch = next(iter(loader(Numbered(10))))
    # Numbers on the meta device cannot be read: this passes only if they need not be.
    assert batch.to("meta").label_map.check(4)


def test_evaluation_shows_every_picture_once_in_order_with_the_last_batch_smaller():
    batches = list(plain_loader(Numbered(10)))
    assert [len(batch) for batch in batches] == [4, 4, 2]
    assert names(batches) == [f"picture {k}" for k in range(10)]
    assert batches[0].label_map.positions is None


@pytest.mark.parametrize("world_size", [2, 3, 12])
def test_ranks_of_the_evaluation_share_out_every_picture_once(world_size: int):
    parts = [names(plain_loader(Numbered(10), rank=rank, world_size=world_size)) for rank in range(world_size)]
    assert sorted(chain(*parts)) == sorted(f"picture {k}" for k in range(10))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_evaluation_can_keep_each_pictures_own_size():
    sizes = [batch.label_map.size for batch in plain_loader(Numbered(4), size=None, batch_size=1)]
    assert sizes == [(9, 12), (10, 12), (11, 12), (9, 12)]
    with pytest.raises(DataError, match="batch_size 1"):
        plain_loader(Numbered(4), size=None)


def test_cache_reads_once_and_gives_the_same_samples():
    source = Numbered(5)
    cached = Cached(source)
    for _ in range(3):
        for index in range(5):
            expected, got = Numbered(5).read(index), cached.read(index)
            assert got.name == expected.name == cached.name(index)
            assert np.array_equal(got.ids, expected.ids)
            assert np.array_equal(got.image, expected.image)
    assert source.reads == len(cached) == 5
    with pytest.raises(ValueError, match="read-only"):
        cached.read(0).ids[0, 0] = 1


def test_cache_stops_at_its_limit():
    source = Numbered(5)
    one = sum(part.nbytes for part in (source.read(0).image, source.read(0).ids, source.read(0).instances))
    cached = Cached(source, limit=one)
    source.reads = 0
    for _ in range(3):
        cached.read(0)
        cached.read(1)
    assert source.reads == 1 + 3
    assert cached.used == one


def test_batches_of_a_cached_dataset_are_the_same():
    cached = Cached(Numbered(10))
    for _ in range(2):
        assert all(same(a, b) for a, b in zip(loader(Numbered(10)), loader(cached), strict=True))


class Holed(Numbered):
    """Pictures of which several cannot be read."""

    def __init__(self, length: int, *broken: int) -> None:
        super().__init__(length)
        self.holes = broken

    def read(self, index: int) -> Sample:
        if index in self.holes:
            raise DataError(f"{self.name(index)}: broken.")
        return super().read(index)


def test_the_next_picture_takes_the_place_of_a_broken_one_and_all_others_stay():
    """After the last comes the first. The augmentation is that of the place."""
    told: list[str] = []
    found = list(loader(Holed(10, 3, 4, 9), on_skip=told.append))
    whole = list(loader(Numbered(10)))
    instead = {"picture 3": "picture 5", "picture 4": "picture 5", "picture 9": "picture 0"}
    assert names(found) == [instead.get(name, name) for name in names(whole)]
    keys = list(chain(*Stream(10, 4, 1, stop=6)))
    images, originals = (torch.cat([batch.image for batch in part]) for part in (found, whole))
    for k, (epoch, index, _) in enumerate(keys):
        if index not in (3, 4, 9):
            assert torch.equal(images[k], originals[k])
            continue
        sample = Numbered(10).read({3: 5, 4: 5, 9: 0}[index])
        expected = Augment(jitter=0.2)(sample, (8, 10), np.random.default_rng((1, epoch, index))).image
        assert np.array_equal(((images[k].permute(1, 2, 0) + 1) * 127.5).round(), expected)
    met = [index for _, index, _ in keys]
    assert Counter(told) == Counter(
        {"picture 3: broken.": met.count(3), "picture 4: broken.": met.count(3) + met.count(4)}
        | {"picture 9: broken.": met.count(9)}
    )


def test_a_dataset_that_is_all_broken_stops_with_the_first_message():
    told: list[str] = []
    with pytest.raises(DataError, match=r"None of the 3 pictures can be used.* picture \d: broken\."):
        next(iter(loader(Holed(3, 0, 1, 2), on_skip=told.append)))
    assert not told


def test_a_picture_that_is_too_small_to_cut_out_of_is_skipped_as_a_broken_one_is():
    class Uneven(Numbered):
        def read(self, index: int) -> Sample:
            sample = super().read(index)
            return random_crop(sample, (7, 10), np.random.default_rng(0)) if index == 4 else sample

    told: list[str] = []
    augment = Augment(crop="pixels")
    found = names(loader(Uneven(10), augment=augment, on_skip=told.append))
    assert found == [{"picture 4": "picture 5"}.get(name, name) for name in names(loader(Numbered(10)))]
    assert set(told) == {
        "picture 4 is 7 x 10 (height x width), so 8 x 10 cannot be cut out of it. Resize it first, or crop less."
    }
    with pytest.raises(DataError, match="picture 4 is 7 x 10"):
        list(loader(Uneven(10), augment=augment))


def test_without_on_skip_the_first_broken_picture_stops():
    with pytest.raises(DataError, match="picture 4: broken"):
        list(loader(Holed(10, 4)))


def test_evaluation_leaves_broken_pictures_out():
    told: list[str] = []
    batches = list(plain_loader(Holed(10, 0, 4, 5, 6, 7), on_skip=told.append))
    assert [batch.names for batch in batches] == [
        ("picture 1", "picture 2", "picture 3"),
        ("picture 8", "picture 9"),
    ]
    assert told == [f"picture {k}: broken." for k in (0, 4, 5, 6, 7)]
    expected = list(plain_loader(Numbered(10)))
    assert torch.equal(batches[0].image, expected[0].image[1:])
    assert not list(plain_loader(Holed(2, 0, 1), on_skip=told.append))


@pytest.mark.slow
def test_workers_skip_the_same_pictures():
    told: list[list[str]] = [[], []]
    found = [list(loader(Holed(10, 2, 3), workers=w, on_skip=told[k].append)) for k, w in enumerate((0, 2))]
    assert all(same(a, b) for a, b in zip(*found, strict=True))
    assert told[0] == told[1] != []


def test_a_process_ends_though_it_keeps_a_loader_with_workers(tmp_path):
    script = tmp_path / "kept.py"
    script.write_text(
        """
import sys
from clade.data import Augment, ScenesDataset, train_loader

if __name__ == "__main__":
    data = ScenesDataset(count=8, height=32, width=32)
    loader = train_loader(
        data, size=(32, 32), batch_size=2, augment=Augment(), seed=0, with_positions=False, instances=False, workers=1
    )
    sys.kept = iter(loader)
    next(sys.kept)
    print("ends")
""",
        encoding="utf-8",
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ends\n", "")


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_workers_end_with_a_process_that_is_killed_however_they_were_started(method, tmp_path):
    script = tmp_path / "killed.py"
    script.write_text(
        """
import multiprocessing, os, signal, sys
from clade.data import Augment, ScenesDataset, train_loader

if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    data = ScenesDataset(count=8, height=32, width=32)
    loader = train_loader(
        data, size=(32, 32), batch_size=2, augment=Augment(), seed=0, with_positions=False, instances=False, workers=2
    )
    batches = iter(loader)
    next(batches)
    print(len(multiprocessing.active_children()), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
""",
        encoding="utf-8",
    )
    # The pipe of the output ends with the last process that has it.
    done = subprocess.run([sys.executable, str(script), method], stdout=subprocess.PIPE, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, "2\n")
