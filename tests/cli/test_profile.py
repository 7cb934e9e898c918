"""`clade profile`: what it prints and writes, and what it says where something is wrong."""

import csv
import io
import json

import pytest
import torch

import clade
from clade.cli import main

TINY = ["--width", "2", "--size", "64x64"]


@pytest.fixture
def call(capsys):
    """``call(*words)`` -> (exit code, stdout, stderr)"""

    def run(*words):
        capsys.readouterr()
        code = main(["profile", *[str(word) for word in words]])
        out, err = capsys.readouterr()
        return code, out, err

    return run


def rows(out):
    return list(csv.DictReader(io.StringIO(out)))


def test_both_conventions_stand_side_by_side(call):
    code, out, _ = call("clade", "spade", "--format", "csv")
    assert code == 0
    clade_row, spade_row = rows(out)
    assert (clade_row["generator"], clade_row["size"]) == ("clade", "256x256")
    assert round(float(clade_row["params (M)"]), 1) == 71.4
    assert round(float(clade_row["MACs, paper (G)"]), 1) == 42.2
    assert float(clade_row["MACs, true (G)"]) > float(clade_row["MACs, paper (G)"])
    assert round(float(spade_row["MACs, paper (G)"]), 1) == 181.3


@pytest.mark.slow
def test_without_names_come_the_generators_that_the_paper_compares(call):
    code, out, _ = call("--dataset", "celebamask-hq", "--format", "json", *TINY)
    assert code == 0
    assert [row["generator"] for row in json.loads(out)[0]["rows"]] == ["sean", "sean-clade"]
    names = [row["generator"] for row in json.loads(call("--format", "json", *TINY)[1])[0]["rows"]]
    assert names == ["cc-fpse", "dagan", "pix2pixhd", "spade", "clade", "clade-icpe", "spade-light"]


def test_options_reach_the_generators_that_take_them(call):
    wide, slim = (
        rows(call("clade", "--width", width, "--num-classes", classes, "--format", "csv")[1])[0]["params (M)"]
        for width, classes in ((4, 9), (2, 9))
    )
    own = clade.create_generator("clade", num_classes=9, unknown_class=True, width=2)
    assert float(slim) == sum(p.numel() for p in own.parameters()) / 1e6 < float(wide)


def test_one_convention_alone(call):
    header = call("clade", "--convention", "paper", "--format", "csv", *TINY)[1].splitlines()[0]
    assert "MACs, paper (G)" in header
    assert "true" not in header


def test_layers_are_listed_in_the_order_of_the_network(call):
    found = json.loads(call("clade", "--layers", "--format", "json", *TINY)[1])
    assert [table["title"] for table in found][1] == "Layers of clade"
    layers = {row["layer"]: row for row in found[1]["rows"]}
    names = list(layers)
    assert names.index("blocks.0.norm1") < names.index("blocks.0.conv1") < names.index("to_image")
    assert layers["blocks.0.norm1"]["MACs, paper"] == 0 < layers["blocks.0.norm1"]["MACs, true"]
    total = found[0]["rows"][0]["MACs, true (G)"]
    assert sum(row["MACs, true"] for row in layers.values()) / 1e9 == pytest.approx(total)


@pytest.mark.parametrize("style", ["table", "markdown"])
def test_tables_for_eyes(call, style):
    code, out, _ = call("clade", "spade", "--format", style, *TINY)
    assert code == 0
    assert "clade" in out
    assert "spade" in out
    lines = [line for line in out.splitlines() if line.startswith(("|", "clade", "spade"))]
    assert len({len(line.split("|")) for line in lines}) == 1


@pytest.mark.slow
def test_time_and_memory_are_measured_when_asked(call):
    code, out, _ = call("clade", "spade", "--time", "--memory", "--rounds", 2, "--format", "csv", *TINY)
    assert code == 0
    for row in rows(out):
        assert 0 < float(row["min (ms)"]) <= float(row["time (ms)"]) <= float(row["max (ms)"])
        assert row["threads"] == "1"
        assert 0 < float(row["inference (GB)"]) < float(row["training step (GB)"])


def test_a_checkpoint_is_profiled_as_it_is(call, tmp_path):
    torch.manual_seed(0)
    generator = clade.create_generator("clade", num_classes=5, width=2)
    path = tmp_path / "g.safetensors"
    clade.save(generator, path, recipe={"data": {"size": [64, 96]}})
    code, out, _ = call(path, "clade", "--time", "--rounds", 1, "--format", "csv", "--width", 2)
    assert code == 0
    own, other = rows(out)
    assert (own["generator"], own["size"], other["size"]) == (str(path), "64x96", "256x256")
    assert float(own["params (M)"]) == sum(p.numel() for p in generator.parameters()) / 1e6


@pytest.mark.slow
def test_the_papers_tables_stand_beside_ours(call):
    code, out, _ = call("--tables", "--dataset", "coco-stuff", "--format", "json")
    assert code == 0
    first, third, fourth, section = json.loads(out)
    for row in first["rows"]:
        assert row["params, printed (M)"] == round(row["params (M)"], 1)
        assert row["FLOPs, printed (G)"] == round(row["FLOPs (G)"], 1)
    assert {row["part"] for row in third["rows"]} == {"backbone", "spade", "clade"}
    assert len(fourth["rows"]) == 2
    assert round(section["rows"][0]["FLOPs, 3x3 (%)"], 2) == 234.73


def test_results_and_figure_go_to_files(call, tmp_path):
    code, out, _ = call("clade", *TINY, "--out", tmp_path / "cost.txt", "--figure", tmp_path / "five.png")
    assert code == 0
    assert out.split() == [str(tmp_path / "cost.txt"), str(tmp_path / "five.png")]
    assert "clade" in (tmp_path / "cost.txt").read_text(encoding="utf-8")
    assert (tmp_path / "five.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("words", "exit_code", "message"),
    [
        (["clade-ipce"], 1, "Did you mean 'clade-icpe'"),
        (["clade", "--dataset", "cityscape"], 1, "Did you mean 'cityscapes'"),
        (["clade", "--size", "256"], 2, "--size is '256'; needed is HxW"),
        (["clade", "--size", "0x5"], 2, "both sides must be at least 1"),
        (["clade", "--width", "0"], 1, "width is 0"),
        (["clade", "--convention", "papr"], 2, "papr"),
        (["nothing.safetensors"], 1, "no such file"),
        (["clade", "--time", "--device", "gpu", *TINY], 1, "There is no device 'gpu'"),
        (["clade", "--time", "--rounds", "0", *TINY], 1, "rounds is 0"),
        (["clade", "--figure", "five.xyz", *TINY], 1, "ends in one of .png"),
        (["clade", "--tables"], 1, "leave out clade"),
        (["--tables", "--dataset", "deepfashion"], 1, "have no 'deepfashion'"),
    ],
)
def test_what_is_wrong_is_said(call, words, exit_code, message):
    code, out, err = call(*words)
    assert (code, out) == (exit_code, "")
    assert message in err
    assert "Traceback" not in err
