"""clade.tools.analysis: numbers against slow ones over all pixels at once, and what must hold of SPADE and CLADE."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from clade.data import ScenesDataset
from clade.errors import CladeError
from clade.labels import LabelMap, LabelPyramid
from clade.models import Generator, create_generator
from clade.tools.analysis import Analysis, Histogram, Moments, analyze, modulation_layers
from clade.tools.analysis.figures import maps_size
from clade.tools.analysis.moments import BINS
from clade.tools.analysis.words import summary

SIZE = (64, 96)
ROWS = 5
PARTS = ("everything", "inside", "border")


def generator(name: str = "spade", **options: object) -> Generator:
    """Small, with weights far from their start."""
    torch.manual_seed(0)
    small = {"hidden": 4} if name in ("spade", "dagan") else {}
    made = create_generator(name, num_classes=ROWS, width=2, **{**small, **options})
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return made.eval()


def label_maps(count: int = 3, size: tuple[int, int] = SIZE, instances: bool = False) -> list[LabelMap]:
    """Boxes of classes 0 to 3; class 4 does not occur."""
    chance = np.random.default_rng(0)
    maps = []
    for _ in range(count):
        ids = np.zeros(size, np.int64)
        objects = np.zeros(size, np.int32)
        for k in range(8):
            top, left = chance.integers(0, size[0] - 20), chance.integers(0, size[1] - 20)
            box = (slice(top, top + chance.integers(8, 40)), slice(left, left + chance.integers(8, 40)))
            ids[box], objects[box] = k % 4, k + 1
        maps.append(LabelMap(ids, objects if instances else None))
    return maps


def slow_inside(ids: np.ndarray, edges: np.ndarray | None) -> np.ndarray:
    """Pixel by pixel: 5x5 of one class, inside the picture, and no edge among them."""
    found = np.zeros(ids.shape, bool)
    for i in range(2, ids.shape[0] - 2):
        for j in range(2, ids.shape[1] - 2):
            around = (slice(i - 2, i + 3), slice(j - 2, j + 3))
            found[i, j] = (ids[around] == ids[i, j]).all() and (edges is None or not edges[around].any())
    return found


def slow_values(
    made: Generator, maps: list[LabelMap], name: str, size: tuple[int, int]
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """All pixels of all maps: gamma and beta (P, C) in float64, classes (P,), whether inside (P,)."""
    layer = modulation_layers(made)[name]
    parts: dict[str, list[np.ndarray]] = {"gamma": [], "beta": []}
    ids, inside = [], []
    for label_map in maps:
        labels = LabelPyramid(made.prepare(label_map).padded(made.multiple), made.num_rows)
        with torch.no_grad():
            values = layer.modulation(labels, size, torch.float32)
        for key, value in zip(parts, values, strict=True):
            parts[key].append(value[0].flatten(1).t().double().numpy())
        here = labels.ids(size)[0].numpy()
        edges = labels.edges(size)[0, 0].numpy() if getattr(layer, "instance_edges", False) else None
        ids.append(here.ravel())
        inside.append(slow_inside(here, edges).ravel())
    return {key: np.concatenate(part) for key, part in parts.items()}, np.concatenate(ids), np.concatenate(inside)


def slow_shares(values: np.ndarray, ids: np.ndarray) -> tuple[float, float]:
    """E[Var(values | class)] and Var(values), means over channels."""
    within = sum((ids == k).mean() * values[ids == k].var(0) for k in np.unique(ids))
    return float(np.mean(within)), float(values.var(0).mean())


@pytest.mark.parametrize(
    ("name", "options", "instances"),
    [("spade", {}, False), ("spade", {"instance_edges": True}, True), ("clade", {"norm": "spade:4,clade"}, False)],
)
def test_variances_are_those_of_all_pixels_at_once(name: str, options: dict[str, object], instances: bool) -> None:
    made, maps = generator(name, **options), label_maps(instances=instances)
    found = analyze(made, maps, pictures=0)
    assert [layer.name for layer in found.layers] == list(modulation_layers(made))
    for layer in found.layers[1::4]:
        values, ids, inside = slow_values(made, maps, layer.name, layer.size)
        for key in ("gamma", "beta"):
            spread = layer.spread(key)
            for part, mask in zip(PARTS, (np.ones_like(inside), inside, ~inside), strict=True):
                share = getattr(spread, part)
                assert share.pixels == mask.sum()
                if mask.any():
                    within, total = slow_shares(values[key][mask], ids[mask])
                    assert share.within == pytest.approx(within, rel=1e-9, abs=1e-16)
                    assert share.total == pytest.approx(total, rel=1e-9, abs=1e-16)
                else:
                    assert math.isnan(share.within)
            assert [one.row for one in spread.classes] == np.unique(ids).tolist()
            for one in spread.classes:
                mine = values[key][ids == one.row]
                assert one.pixels == len(mine)
                assert one.inside == pytest.approx(inside[ids == one.row].mean())
                assert one.variance == pytest.approx(mine.var(0).mean(), rel=1e-9, abs=1e-16)


def test_share_of_a_layer_is_the_mean_over_its_channels() -> None:
    made, maps = generator(), label_maps()
    layer = analyze(made, maps, layers=["blocks.6.norm1"], pictures=0).layers[0]
    values, ids, _ = slow_values(made, maps, layer.name, layer.size)
    each = [slow_shares(channel[:, None], ids) for channel in values["gamma"].T]
    assert layer.gamma.everything.eta_channels == pytest.approx(np.mean([within / total for within, total in each]))
    assert layer.gamma.everything.eta == pytest.approx(sum(w for w, _ in each) / sum(t for _, t in each))


def test_inside_regions_spade_s_parameters_are_constants_of_the_class() -> None:
    found = analyze(generator(instance_edges=True), label_maps(instances=True), pictures=0)
    some = [layer for layer in found.layers if layer.gamma.inside.pixels]
    assert len(some) >= 6
    for layer in some:
        for spread in (layer.gamma, layer.beta):
            assert spread.inside.within < 1e-12 * spread.everything.total
            assert spread.border.within > 1e-3 * spread.everything.total


def test_deviations_are_zero_inside_regions() -> None:
    found = analyze(generator(), [LabelMap(np.full(SIZE, 3))], layers=["blocks.6.*"], pictures=0)
    for layer in found.layers:
        bins = layer.bins["gamma", "deviation"]
        near = np.abs(bins.centres) < 1.1 * bins.width
        assert bins.counts[3][near].sum() >= (SIZE[0] - 4) * (SIZE[1] - 4) * layer.channels
        assert layer.gamma.inside.pixels == (SIZE[0] - 4) * (SIZE[1] - 4)


@pytest.mark.parametrize("name", ["clade", "sean-clade"])
def test_clade_varies_within_no_class(name: str) -> None:
    found = analyze(generator(name), label_maps(), pictures=0)
    for layer in found.layers:
        assert layer.kind == "CLADE"
        for spread in (layer.gamma, layer.beta):
            assert spread.everything.within == spread.border.within == 0
            assert spread.everything.total > 0
            assert {one.variance for one in spread.classes} == {0}


def test_positions_are_what_varies_in_clade_icpe() -> None:
    made, maps = generator("clade-icpe"), label_maps(2)
    found = analyze(made, maps, layers=["blocks.6.norm1"], pictures=0)
    layer = found.layers[0]
    state = made.state_dict()
    weight = state["blocks.6.norm1.position_gamma.weight"].flatten().tolist()
    bias = float(state["blocks.6.norm1.position_gamma.bias"])
    offsets = np.concatenate([made.prepare(one).positions.numpy()[0].reshape(2, -1) for one in maps], 1)  # pyright: ignore[reportOptionalMemberAccess]
    factor = 1 + bias + weight[0] * offsets[0] + weight[1] * offsets[1]
    assert layer.kind == "CLADE-ICPE"
    assert layer.gamma_factor is not None
    assert vars(layer.gamma_factor) == pytest.approx(
        {"mean": factor.mean(), "std": factor.std(), "low": factor.min(), "high": factor.max()}, rel=1e-5
    )
    assert layer.gamma.everything.within > 0
    assert sum("Positions multiply" in line for line in summary(found)) == 2


def test_layers_of_a_resolution_are_taken_together_by_channels() -> None:
    found = analyze(generator(), label_maps(), pictures=0)
    assert [one.size for one in found.resolutions] == sorted({layer.size for layer in found.layers})
    finest = [layer for layer in found.layers if layer.size == SIZE]
    assert len({layer.channels for layer in finest}) > 1
    for part in PARTS:
        within, total = (
            sum(layer.channels * getattr(getattr(layer.beta, part), key) for layer in finest)
            for key in ("within", "total")
        )
        assert found.resolutions[-1].beta[part].eta == pytest.approx(within / total)


def test_every_value_is_in_a_bin_of_its_class() -> None:
    made, maps = generator(), label_maps()
    for layer in analyze(made, maps, pictures=0).layers[::5]:
        values, ids, _ = slow_values(made, maps, layer.name, layer.size)
        for key, what in layer.bins:
            bins = layer.bins[key, what]
            assert bins.counts.sum(1).tolist() == [(ids == k).sum() * layer.channels for k in range(ROWS)]
            if what == "value":
                edges = (np.arange(BINS + 1) - BINS // 2) * bins.width
                assert np.array_equal(bins.counts[1], np.histogram(values[key][ids == 1], edges)[0])


# --- Moments and histograms -------------------------------------------------------------------------------------------


def samples(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Values (3, 400), far from 0 beside what they vary by, and their groups, of which 2 is empty."""
    chance = torch.Generator().manual_seed(seed)
    groups = torch.tensor([0, 1, 3])[torch.randint(3, (400,), generator=chance)]
    return 100 + groups + 0.01 * torch.randn(3, 400, generator=chance), groups


