"""Folders of label maps: the same pictures however the work is arranged, failures, interruptions, bounded memory."""

from __future__ import annotations

import re
import threading
import warnings
from concurrent.futures import Executor, Future

import numpy as np
import pytest
import torch
from PIL import Image

from clade import CladeError, LabelError, LabelMap, LabelSpace, Synthesizer, create_generator
from clade.io.images import to_uint8
from clade.labels import instance_edges
from clade.synthesis import Pace, Pipeline, by_size, find_labels, generate, other_names, pipeline

SPACE = LabelSpace(names=("sky", "tree", "road"), unknown=255)
SIZES = {"a": (8, 8), "b": (16, 24), "c": (8, 8), "d": (10, 14), "e": (16, 24), "f": (8, 8), "g": (24, 16), "h": (8, 8)}
WAIT = 30  # seconds until a test that would wait for ever fails


def generator(**options):
    torch.manual_seed(0)
    made = create_generator("clade-icpe", num_classes=3, unknown_class=True, width=1, instance_edges=True, **options)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn(parameter.shape), alpha=0.1)
    return made


class Painter(Synthesizer):
    """Paints what a network is given, pixel by pixel, so that the pictures of a batch are exactly those of its maps."""

    def __init__(self, space=SPACE, **options):
        super().__init__(generator(**options), space, device="cpu")
        self.batches = []

    def __call__(self, label_map, style=None, seed=None, z=None):
        assert label_map.positions is not None  # computed ahead of the network
        self.batches.append((len(label_map), *label_map.size))
        instances = label_map.ids if label_map.instances is None else label_map.instances
        red = label_map.ids / 4 + instance_edges(instances) / 8
        shade = 0 if z is None else z[:, :1, None] / 100
        return torch.stack([red, *(label_map.positions.movedim(1, 0) / 2 + shade)], 1) - 0.3


@pytest.fixture
def dataset(tmp_path):
    """Maps of several sizes, two thirds of them with instances."""
    random = np.random.default_rng(0)
    for number, (name, size) in enumerate(SIZES.items()):
        save(random.choice([0, 1, 2, 255], size), tmp_path / "data" / "labels" / f"{name}.png")
        if number % 3:
            save(random.integers(0, 9, size), tmp_path / "data" / "instances" / f"{name}.png")
    return tmp_path / "data"


