"""Protocols, scores of drawn pictures, evaluations of checkpoints, tables of them, and scores during a training."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import json
import math
import multiprocessing
import os
import shutil
import socket
import statistics

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import clade
from clade.data import ScenesDataset, eval_loader, plain_resize
from clade.errors import CladeError, RecipeError
from clade.evaluation import Evaluation, compare, evaluate
from clade.evaluation.data import DataHash
from clade.evaluation.result import FORMAT
from clade.evaluation.sheets import comparison_sheet
from clade.evaluation.tables import Column, Row, Table, Value, render
from clade.io.images import sheet
from clade.metrics.extractors import create_extractor
from clade.metrics.judges import Judge
from clade.metrics.scores import PROTOCOLS, SCORES, Protocol, Scores, find_protocol
from clade.metrics.scores.drawing import draw, picture_seed
from clade.metrics.statistics import real_statistics
from clade.models.checkpoints import read_header
from clade.recipes import Recipe
from clade.training import train

pytest.importorskip("timm")
EXTRACTOR = "timm:test_vit.r160_in1k"
"""A network small enough for tests; its weights are random here."""
RANDOM = {EXTRACTOR: "random"}
DATA = {"size": [32, 32], "options": {"count": 9, "val_count": 7}}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def checkpoint(path, name="clade", seed=0, training=(), data=None, **options):
    """A generator of drawn scenes with random weights; its recipe goes with it."""
    space = ScenesDataset().label_space
    torch.manual_seed(seed)
    generator = clade.create_generator(
        name, num_classes=space.num_classes, unknown_class=space.unknown_class, width=2, **options
    )
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    value = {"name": "tiny", "data": data or DATA, "generator": {"name": name, "width": 2}}
    recipe = Recipe.from_dict({**value, "training": {"seed": seed, **dict(training)}})
    clade.save(generator, path, label_space=space, recipe=recipe)
    return path


@pytest.fixture(scope="module")
def made_once(tmp_path_factory):
    return checkpoint(tmp_path_factory.mktemp("made") / "one.safetensors")


@pytest.fixture
def one(tmp_path, made_once):
    return shutil.copy(made_once, tmp_path / "one.safetensors")


class ByColor(Judge):
    """Takes a pixel for the class whose colour is nearest: right about pictures painted in those colours."""

    name = "by-color"

    def __init__(self, space):
        super().__init__(torch.nn.Conv2d(3, space.num_classes, 1), space.names)
        self.colors = torch.tensor(space.colors).float()

    def preprocess(self, images):
        return torch.as_tensor(images).float()

    def evaluate(self, x, size):
        return -(x[:, None] - self.colors[None, :, :, None, None]).square().sum(2)


def painted(space, ids):
    """(N, 3, H, W) in [-1, 1]: every pixel in the colour of its class."""
    return torch.from_numpy(space.colorize(ids)).movedim(-1, 1).float() / 127.5 - 1


def batches_of(dataset, size=(64, 64), batch_size=4):
    return list(
        eval_loader(dataset, size=size, batch_size=batch_size, with_positions=False, instances=False, workers=0)
    )


# --- Protocols --------------------------------------------------------------------------------------------------------


def test_the_paper_compares_with_training_photos_and_oasis_with_validation_photos():
    assert PROTOCOLS["paper"].reference == "train"
    assert PROTOCOLS["oasis"].reference == "val"
    assert PROTOCOLS["paper"].with_judge_of("cityscapes").judge == "drn-d105"
    assert Protocol(judge="x").with_judge_of("cityscapes").judge == "x"
    assert Protocol().with_judge_of("folder").judge is None


def test_a_protocol_file_starts_from_a_named_one(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("protocol: oasis\nmetrics: [fid, kid]\nsize: [64, 128]\nkid_subset_size: 7\n", encoding="utf-8")
    found = find_protocol(path, {"seed": 3, "judge": None})
    expected = {**PROTOCOLS["oasis"].to_dict(), "name": "mine", "metrics": ["fid", "kid"], "size": [64, 128]}
    assert found.to_dict() == {**expected, "kid_subset_size": 7, "seed": 3}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("metrics: [fod]", "no metric 'fod'. Did you mean"),
        ("reference: test", "'train' or 'val'"),
        ("sizes: [1, 2]", "no key 'sizes'. Did you mean 'size'"),
        ("size: 256", "size is 256"),
        ("seed: true", "seed is True"),
        ("protocol: papre", "known are paper, oasis"),
        ("- a list", "a mapping"),
        ("metrics: [l1, l1]", "each only once"),
        ("{", "not readable"),
    ],
)
def test_what_is_wrong_with_a_protocol_is_said(tmp_path, content, message):
    path = tmp_path / "mine.yaml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(CladeError, match=r"mine\.yaml") as error:
        find_protocol(path)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("name", "value", "than", "better"),
    [
        ("fid", 1.0, 2.0, True),
        ("fid", 2.0, 1.0, False),
        ("miou", 2.0, 1.0, True),
        ("miou", 1.0, 1.0, False),
        ("miou", 1.0, None, True),
        ("l1", math.nan, 1.0, False),
        ("l1", 1.0, math.nan, True),
    ],
)
def test_each_score_knows_its_direction(name, value, than, better):
    assert SCORES[name].better(value, than) is better


# --- Scores -----------------------------------------------------------------------------------------------------------


def test_a_judge_that_is_right_gives_the_ceiling_and_shuffled_label_maps_near_chance():
    dataset = ScenesDataset(split="val", val_count=8, height=64, width=64)
    space = dataset.label_space
    protocol = Protocol(metrics=("miou", "accuracy"), size=(64, 64), fit="stretch")
    scores = Scores(protocol, space, lambda: dataset, judge=ByColor(space))
    batches = batches_of(dataset)
    for batch in batches:
        scores.update(batch, painted(space, batch.label_map.ids.numpy()))
    values, details = scores.compute()
    assert values == {"miou": 100.0, "accuracy": 100.0}
    assert details["judge"]["names"] == list(space.names)
    scores.reset()
    rng = np.random.default_rng(0)
    for batch in batches:
        ids = batch.label_map.ids.numpy()
        scores.update(batch, painted(space, rng.permuted(ids.reshape(-1)).reshape(ids.shape)))
    shuffled = scores.compute()[0]
    counts = np.bincount(np.concatenate([b.label_map.ids.numpy().reshape(-1) for b in batches]))[: space.num_classes]
    chance = 100 * float(np.square(counts / counts.sum()).sum())
    assert shuffled["accuracy"] == pytest.approx(chance, abs=10)
    assert shuffled["miou"] < 15


def test_noise_worsens_every_distance_step_by_step():
    dataset = ScenesDataset(split="val", val_count=24, height=64, width=64)
    protocol = Protocol(metrics=("fd", "precision", "l1"), extractor=EXTRACTOR, size=(64, 64), fit="stretch")
    scores = Scores(protocol, dataset.label_space, lambda: dataset, weights=RANDOM)
    found = []
    for strength in (0.0, 0.2, 0.6, 1.5):
        scores.reset()
        random = torch.Generator().manual_seed(0)
        for batch in batches_of(dataset):
            noise = torch.randn(batch.image.shape, generator=random)
            scores.update(batch, (batch.image + strength * noise).clamp(-1, 1))
        found.append(scores.compute()[0])
    assert found[0]["fd"] == pytest.approx(0, abs=1e-3 * found[1]["fd"])
    assert found[0]["l1"] == 0
    assert found[0]["precision"] == 1
    distances = [values["fd"] for values in found]
    assert distances == sorted(set(distances))


def test_random_weights_are_told():
    dataset = ScenesDataset(split="val", val_count=3, height=32, width=32)
    protocol = Protocol(metrics=("fd",), extractor=EXTRACTOR, size=(32, 32), fit="stretch")
    scores = Scores(protocol, dataset.label_space, lambda: dataset, weights=RANDOM)
    assert "random" in scores.keys["extractor"]
    for batch in batches_of(dataset, (32, 32)):
        scores.update(batch, batch.image)
    assert any("random weights" in note for note in scores.compute()[1]["notes"])


def test_real_photos_are_told_apart_by_content_also_from_the_cache():
    def scenes(seed):
        return ScenesDataset(split="val", val_count=5, height=32, width=32, seed=seed)

    def found(seed, **options):
        return real_statistics(scenes(seed), create_extractor(EXTRACTOR, "random"), (32, 32), **options).sha256

    photos = [np.ascontiguousarray(scenes(0).read(k).image.transpose(2, 0, 1)) for k in range(5)]
    total = sum(int.from_bytes(hashlib.sha256(photo).digest(), "big") for photo in photos) % (1 << 256)
    assert found(0) == found(0) == found(0, cache=False, batch_size=2) == f"{total:064x}"
    assert found(1) != found(0)


def test_weights_of_something_that_is_not_used_are_refused():
    space = ScenesDataset().label_space
    with pytest.raises(CladeError, match="given for 'incepton'"):
        Scores(Protocol(metrics=("l1",)), space, lambda: None, weights={"incepton": "x"})


@pytest.mark.parametrize("options", [{"z_dim": 4, "size": (32, 32)}, {}])
def test_a_picture_does_not_depend_on_its_batch(options):
    dataset = ScenesDataset(split="val", val_count=4, height=32, width=32)
    space = dataset.label_space
    generator = clade.create_generator("clade", num_classes=space.num_classes, unknown_class=True, width=2, **options)
    generator.eval()

    def pictures(batch_size, seed=0, sample=0):
        batches = batches_of(dataset, (32, 32), batch_size)
        return torch.cat([draw(lambda maps, z: generator(maps, z=z), generator, b, seed, sample) for b in batches])

    together = pictures(4)
    assert torch.allclose(pictures(1), together, atol=1e-5)
    different = [
        not torch.allclose(pictures(4, **change), together, atol=1e-5) for change in ({"seed": 1}, {"sample": 1})
    ]
    assert different == [bool(options)] * 2


def test_picture_seeds_differ():
    seeds = {picture_seed(seed, name, k) for seed in (0, 1) for name in ("a", "b", "1 a") for k in range(3)}
    assert len(seeds) == 18
    assert all(0 <= seed < 2**63 for seed in seeds)


# --- Evaluations ------------------------------------------------------------------------------------------------------


def test_l1_is_the_mean_over_all_pictures(one):
    found = evaluate(one, metrics=["l1"], batch=2)
    synthesizer, dataset = (
        clade.load(one, precision="fp32"),
        ScenesDataset(split="val", val_count=7, height=32, width=32),
    )
    errors = []
    for k in range(7):
        sample = plain_resize(dataset.read(k), (32, 32))
        image = synthesizer(clade.LabelMap(sample.ids[None]))[0].permute(1, 2, 0).numpy()
        errors.append(np.abs(image - (sample.image / 127.5 - 1)).mean())
    assert found.scores["l1"] == pytest.approx(np.mean(errors), abs=1e-5)
    assert found.pictures == 7


def test_batch_size_and_workers_change_nothing(one):
    options = {"metrics": ["l1", "fd", "coverage"], "extractor": EXTRACTOR, "weights": RANDOM}
    a, b = evaluate(one, **options, batch=1), evaluate(one, **options, batch=4, workers=1)
    assert a.scores == pytest.approx(b.scores, rel=1e-3)
    assert a.data == b.data
    assert a.key == b.key
    assert a.agrees(b)


def in_process(rank, port, path, out):
    os.environ.update(
        RANK=str(rank), WORLD_SIZE="2", LOCAL_RANK=str(rank), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port),
        TORCHELASTIC_RUN_ID="test",
    )  # fmt: skip
    torch.set_num_threads(1)
    options = {"metrics": ["l1", "fd", "coverage"], "extractor": EXTRACTOR, "weights": RANDOM}
    evaluate(path, **options, batch=2, device="cpu").save(f"{out}-{rank}.json")


@pytest.mark.slow
def test_two_processes_find_what_one_finds(one, tmp_path):
    options = {"metrics": ["l1", "fd", "coverage"], "extractor": EXTRACTOR, "weights": RANDOM}
    alone = evaluate(one, **options, device="cpu")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    arguments = [(rank, port, str(one), str(tmp_path / "out")) for rank in range(2)]
    running = [context.Process(target=in_process, args=each) for each in arguments]
    for process in running:
        process.start()
    for process in running:
        process.join()
    assert [process.exitcode for process in running] == [0, 0]
    for rank in range(2):
        found = Evaluation.load(tmp_path / f"out-{rank}.json")
        assert found.scores == pytest.approx(alone.scores, rel=1e-3)
        assert (found.pictures, found.data, found.processes) == (7, alone.data, 2)


def test_an_evaluation_says_what_it_depends_on(one, tmp_path):
    found = evaluate(one, metrics=["l1"], seed=3)
    found.save(tmp_path / "evaluation.json")
    read = json.loads((tmp_path / "evaluation.json").read_text(encoding="utf-8"))
    assert read["format"] == FORMAT
    assert read["protocol"] == {**Protocol(metrics=("l1",), seed=3).to_dict(), "size": [32, 32], "fit": "stretch"}
    assert read["checkpoint"]["sha256"] == hashlib.sha256(one.read_bytes()).hexdigest()
    assert read["checkpoint"]["parameters"] == sum(p.numel() for p in clade.read_checkpoint(one).generator.parameters())
    assert {"clade", "torch", "python"} <= read["versions"].keys()
    assert read["machine"]["processor"]
    assert Evaluation.load(tmp_path / "evaluation.json") == found


def test_a_score_without_its_weights_is_missing_and_never_a_number(one, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    judge = ByColor(ScenesDataset().label_space)
    found = evaluate(one, judge=judge)
    assert found.scores.keys() == {"miou", "accuracy"}
    assert found.missing.keys() == {"fid"}
    assert "weights-inception" in found.missing["fid"]
    with pytest.raises(CladeError, match="weights-inception"):
        evaluate(one, judge=judge, metrics=["miou", "fid"])
    with pytest.raises(CladeError, match="need a judge"):
        evaluate(one, metrics=["accuracy"])
    with pytest.raises(CladeError, match="None of miou, accuracy, fid can be computed"):
        evaluate(one)


def test_the_data_hash_is_of_content_in_any_order():
    dataset = ScenesDataset(split="val", val_count=4, height=32, width=32)
    batches = batches_of(dataset, (32, 32), 1)

    def digest(parts):
        found = DataHash()
        for part in parts:
            found.update(part)
        return found.hexdigest()

    assert digest(batches) == digest(batches[::-1]) == digest(batches_of(dataset, (32, 32), 3))
    assert digest(batches) != digest(batches[:3])
    assert digest(batches) != digest(batches_of(ScenesDataset(split="val", val_count=4, seed=1), (32, 32), 1))


def test_data_of_other_classes_are_refused(one, tmp_path):
    from PIL import Image

    for kind in ("images", "labels"):
        (tmp_path / f"d/val/{kind}").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "d/val/images/a.png")
    Image.new("L", (8, 8)).save(tmp_path / "d/val/labels/a.png")
    (tmp_path / "d/classes.json").write_text('{"names": ["road", "tree"]}', encoding="utf-8")
    with pytest.raises(CladeError, match="has 2 ids"):
        evaluate(one, tmp_path / "d", metrics=["l1"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"protocol": "papre"}, "no protocol 'papre'. Did you mean 'paper'"),
        ({"metrics": ["diversity"]}, "no prior to draw from"),
        ({"metrics": ["l1"], "split": "vel"}, "vel"),
        ({"metrics": ["coverage"], "protocol": Protocol(density_neighbours=7)}, "7 pictures came; .* at least 8"),
        ({"batch": 0}, "batch is 0"),
        ({"metrics": []}, "at least one"),
        ({"precision": "fp8"}, "precision"),
    ],
)
def test_what_is_wrong_is_said(one, options, message):
    with pytest.raises(CladeError, match=message):
        evaluate(one, **{"extractor": EXTRACTOR, "weights": RANDOM, **options})


@pytest.mark.parametrize(("multiplies", "expected"), [(False, "fp32"), (True, "bf16")])
def test_a_protocol_says_what_was_drawn_in_not_auto(one, monkeypatch, multiplies, expected):
    monkeypatch.setattr("clade.system.processor.multiplies_in_bf16", lambda device: multiplies)
    assert evaluate(one, metrics=["l1"]).protocol["precision"] == "fp32"  # the same scores on every machine
    assert evaluate(one, metrics=["l1"], precision="auto").protocol["precision"] == expected


def test_diversity_is_measured_over_samples_of_the_prior(tmp_path):
    path = checkpoint(tmp_path / "z.safetensors", z_dim=4, size=(64, 64), data={**DATA, "size": [64, 64]})
    options = {"metrics": ["diversity"], "weights": {"lpips": "random"}}
    found = evaluate(path, **options, samples=3)
    assert found.details["diversity"]["pairs"] == 7 * 3
    assert found.scores["diversity"] > 0
    assert found.drawn_with == "draws of the prior"
    again = evaluate(path, **options, samples=3, batch=1)
    assert again.scores == pytest.approx(found.scores, rel=1e-3)


def test_files_that_are_no_evaluations_are_refused(tmp_path):
    empty = {field.name: {} for field in dataclasses.fields(Evaluation)}
    for content in ("", "[]", '{"format": 99}', f'{{"format": {FORMAT}}}', json.dumps({"format": FORMAT, **empty})):
        (tmp_path / "e.json").write_text(content, encoding="utf-8")
        with pytest.raises(CladeError, match=r"e\.json: .*Needed is an evaluation.json"):
            Evaluation.load(tmp_path / "e.json")


# --- Tables -----------------------------------------------------------------------------------------------------------

COLUMNS = (Column("fid", "FID", False), Column("miou", "mIoU (%)", True), Column("seed", "seed", None))


def table():
    rows = [("a_1", 2.001, 10.0), ("b & c", 1.5, 30.0), ("d|e", 1.5001, 20.0)]
    lines = tuple(Row(name, {"fid": Value(fid), "miou": Value(miou), "seed": Value(1)}) for name, fid, miou in rows)
    return Table("A 50 % title", COLUMNS, (*lines, Row("none", {"miou": None})), ("a note",))


def test_the_best_of_a_column_follows_its_direction_and_ties_share_it():
    found = table()
    assert [found.best(column) for column in COLUMNS] == [{"b & c", "d|e"}, {"b & c"}, set()]


def test_csv_holds_every_number_unmarked():
    found = list(csv.DictReader(io.StringIO(render([table(), table()], "csv"))))
    assert [row["system"] for row in found] == ["a_1", "b & c", "d|e", "none"] * 2
    assert [float(row["fid"]) for row in found[:3]] == [2.001, 1.5, 1.5001]
    assert found[3]["fid"] == ""
    assert {row["table"] for row in found} == {"1", "2"}


def test_latex_is_balanced_and_escaped():
    text = render([table()], "latex")
    assert text.count(r"\begin{tabular}{lrrr}") == text.count(r"\end{tabular}") == 1
    body = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len(body) == 5
    for line in body:
        plain = line.replace(r"\&", "").replace(r"\%", "").replace(r"\_", "")
        assert plain.count("&") == 3
        assert plain.count("{") == plain.count("}")
        assert plain.count("$") % 2 == 0
        assert "%" not in plain
        assert "_" not in plain
    assert r"\textbf{30.00}" in text
    assert r"a\_1" in text
    assert r"FID $\downarrow$" in text
    outside = text.replace("\\{", "").replace("\\}", "")
    assert outside.count("{") == outside.count("}")


def test_markdown_has_as_many_cells_in_every_line():
    lines = [line for line in render([table()], "markdown").splitlines() if line.startswith("|")]
    assert {len(line.replace("\\|", "").split("|")) for line in lines} == {6}
    assert "**1.50**" in lines[3]
    assert "**" not in lines[2]


def test_json_names_the_best():
    found = json.loads(render([table()], "json"))[0]
    assert found["best"] == {"fid": ["b & c", "d|e"], "miou": ["b & c"]}
    assert found["rows"][0] == {"system": "a_1", "n": 1, "fid": 2.001, "miou": 10.0, "seed": 1}
    assert found["notes"] == ["a note"]


def test_an_unknown_format_is_named():
    with pytest.raises(CladeError, match="Did you mean 'latex'"):
        render([table()], "latx")


# --- Comparisons ------------------------------------------------------------------------------------------------------

CHEAP = {"metrics": ["l1"], "cost": False}


def test_a_comparison_shows_scores_and_costs(tmp_path, one):
    other = checkpoint(tmp_path / "other.safetensors", "spade")
    found = compare([one, f"two={other}"], metrics=["l1"], rounds=1, device="cpu")
    (only,) = found.tables
    assert [row.name for row in only.rows] == ["one", "two"]
    assert [c.key for c in only.columns] == ["l1", "parameters", "multiply_adds", "time", "memory"]
    for row, path in zip(only.rows, (one, other), strict=True):
        generator = clade.read_checkpoint(path).generator
        assert row.values["l1"].mean == evaluate(path, metrics=["l1"]).scores["l1"]
        assert row.values["parameters"].mean == sum(p.numel() for p in generator.parameters()) / 1e6
        assert row.values["multiply_adds"].mean == clade.profile(generator, (32, 32)).macs / 1e9
        assert row.values["time"].mean > 0
        assert row.values["memory"].mean > 0


def test_written_evaluations_join_in_without_their_checkpoint(tmp_path, one):
    evaluate(one, metrics=["l1"]).save(tmp_path / "before.json")
    other = checkpoint(tmp_path / "other.safetensors", seed=1)
    found = compare([tmp_path / "before.json", other], metrics=["l1"], rounds=1, device="cpu")
    first, second = found.tables[0].rows
    assert first.values["l1"] is not None
    assert first.values["parameters"] == second.values["parameters"]
    assert first.values["time"] is None
    assert second.values["time"] is not None


def test_other_protocols_and_data_are_never_ranked_together(tmp_path, one):
    evaluate(one, metrics=["l1"], size=(40, 40)).save(tmp_path / "larger.json")
    evaluate(one, metrics=["l1"], split="test").save(tmp_path / "test.json")
    evaluate(one, metrics=["l1"], protocol="oasis", seed=1).save(tmp_path / "oasis.json")
    found = compare([one, *(tmp_path / f"{name}.json" for name in ("larger", "test", "oasis"))], **CHEAP)
    assert [[row.name for row in each.rows] for each in found.tables] == [["one"], ["larger"], ["test"], ["oasis"]]
    assert all(each.best(column) == set() for each in found.tables for column in each.columns)
    assert all("do not compare" in each.notes[-1] for each in found.tables)


def test_other_weights_of_an_extractor_are_never_ranked_together(one):
    a = evaluate(one, metrics=["l1"])
    fields = {key: getattr(a, key) for key in a.__dataclass_fields__}
    b, c = (Evaluation(**{**fields, "weights": {"judge": key}}) for key in ("x", "y"))
    assert a.agrees(b)
    assert a.agrees(c)
    assert not b.agrees(c)


def test_seeds_of_one_recipe_become_a_mean_with_its_spread(tmp_path):
    paths = [checkpoint(tmp_path / f"s{seed}.safetensors", seed=seed) for seed in range(3)]
    other = checkpoint(tmp_path / "other.safetensors", seed=0, training={"batch_size": 2})
    found = compare([*paths, other], seeds=True, **CHEAP)
    group, alone = found.tables[0].rows
    values = [evaluate(path, metrics=["l1"]).scores["l1"] for path in paths]
    assert (group.name, group.n, alone.name, alone.n) == ("tiny", 3, "other", 1)
    assert group.values["l1"].mean == pytest.approx(np.mean(values))
    assert group.values["l1"].std == pytest.approx(np.std(values, ddof=1)) == pytest.approx(statistics.stdev(values))
    assert alone.values["l1"].std is None
    assert group.values["parameters"].std is None
    row = next(csv.DictReader(io.StringIO(found.render("csv"))))
    assert float(row["l1_std"]) == group.values["l1"].std
    assert "±" in found.render("table")
    assert r"$\pm$" in found.render("latex")


def changed(evaluation, seed, **fields):
    """An evaluation as of another training of the same recipe."""
    recipe = {**evaluation.checkpoint["recipe"]}
    recipe["training"] = {**recipe["training"], "seed": seed}
    facts = {**evaluation.checkpoint, "recipe": recipe, "sha256": str(seed)}
    return dataclasses.replace(evaluation, checkpoint=facts, **fields)


def test_trainings_that_other_judges_scored_have_no_common_mean(tmp_path, one):
    found = evaluate(one, metrics=["l1"])
    for seed, key in enumerate("xyx"):
        changed(found, seed, scores={"miou": float(seed)}, weights={"judge": key}).save(tmp_path / f"{seed}.json")
    tables = compare([tmp_path / f"{seed}.json" for seed in range(3)], seeds=True).tables
    assert [[(row.n, row.values["miou"].mean) for row in each.rows] for each in tables] == [[(2, 1.0)], [(1, 1.0)]]


def test_a_mean_of_some_trainings_is_told(tmp_path, one):
    found = evaluate(one, metrics=["l1"])
    for seed, scores in enumerate([{"l1": 1.0, "miou": 2.0}, {"l1": 3.0}, {"l1": 5.0, "miou": math.nan}]):
        changed(found, seed, scores=scores).save(tmp_path / f"{seed}.json")
    (only,) = compare([tmp_path / f"{seed}.json" for seed in range(3)], seeds=True).tables
    assert only.rows[0].values["l1"] == Value(3.0, 2.0, 3)
    assert [note for note in only.notes if "trainings" in note] == [
        "tiny: mIoU (%) is of 1 of 3 trainings; the others have none."
    ]


def test_other_real_photos_are_never_ranked_together(tmp_path, one):
    options = {"metrics": ["fd"], "extractor": EXTRACTOR, "weights": RANDOM}
    a = evaluate(one, **options)
    assert a.data["reference_sha256"] == evaluate(one, **options).data["reference_sha256"]
    b = dataclasses.replace(a, data={**a.data, "reference_sha256": "0" * 64})
    assert a.data["reference_pictures"] == b.data["reference_pictures"]
    assert not a.agrees(b)
    assert a.agrees(evaluate(one, metrics=["l1"]))


def test_what_is_wrong_is_said_before_anything_is_drawn(tmp_path, one, monkeypatch):
    def drawn(*_, **__):
        raise AssertionError("drawn")

    monkeypatch.setattr("clade.evaluation.comparing.evaluate", drawn)
    space = ScenesDataset().label_space
    bare = tmp_path / "bare.safetensors"
    clade.save(clade.read_checkpoint(one).generator, bare, label_space=space)
    with pytest.raises(CladeError, match="the same checkpoint"):
        compare([one, f"again={one}"])
    with pytest.raises(CladeError, match="'bare' carries no recipe"):
        compare([one, bare], seeds=True)
    with pytest.raises(CladeError, match="rounds is 0"):
        compare([one], rounds=0)


def test_what_cannot_be_compared_is_said(tmp_path, one):
    same = checkpoint(tmp_path / "same.safetensors")
    with pytest.raises(CladeError, match="the same checkpoint"):
        compare([one, f"again={one}"], **CHEAP)
    with pytest.raises(CladeError, match="both called 'one'"):
        compare([one, one], **CHEAP)
    again = checkpoint(tmp_path / "again.safetensors", training={"log_every": 7})
    assert same.read_bytes() != again.read_bytes()
    with pytest.raises(CladeError, match="same seed"):
        compare([same, again], seeds=True, **CHEAP)
    with pytest.raises(CladeError, match="No system"):
        compare([])


def test_a_sheet_shows_label_photo_and_each_system(tmp_path, one):
    other = checkpoint(tmp_path / "other.safetensors", seed=1)
    page = comparison_sheet({"one": one, "other": other}, maps=2, seed=5)
    cell = [np.zeros((32, 32, 3), np.uint8)] * 4
    heading = [np.zeros((18, 32, 3), np.uint8)] * 4
    assert page.shape == sheet([heading, cell, cell]).shape
    dataset = ScenesDataset(split="val", val_count=7, height=32, width=32)
    chosen = sorted(np.random.default_rng(5).permutation(7)[:2])
    top = 4 + 18 + 4
    for row, k in enumerate(chosen):
        sample = dataset.read(int(k))
        place = slice(top + 36 * row, top + 36 * row + 32)
        assert np.array_equal(page[place, 4:36], dataset.label_space.colorize(sample.ids))
        assert np.array_equal(page[place, 40:72], sample.image)
        pictures = [clade.load(path, precision="fp32")(clade.LabelMap(sample.ids[None])) for path in (one, other)]
        for column, image in enumerate(pictures):
            expected = ((image[0].permute(1, 2, 0).numpy() + 1) * 127.5).round()
            left = 76 + 36 * column
            assert np.abs(page[place, left : left + 32] - expected).max() <= 1


def test_a_sheet_shows_the_pictures_that_are_scored(tmp_path):
    path = checkpoint(tmp_path / "z.safetensors", z_dim=4, size=(32, 32))
    pages = {seed: comparison_sheet({"z": path}, maps=7, seed=seed) for seed in (0, 1)}
    assert np.array_equal(pages[0][:, :72], pages[1][:, :72])
    assert np.abs(pages[0][26:, 72:].astype(int) - pages[1][26:, 72:]).mean() > 1
    synthesizer = clade.load(path, precision="fp32")
    batch = batches_of(ScenesDataset(split="val", val_count=7, height=32, width=32), (32, 32), 1)[0]
    image = draw(synthesizer.engine, synthesizer.generator, batch, seed=1)[0].permute(1, 2, 0).numpy()
    assert np.abs(pages[1][26:58, 76:108] - ((image + 1) * 127.5).round()).max() <= 1


# --- During a training ------------------------------------------------------------------------------------------------

SMALL = {
    "name": "small",
    "data": {"size": [32, 32], "options": {"count": 8, "val_count": 6}},
    "generator": {"name": "clade", "width": 2},
    "discriminator": {"width": 4, "layers": 2},
    "losses": {"perceptual": 0, "l1": 1},
    "training": {"steps": 8, "batch_size": 2, "accelerator": "cpu", "threads": 1, "calibrate": 2, "validate_every": 1},
}


def small(tmp_path, **training):
    protocol = tmp_path / "fast.yaml"
    protocol.write_text(f"extractor: '{EXTRACTOR}'\n", encoding="utf-8")
    chosen = {"protocol": str(protocol), "score_weights": RANDOM, **training}
    return Recipe.from_dict({**SMALL, "training": {**SMALL["training"], **chosen}})


def test_a_training_keeps_the_best_by_any_score_and_is_otherwise_the_same(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    plain = train(Recipe.from_dict(SMALL), tmp_path / "plain", quiet=True)
    scored = train(small(tmp_path, metrics=["coverage"], best_by="fd"), tmp_path / "scored", quiet=True)
    a, b = (load_file(result.folder / "state.safetensors") for result in (plain, scored))
    assert all(torch.equal(a[key], b[key]) for key in a)
    curves = EventAccumulator(str(scored.folder / "tensorboard")).Reload()
    points = {name: [event.value for event in curves.Scalars(f"val/{name}")] for name in ("l1", "fd", "coverage")}
    assert [len(values) for values in points.values()] == [2, 2, 2]
    assert scored.best == pytest.approx(min(points["fd"]))
    info = read_header(scored.folder / "best.safetensors")["info"]
    assert info["val_fd"] == scored.best
    assert info["step"] == 4 * (1 + points["fd"].index(min(points["fd"])))
    assert info.keys() == {"step", "epoch", "precision", "val_l1", "val_fd", "val_coverage"}
    assert read_header(plain.folder / "best.safetensors")["info"].keys() == {"step", "epoch", "precision", "val_l1"}
    protocol = find_protocol(tmp_path / "fast.yaml")
    again = evaluate(scored.folder / "best.safetensors", protocol=protocol, metrics=["fd"], weights=RANDOM)
    assert again.scores["fd"] == pytest.approx(scored.best, rel=1e-2)


@pytest.mark.slow
def test_a_training_that_goes_on_keeps_its_best_score(tmp_path):
    short = {"best_by": "fd", "steps": 3, "validate_every": 0.25}  # of an epoch of 4 steps: at every step
    whole = train(small(tmp_path, **short), tmp_path / "whole", quiet=True)
    for _ in range(3):
        part = train(small(tmp_path, **short, max_minutes=0), tmp_path / "parts", quiet=True)
    assert part.finished
    assert part.best == whole.best
    assert (part.folder / "best.safetensors").stat().st_size == (whole.folder / "best.safetensors").stat().st_size
    a, b = (load_file(result.folder / "best.safetensors") for result in (part, whole))
    assert all(torch.equal(a[key], b[key]) for key in a)
    with pytest.raises(RecipeError, match=r"training\.best_by \(fd -> l1\)"):
        train(small(tmp_path, **{**short, "best_by": "l1"}), tmp_path / "parts", quiet=True)


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ({"best_by": "fod"}, r"training\.best_by: there is no score 'fod'. Did you mean"),
        ({"metrics": ["fd", "density"], "protocol": "oasis"}, "dinov2"),
        ({"metrics": ["diversity"]}, "only `clade evaluate` has it"),
        ({"metrics": ["miou"]}, "need a judge"),
        ({"metrics": ["fd"], "score_weights": {EXTRACTOR: "nothing.pth"}}, r"nothing\.pth"),
    ],
)
def test_scores_that_a_training_cannot_compute_are_said_before_it_starts(tmp_path, training, message):
    with pytest.raises(RecipeError, match=message):
        train(small(tmp_path, **training), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()