def test_moments_in_parts_are_those_of_all_at_once() -> None:
    values, groups = samples()
    whole, one_by_one, left, right = (Moments(4, 3) for _ in range(4))
    whole.add(values, groups)
    for k in range(0, 400, 7):
        one_by_one.add(values[:, k : k + 7], groups[k : k + 7])
    left.add(values[:, :50], groups[:50])
    right.add(values[:, 50:], groups[50:])
    left.merge(right)
    left.merge(Moments(4, 3))
    for k in (0, 1, 3):
        mine = values[:, groups == k].double().numpy()
        for moments in (whole, one_by_one, left):
            assert moments.count[k] == mine.shape[1]
            np.testing.assert_allclose(moments.mean[k], mine.mean(1), rtol=1e-14)
            np.testing.assert_allclose(moments.squares[k], mine.var(1) * mine.shape[1], rtol=1e-10)
    joined = whole.joined(torch.tensor([0, 1, 1, 0]), 2)
    outer = values[:, groups != 1].double().numpy()
    np.testing.assert_allclose(joined.squares[0], outer.var(1) * outer.shape[1], rtol=1e-12)
    assert whole.joined(torch.tensor([-1, 0, 0, -1]), 1).count == (groups == 1).sum()


def test_equal_values_have_no_variance_at_all() -> None:
    moments = Moments(2, 1)
    for count in (3, 7, 11):
        moments.add(torch.full((1, count), 0.1), torch.zeros(count, dtype=torch.long))
        moments.add(torch.full((1, 2 * count), 0.1), torch.ones(2 * count, dtype=torch.long))
    assert moments.joined(torch.zeros(2, dtype=torch.long), 1).squares.item() == 0