def save(numbers, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(numbers.astype(np.uint8)).save(path)


def pixels(path):
    return np.asarray(Image.open(path))


def one_by_one(synthesizer, dataset, seed=None):
    """name -> pixels, without any of the machinery for folders."""
    drawn = {}
    for name in SIZES:
        instances = dataset / "instances" / f"{name}.png"
        ids = synthesizer.read(dataset / "labels" / f"{name}.png").ids
        label_map = LabelMap(ids, pixels(instances) if instances.exists() else None)
        label_map = synthesizer.generator.prepare(label_map)
        z = synthesizer.latent(label_map, seed=seed)
        drawn[name] = to_uint8(synthesizer(label_map, z=z, seed=seed))[0]
    return drawn


def nothing_left(folder):
    helpers = [thread.name for thread in threading.enumerate() if thread.name.startswith("clade-helper")]
    return not helpers and not [path for path in folder.rglob("*") if path.name.endswith(".tmp")]


# --- The same pictures ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 2, 3, 8])
@pytest.mark.parametrize("options", [{}, {"z_dim": 4, "size": (16, 16)}], ids=["plain", "latent"])
def test_pictures_do_not_depend_on_batch_or_helpers(dataset, tmp_path, batch, options):
    expected = one_by_one(Painter(**options), dataset, seed=5)
    synthesizer = Painter(**options)
    for workers in (0, 1, 2, 5):
        synthesizer.batches.clear()
        out = tmp_path / f"out-{workers}"
        outcome = generate(synthesizer, [dataset], out, seed=5, batch=batch, workers=workers)
        assert [path.stem for path in outcome.written] == list(SIZES), workers
        for path in outcome.written:
            np.testing.assert_array_equal(pixels(path), expected[path.stem], err_msg=f"{path.stem}, {workers} workers")
        assert max(count for count, *_ in synthesizer.batches) == min(batch, 3), workers  # no more of one kind
        assert sum(count for count, *_ in synthesizer.batches) == len(SIZES), workers
        assert nothing_left(out), workers


def test_a_network_draws_the_same_bits_with_helpers_and_the_same_picture_in_batches(dataset, tmp_path):
    synthesizer = Synthesizer(generator(), SPACE, device="cpu", precision="fp32")
    expected = one_by_one(synthesizer, dataset)
    for path in generate(synthesizer, [dataset], tmp_path / "one").written:
        np.testing.assert_array_equal(pixels(path), expected[path.stem], err_msg=path.stem)
    # Convolutions of a batch may sum in another order.
    for path in generate(synthesizer, [dataset], tmp_path / "batch", batch=4).written:
        assert np.abs(pixels(path).astype(int) - expected[path.stem]).max() <= 1, path.stem


def test_samples_of_a_batch_are_those_of_their_seeds(dataset, tmp_path):
    synthesizer = Painter(z_dim=4, size=(16, 16))
    outcome = generate(synthesizer, [dataset], tmp_path / "out", seed=5, samples=2, batch=3)
    assert [path.stem for path in outcome.written] == [f"{name}-{k}" for name in SIZES for k in (1, 2)]
    for k in (1, 2):
        for name, expected in one_by_one(synthesizer, dataset, seed=4 + k).items():
            np.testing.assert_array_equal(pixels(tmp_path / "out" / f"{name}-{k}.png"), expected)


def test_a_network_with_noise_of_its_own_draws_one_by_one(dataset, tmp_path):
    synthesizer = Painter()
    synthesizer.generator.stochastic = True
    generate(synthesizer, [dataset], tmp_path / "out", batch=4)
    assert {count for count, *_ in synthesizer.batches} == {1}


def test_the_network_meets_each_size_once_the_largest_first(dataset, tmp_path):
    synthesizer = Painter()
    generate(synthesizer, [dataset], tmp_path / "out")
    sizes = [size for _, *size in synthesizer.batches]
    changes = [after for before, after in zip([None, *sizes], sizes, strict=False) if after != before]
    assert changes == [[24, 16], [16, 24], [10, 14], [8, 8]]
    synthesizer.batches.clear()
    generate(synthesizer, [dataset], tmp_path / "sized", size=(16, 16), batch=8)
    assert sum(count for count, *_ in synthesizer.batches) == len(SIZES)
    assert len(synthesizer.batches) == 2  # with instances, and without


def test_files_of_unknown_size_come_last_and_are_still_read(dataset):
    (dataset / "labels" / "b.png").write_bytes(b"")
    files, _ = find_labels([dataset])
    order = by_size(files, read_sizes=True, read_instances=False)
    assert "".join(file.name for file in order) == "gedacfhb"
    assert by_size(files, read_sizes=False, read_instances=False) == files


# --- Failures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("batch", [1, 3])
def test_files_that_cannot_be_used_are_named_and_all_others_drawn(dataset, tmp_path, batch, workers):
    (dataset / "labels" / "a.png").write_bytes(b"broken")
    save(np.full((16, 24), 77), dataset / "labels" / "e.png")
    save(np.zeros((3, 3)), dataset / "instances" / "f.png")
    filters = warnings.filters[:]
    outcome = generate(Painter(), [dataset], tmp_path / "out", batch=batch, workers=workers)
    assert [path.stem for path in outcome.written] == list("bcdgh")
    assert [path.stem for path in outcome.failed] == list("aef")
    assert all(str(path) in message for path, message in outcome.failed.items())
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [f"{name}.png" for name in "bcdgh"]
    assert outcome.without_instances == 2  # d and g; a is broken
    assert warnings.filters == filters


def test_a_map_that_the_network_refuses_does_not_take_its_batch_along(dataset, tmp_path):
    class Picky(Painter):
        def __call__(self, label_map, **rest):
            if (label_map.ids == 2).sum((1, 2)).eq(0).any():
                raise LabelError("no road")
            return super().__call__(label_map, **rest)

    save(np.zeros((8, 8)), dataset / "labels" / "c.png")
    outcome = generate(Picky(), [dataset], tmp_path / "out", batch=4)
    assert outcome.failed == {dataset / "labels" / "c.png": f"{dataset / 'labels' / 'c.png'}: no road"}
    assert [path.stem for path in outcome.written] == list("abdefgh")


def test_the_overview_shows_the_first_files_that_can_be_drawn_whatever_their_size(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr("clade.synthesis.folder.GRID_ROWS", 3)
    (dataset / "labels" / "a.png").write_bytes(b"broken")
    outcome = generate(Painter(), [dataset], tmp_path / "out", grid=True, batch=2)
    heights = [SIZES[name][0] for name in "bcd"]
    grid = pixels(outcome.grid)
    assert grid.shape[0] == sum(heights) + 4 * 4
    top = 4 + heights[0] + 4
    np.testing.assert_array_equal(grid[top : top + 8, 32:40], pixels(tmp_path / "out" / "c.png"))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_picture_that_cannot_be_written_stops_everything_with_its_name(dataset, tmp_path, workers):
    (tmp_path / "out" / "b.png").mkdir(parents=True)
    with pytest.raises(CladeError, match=r"b\.png: cannot be written"):
        generate(Painter(), [dataset], tmp_path / "out", workers=workers)
    assert nothing_left(tmp_path / "out")
    for path in (tmp_path / "out").glob("*.png"):
        assert path.is_dir() or pixels(path).any()


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
@pytest.mark.parametrize("workers", [0, 1, 3])
def test_an_end_in_the_middle_leaves_whole_pictures_and_nothing_else(dataset, tmp_path, workers, error):
    class Ends(Painter):
        def __call__(self, label_map, **rest):
            if len(self.batches) == 5:
                raise error
            return super().__call__(label_map, **rest)

    expected = one_by_one(Painter(), dataset)
    with pytest.raises(error):
        generate(Ends(), [dataset], tmp_path / "out", workers=workers)
    assert nothing_left(tmp_path / "out")
    written = sorted(path.stem for path in (tmp_path / "out").iterdir())
    assert set(written) <= set("gbedc")
    if error is not KeyboardInterrupt or workers == 0:
        assert len(written) == 5  # all that were drawn
    for name in written:
        np.testing.assert_array_equal(pixels(tmp_path / "out" / f"{name}.png"), expected[name])


@pytest.mark.parametrize(("option", "value"), [("batch", 0), ("workers", -1)])
def test_impossible_numbers_are_refused(dataset, tmp_path, option, value):
    with pytest.raises(CladeError, match=f"{option} is {value}; needed is at least"):
        generate(Painter(), [dataset], tmp_path / "out", **{option: value})
    assert not (tmp_path / "out").exists()


# --- The pipeline -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_what_is_made_ahead_comes_in_order_and_is_bounded(depth):
    begun = threading.Semaphore(0)
    started = []

    def make(item):
        started.append(item)
        begun.release()
        return -item

    waited_for = taken = 0
    with Pipeline(3, depth) as line:
        for item, future in line.ahead(make, range(20)):
            while waited_for < min(20, taken + depth):  # it does begin them before they are asked for
                assert begun.acquire(timeout=WAIT)
                waited_for += 1
            assert item == taken
            assert future.result() == -item
            assert len(started) <= taken + depth
            taken += 1
    assert taken == 20


def test_what_waits_behind_is_bounded_and_finished_at_the_end(monkeypatch):
    begun, done, most = [], [], []

    class Slow(Future):
        """A call that is only done when somebody waits for it."""

        def result(self, timeout=None):
            done.append(self)

    class SlowPool(Executor):
        def __init__(self, workers, name):
            pass

        def submit(self, fn, *args):
            begun.append(Slow())
            most.append(len(begun) - len(done))
            return begun[-1]

    monkeypatch.setattr(pipeline, "ThreadPoolExecutor", SlowPool)
    with Pipeline(2, 3) as line:
        for item in range(50):
            line.behind(print, item)
    assert done == begun
    assert max(most) == 3


def test_reading_drawing_and_writing_happen_at_the_same_time():
    read = [threading.Event() for _ in range(6)]
    written = [threading.Event() for _ in range(6)]

    def make(item):
        read[item].set()
        return item

    def draw(item):
        if item < 5:
            assert read[item + 1].wait(WAIT)  # the next is read while this one is drawn,
        if item > 0:
            assert written[item - 1].wait(WAIT)  # and the one before is written
        yield item

    with Pipeline(1, 2) as line:
        for _, future in line.ahead(make, range(6)):
            for item in line.network(draw(future.result())):
                line.behind(written[item].set)
    assert all(event.is_set() for event in written)


def test_without_workers_everything_happens_in_turn_in_the_calling_thread():
    events = []

    def note(what, item):
        events.append((what, item, threading.current_thread() is threading.main_thread()))

    with Pipeline(0, 4) as line:
        for item, _ in line.ahead(lambda item: note("read", item), range(2)):
            note("draw", item)
            line.behind(note, "write", item)
    assert events == [(what, item, True) for item in range(2) for what in ("read", "draw", "write")]


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_behind_is_raised_and_what_was_behind_it_is_done(workers):
    done = []

    def put_away(item):
        if item == 1:
            raise ZeroDivisionError
        done.append(item)

    def run():
        with Pipeline(workers, 8) as line:
            for item in range(4):
                line.behind(put_away, item)

    with pytest.raises(ZeroDivisionError):
        run()
    assert {0} <= set(done) <= {0, 2, 3}


def test_the_pace_is_measured_around_the_network(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(pipeline.time, "perf_counter", lambda: clock[0])

    def passes(seconds):
        clock[0] += seconds

    def draw():
        for _ in range(2):
            passes(3)
            yield

    with Pipeline(0, 1) as line:
        for _ in line.ahead(lambda _: passes(2), range(3)):
            for _ in line.network(draw()):
                line.behind(passes, 1)
    pace = line.pace(6)
    # 2 + (3 + 1 + 3 + 1), three times; the span begins after the first 2 and ends before the last 1.
    assert pace == Pace(pictures=6, seconds=30, network=18, span=27)
    assert pace.busy == 18 / 27
    assert pace.busy_overall == 18 / 30
    assert pace.rate == 6 / 30
    assert str(pace) == "6 pictures in 30.0 s (0.2 pictures/s), network busy 67 % of the time"


def test_a_folder_reports_its_pace(dataset, tmp_path):
    pace = generate(Painter(), [dataset], tmp_path / "out").pace
    assert pace.pictures == len(SIZES)
    assert 0 < pace.network <= pace.span <= pace.seconds
    assert Pace().busy == Pace().busy_overall == Pace().rate == 0


# --- Names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["sky", "tree", "road"], None),
        (["Sky", "tree", "class 2"], None),
        (["sky", "tree", "road", "more"], None),
        (["sky", "road", "tree"], r"calls class 1 'road', and the network learned it as 'tree' \(1 more differ\)"),
        (["sky", "tree", "river"], r"calls class 2 'river', and the network learned it as 'road'. "),
    ],
)
def test_a_dataset_that_names_classes_otherwise_is_noted(dataset, tmp_path, names, said):
    listed = ", ".join(f'"{name}"' for name in names)
    (dataset / "classes.json").write_text(f'{{"names": [{listed}]}}')
    outcome = generate(Painter(), [dataset / "labels" / "a.png"], tmp_path / "out")
    assert len(outcome.written) == 1
    if said is None:
        assert outcome.notes == []
    else:
        (note,) = outcome.notes
        assert note.startswith(str(dataset / "classes.json"))
        assert re.search(said, note)


def test_names_are_compared_for_numbers_that_are_read_as_they_stand(dataset):
    (dataset / "classes.json").write_text('{"names": ["sky", "road", "tree"]}')
    files, _ = find_labels([dataset])
    swapped = LabelSpace(names=SPACE.names, remap={1: 2, 2: 1})
    assert other_names(files, swapped) == []
    assert len(other_names(files, SPACE)) == 1


def test_labels_that_were_merged_already_are_noted_for_a_network_that_merges(dataset):
    (dataset / "classes.json").write_text('{"names": ["sky", "tree", "road"]}')
    files, _ = find_labels([dataset])
    merges = LabelSpace(names=SPACE.names, remap={0: 0, 1: 2, 2: 1, 3: 1})  # every number, as Merged makes it
    (note,) = other_names(files, merges)
    assert "has the network's own classes" in note
    assert other_names(files, LabelSpace(names=SPACE.names, remap={2: 1, 3: 1})) == []  # data.remap of the same folder


def test_a_broken_list_of_classes_is_noted_and_stops_nothing(dataset, tmp_path):
    (dataset / "classes.json").write_text("{")
    outcome = generate(Painter(), [dataset], tmp_path / "out")
    assert len(outcome.written) == len(SIZES)
    assert str(dataset / "classes.json") in outcome.notes[0]
    assert "not compared" in outcome.notes[0]


def test_a_network_without_names_has_nothing_to_compare(dataset, tmp_path):
    (dataset / "classes.json").write_text('{"names": ["a", "b", "c"], "unknown": 255}')
    numbered = LabelSpace.numbered(3, unknown=255)
    assert generate(Painter(numbered), [dataset], tmp_path / "out").notes == []