def test_a_histogram_does_not_depend_on_order_or_parts() -> None:
    chance = torch.Generator().manual_seed(0)
    values = torch.randn(3, 500, generator=chance) * torch.logspace(-6, 2, 500)
    classes = torch.randint(4, (500,), generator=chance)
    whole, backward, left, right = (Histogram(4) for _ in range(4))
    whole.add(values, classes)
    for k in reversed(range(0, 500, 50)):
        backward.add(values[:, k : k + 50], classes[k : k + 50])
    left.add(values[:, :200], classes[:200])
    right.add(values[:, 200:], classes[200:])
    left.merge(right)
    edges = (np.arange(BINS + 1) - BINS // 2) * whole.width
    for row in range(4):
        expected = np.histogram(values[:, classes == row].double().numpy(), edges)[0]
        for histogram in (whole, backward, left):
            assert histogram.width == whole.width
            assert np.array_equal(histogram.counts[row].numpy(), expected)
    assert whole.width * BINS / 4 <= float(values.abs().max()) < whole.width * BINS / 2


# --- Files, pictures, choices -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def found() -> Analysis:
    return analyze(generator(), label_maps(5), pictures=1, channels=3, seed=4)


@pytest.fixture(scope="module")
def written(found: Analysis, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return found.write(tmp_path_factory.mktemp("analysis") / "out")


def test_tables_hold_the_numbers(found: Analysis, written: list[Path]) -> None:
    folder = written[0].parent
    assert sorted(path.name for path in written) == sorted(path.name for path in folder.iterdir())
    stored = json.loads((folder / "analysis.json").read_text())
    assert stored == found.to_dict()
    tables = {path.stem: list(csv.DictReader(path.open())) for path in written if path.suffix == ".csv"}
    assert len(tables["layers"]) == len(found.layers) * 2 * 3
    row = next(row for row in tables["layers"] if row["layer"] == "blocks.6.norm1" and row["pixels of"] == "border")
    layer = next(layer for layer in found.layers if layer.name == "blocks.6.norm1")
    assert float(row["eta"]) == layer.gamma.border.eta
    assert [float(row["eta"]) for row in tables["resolutions"] if row["pixels of"] == "everything"] == [
        getattr(one, key)["everything"].eta for one in found.resolutions for key in ("gamma", "beta")
    ]
    bins = [row for row in tables["histograms"] if row["layer"] == "blocks.6.norm1" and row["id"] == "2"]
    pixels = next(one.pixels for one in layer.beta.classes if one.row == 2)
    for key in ("gamma", "beta"):
        mine = [row for row in bins if row["parameter"] == key and row["of"] == "value"]
        assert sum(int(row["count"]) for row in mine) == pixels * layer.channels
        assert all(float(row["to"]) > float(row["from"]) for row in mine)


@pytest.mark.slow
def test_pictures_have_their_size_and_are_the_same_again(found: Analysis, written: list[Path], tmp_path: Path) -> None:
    again = analyze(generator(), label_maps(5), pictures=1, channels=3, seed=4)
    for path, other in zip(written, again.write(tmp_path), strict=True):
        assert path.name == other.name
        assert path.read_bytes() == other.read_bytes(), path.name
    rows = {layer.size for layer in found.layers}
    for picture in found.pictures:
        with Image.open(tmp_path / f"maps-{picture.index}.png") as image:
            assert image.size == maps_size(len(rows), 3, SIZE)
            assert len(np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0)) > 100


def test_pictures_hold_gamma_of_the_channels_that_vary_most() -> None:
    made, maps = generator(), label_maps()
    found = analyze(made, maps, pictures=3, channels=2)
    assert [picture.index for picture in found.pictures] == [0, 1, 2]
    for row in found.pictures[1].rows:
        size = (row.ids.shape[0], row.ids.shape[1])
        values, _, _ = slow_values(made, maps, row.layer, size)
        most = np.argsort(-values["gamma"].var(0))[:2]
        assert row.channels == tuple(sorted(most.tolist()))
        here = slow_values(made, maps[1:2], row.layer, size)[0]
        for key in ("gamma", "beta"):
            np.testing.assert_allclose(getattr(row, key).reshape(2, -1).T, here[key][:, list(row.channels)], rtol=1e-6)


def test_the_seed_chooses_what_is_drawn_and_changes_no_number() -> None:
    runs = [analyze(generator(), label_maps(6), pictures=2, choose="seed", seed=seed) for seed in range(3)]
    assert len({tuple(picture.index for picture in run.pictures) for run in runs}) > 1
    assert len({tuple(row.channels for row in run.pictures[0].rows) for run in runs}) > 1
    assert all(run.to_dict()["layers"] == runs[0].to_dict()["layers"] for run in runs)


def test_a_hybrid_is_told_apart_by_kind() -> None:
    found = analyze(generator("clade", norm="spade:4,clade", hidden=4), label_maps(), pictures=1)
    assert {layer.kind for layer in found.layers} == {"SPADE", "CLADE"}
    assert sorted({int(layer.name.split(".")[1]) for layer in found.layers if layer.kind == "SPADE"}) == [0, 1, 2, 3]
    assert {row.layer.split(".")[1] for row in found.pictures[0].rows} == {"0", "1", "3", "4", "5", "6"}


def test_what_is_said_are_the_numbers(found: Analysis) -> None:
    first, last = found.resolutions[0], found.resolutions[-1]
    lines = summary(found)
    shares = [100 * one.gamma["everything"].eta for one in (first, last)]
    start = "SPADE, gamma: the within-class share of all variance is "
    line = next(line for line in lines if line.startswith(start))
    assert line.startswith(f"{start}{shares[0]:.1f} % at 2x3 and {shares[1]:.1f} % at 64x96; it ")
    falls = all(
        a.gamma["everything"].eta > b.gamma["everything"].eta
        for a, b in zip(found.resolutions, found.resolutions[1:], strict=False)
    )
    assert ("it falls at every step" in line) == falls
    pixels = 100 * last.gamma["inside"].pixels / last.gamma["everything"].pixels
    assert any(f"{pixels:.1f} % at 64x96 of all" in line for line in lines)


def test_the_generator_is_left_as_it_was() -> None:
    made = generator("sean").train()
    before = {key: value.clone() for key, value in made.state_dict().items()}
    torch.manual_seed(3)
    expected = torch.randn(2)
    torch.manual_seed(3)
    scenes = ScenesDataset(split="val", count=1, val_count=1, height=64, width=64)
    ids = scenes.read(0).ids % ROWS
    found = analyze(made, [LabelMap(ids.copy())], pictures=0)
    assert torch.equal(torch.randn(2), expected)
    assert made.training
    assert all(torch.equal(value, before[key]) for key, value in made.state_dict().items())
    assert {layer.kind for layer in found.layers} == {"SPADE"}
    assert found.layers[0].name.endswith(".label")


# --- Refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["pix2pixhd", "cc-fpse"])
def test_networks_without_such_layers_are_refused(name: str) -> None:
    with pytest.raises(
        CladeError, match=rf"generator is '{name}', which has no CLADE.*Needed is a checkpoint of spade"
    ):
        analyze(generator(name), label_maps(1))


def test_what_cannot_be_analyzed_is_named() -> None:
    made, maps = generator(), label_maps(1)
    with pytest.raises(CladeError, match=r"No SPADE or CLADE layer is called 'blocks.9.norm1'.*Known: blocks.0.norm1"):
        analyze(made, maps, layers=["blocks.9.norm1"])
    with pytest.raises(CladeError, match="no label maps to analyze"):
        analyze(made, [])
    with pytest.raises(CladeError, match=r"Label map 1 is 64x64, those before are 64x96.*--size"):
        analyze(made, [*maps, LabelMap(np.zeros((64, 64), np.int64))])
    with pytest.raises(CladeError, match="choose is 'best'"):
        analyze(made, maps, choose="best")  # pyright: ignore[reportArgumentType]
    with torch.no_grad():
        modulation_layers(made)["blocks.2.norm2"].to_beta.bias[0] = math.nan  # pyright: ignore
    with pytest.raises(CladeError, match=r"blocks.2.norm2: beta is not finite"):
        analyze(made, maps)
