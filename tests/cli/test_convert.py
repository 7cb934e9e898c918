"""`clade convert`: what it writes and prints, and what it says where something is wrong."""

import json
import math
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import clade
from clade import Recipe
from clade.cli import main
from clade.data import ScenesDataset
from clade.labels import LabelSpace
from clade.models.checkpoints import read_header
from clade.tools.conversion import kept
from clade.training.builders import build_generator

ROOT = Path(__file__).parents[2]
RECIPE = {
    "name": "small",
    "data": {"size": [64, 96], "options": {"count": 4, "val_count": 3}},
    "generator": {"name": "spade", "width": 2, "options": {"hidden": 4}},
    "discriminator": {"width": 4, "layers": 2},
    "losses": {"perceptual": 0, "l1": 1},
    "training": {"steps": 40, "batch_size": 2, "accelerator": "cpu", "threads": 1, "calibrate": 1, "samples": 1},
}


@pytest.fixture
def call(capsys, tmp_path, monkeypatch):
    """``call(*words)`` -> (exit code, stdout, stderr), in a folder of its own"""
    monkeypatch.chdir(tmp_path)

    def run(*words):
        capsys.readouterr()
        code = main(["convert", *[str(word) for word in words]])
        out, err = capsys.readouterr()
        return code, out, err

    return run


def write_checkpoint(path, recipe=True, space=None, name=None, **options):
    """A SPADE generator with weights far from their start; by its recipe, or by name and options."""
    plan = Recipe.from_dict(RECIPE)
    space = space or ScenesDataset().label_space
    torch.manual_seed(0)
    if name is None:
        generator = build_generator(plan.generator, space, plan.data.size)
    else:
        generator = clade.create_generator(
            name, num_classes=space.num_classes, unknown_class=space.unknown_class, **options
        )
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    path.parent.mkdir(parents=True, exist_ok=True)
    clade.save(generator, path, space, plan if recipe else None, {"step": 40})
    return path


def write_labels(folder, space, size=(40, 60)):
    """Two label maps of nearly one region, as files hold them."""
    folder.mkdir(parents=True)
    for k in range(2):
        ids = np.full(size, k, np.uint8)
        ids[:4, :4] = 1 - k
        Image.fromarray(ids).save(folder / f"{k}.png")
    (folder.parent / "classes.json").write_text(json.dumps(space.to_dict()))


def test_it_writes_a_generator_and_says_how_near_it_is(call):
    path = write_checkpoint(Path("s.safetensors"))
    code, out, err = call("s.safetensors", "--to", "clade")
    assert (code, err) == (0, "")
    assert out.splitlines()[0].startswith("spade (spade) -> clade (clade), ")
    assert "Compared on 3 label maps: the part 'val' of the scenes at 64x96." in out
    assert out.splitlines()[-1] == "s-clade.safetensors"
    before, after = (clade.load(file, "cpu", "fp32") for file in (path, "s-clade.safetensors"))
    assert (after.generator.name, after.recipe["generator"]["name"]) == ("clade", "clade")
    assert after.label_space == before.label_space
    assert after.info["converted_from"] == "s.safetensors"
    scenes = ScenesDataset(split="val", val_count=3, height=64, width=96)
    maps = [clade.LabelMap(scenes.read(k).ids) for k in range(3)]
    lost = energy = 0.0
    for one in maps:
        wanted, got = before(one), after(one)
        lost += float((got - wanted).square().sum())
        energy += float((wanted - wanted.mean((2, 3), keepdim=True)).square().sum())
    printed = re.search(r"image energy kept\s+(-?[\d.]+) %", out)
    assert printed is not None
    assert math.isclose(float(printed[1]), 100 * (1 - lost / energy), abs_tol=0.02)


def test_above_a_resolution_or_a_number_of_blocks(call):
    write_checkpoint(Path("s.safetensors"))
    code, out, _ = call("s.safetensors", "--to", "clade", "--above", "4", "--json")
    facts = json.loads(out)
    assert code == 0
    assert facts["out"] == "s-spade3-clade.safetensors"
    assert facts["options"]["norm"] == "spade:3,clade"  # features of 2x3, 4x6, 4x6, then 8x12
    assert [block["size"] for block in facts["blocks"][:4]] == [[2, 3], [4, 6], [4, 6], [8, 12]]
    assert [block["together"] for block in facts["blocks"][:3]] == [1, 1, 1]
    assert facts["maps"] == 3
    again = json.loads(call("s.safetensors", "--to=clade", "--spade-blocks=3", "--out=b/c.safetensors", "--json")[1])
    assert again["energy"] == facts["energy"]
    assert clade.load("b/c.safetensors").generator.options["norm"] == "spade:3,clade"
    larger = json.loads(call("s.safetensors", "--to=clade", "--above=4", "--size=128x128", "--json")[1])
    assert larger["options"]["norm"] == "spade:1,clade"
    more = json.loads(call("s-spade3-clade.safetensors", "--to=clade", "--out=all.safetensors", "--json")[1])
    assert "norm" not in more["options"]
    assert clade.load("all.safetensors").generator.name == "clade"


def test_fitted_tables_keep_more(call):
    write_checkpoint(Path("s.safetensors"))
    facts = {}
    for name, words in {"patches": [], "fitted": ["--fit", "4"]}.items():
        code, out, _ = call("s.safetensors", "--to", "clade", "--json", *words)
        assert code == 0
        facts[name] = json.loads(out)
    assert facts["patches"]["fitted"] is None
    assert facts["fitted"]["fitted"] == (
        "Tables fitted to what SPADE gives on 4 label maps: the part 'train' of the scenes."
    )
    first = [facts[name]["blocks"][0]["alone"] for name in ("patches", "fitted")]
    assert first[1] > first[0]
    write_labels(Path("some/labels"), LabelSpace.numbered(3))
    out = call("s.safetensors", "--to", "clade", "--labels", "some", "--fit", "9", "--maps", "1")[1]
    assert out.startswith("Tables fitted to what SPADE gives on 1 label maps: of some, others than below.")


def test_in_16_bits_a_file_is_half_as_large_and_draws_the_same(call):
    path = write_checkpoint(Path("s.safetensors"), name="spade", width=16, hidden=32)
    code, out, err = call(path, "--half", "--json", "--maps", "2", "--size", "64x64")
    assert (code, err) == (0, "")
    facts = json.loads(out)
    assert facts["out"] == "s-half.safetensors"
    assert facts["bytes"] == Path("s-half.safetensors").stat().st_size < 0.6 * path.stat().st_size
    assert facts["maps"] == 2
    before, after = clade.read_checkpoint(path), clade.read_checkpoint("s-half.safetensors")
    assert (before.label_space, before.recipe) == (after.label_space, after.recipe)
    ids = torch.randint(0, 13, (1, 64, 64), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        images = [checkpoint.generator(ids) for checkpoint in (before, after)]
    assert not torch.equal(*images)
    assert (images[0] - images[1]).abs().mean() < 0.02  # most values of this wild network are 1 or -1
    assert 20 < facts["psnr"] < 150
    assert 0 < facts["changed"] < 1
    code, _, err = call("s-half.safetensors", "--half")
    assert code == 1
    assert "s-half.safetensors: is stored in 16 bits already" in err


def test_converted_and_in_16_bits(call):
    write_checkpoint(Path("s.safetensors"))
    code, out, _ = call("s.safetensors", "--to", "clade", "--half", "--maps", "1")
    assert code == 0
    assert out.splitlines()[-1] == "s-clade-half.safetensors"
    assert read_header("s-clade-half.safetensors")["half"] is True


def test_what_is_told_of_a_conversion_to_16_bits_is_told_of_the_rounded_weights(call):
    path = write_checkpoint(Path("s.safetensors"), name="spade", width=16, hidden=32)
    words = ["--to", "clade", "--labels", "map.png", "--size", "64x64", "--json"]
    ids = ScenesDataset(split="val", val_count=3, height=64, width=64).read(0).ids % 12
    Image.fromarray(ids.astype(np.uint8)).save("map.png")
    facts = [json.loads(call(path, *words, *more)[1]) for more in ([], ["--half"])]
    before = clade.read_checkpoint(path).generator
    for told, out in zip(facts, ("s-clade.safetensors", "s-clade-half.safetensors"), strict=True):
        found = kept(before, clade.read_checkpoint(out).generator, [clade.LabelMap(ids)])
        assert told["psnr"] == found.psnr
        assert told["blocks"][0]["alone"] == found.blocks[0].alone
    assert facts[0]["blocks"] != facts[1]["blocks"]


def test_label_files_and_a_dataset_elsewhere(call):
    space = LabelSpace.numbered(3)
    write_checkpoint(Path("s.safetensors"), recipe=False, space=space, name="spade", width=2)
    write_labels(Path("some/labels"), space)
    code, out, err = call("s.safetensors", "--to", "clade", "--labels", "some", "--json")
    facts = json.loads(out)
    assert (code, err) == (0, "")
    assert facts["compared_on"] == "of some"
    assert facts["maps"] == 2
    # All but 2 pixels at the picture's border, and what is that near to the small region: 6 x 6, 4 x 4 of it counted.
    assert math.isclose(facts["inside"], (36 * 56 - 4 * 4) / (40 * 60))
    code, out, _ = call("s.safetensors", "--to", "clade", "--labels", "some/labels/0.png", "--size", "64x64", "--json")
    assert json.loads(out)["blocks"][-1]["size"] == [64, 64]


def test_data_says_where_the_checkpoint_s_dataset_lies_now(call):
    space = LabelSpace.numbered(3)
    recipe = {**RECIPE, "data": {"name": "folder", "root": "gone", "size": [32, 32]}}
    torch.manual_seed(0)
    generator = clade.create_generator("spade", num_classes=3, width=2)
    clade.save(generator, "s.safetensors", space, Recipe.from_dict(recipe))
    for split in ("train", "val"):
        write_labels(Path(f"here/{split}/labels"), space)
        Path(f"here/{split}/images").mkdir()
        for k in range(2):
            Image.new("RGB", (60, 40), (k, 9, 9)).save(f"here/{split}/images/{k}.png")
    code, out, err = call("s.safetensors", "--to", "clade", "--data", "here", "--recipe-out", "f.yaml")
    assert (code, err) == (0, "")
    assert "Compared on 2 label maps: the part 'val' of here at 32x32." in out
    assert Recipe.from_yaml("f.yaml").data.root == "here"
    code, out, err = call("s.safetensors", "--to", "clade")
    assert code == 0
    assert "Note: the checkpoint's own data cannot be read (gone" in err
    assert "drawn scenes at 32x32, whose classes stand for others" in out


def test_without_recipe_and_labels_drawn_scenes_serve(call):
    write_checkpoint(Path("s.safetensors"), recipe=False, name="spade", width=1, hidden=2)
    code, out, _ = call("s.safetensors", "--to", "clade", "--maps", "2")
    assert code == 0
    assert "Compared on 2 label maps: drawn scenes at 256x256.\n" in out


def test_the_fine_tune_s_recipe_trains(call):
    write_checkpoint(Path("s.safetensors"))
    code, out, _ = call(
        "s.safetensors", "--to", "clade", "--spade-blocks", "2", "--recipe-out", "f.yaml", "--finetune-steps", "1"
    )
    assert code == 0
    assert "`clade train f.yaml`" in out
    stored = yaml.safe_load(Path("f.yaml").read_text(encoding="utf-8"))
    assert stored["training"]["init_from"] == "s-spade2-clade.safetensors"
    assert stored["generator"] == {"name": "clade", "width": 2, "options": {"norm": "spade:2,clade", "hidden": 4}}
    assert main(["train", "f.yaml", "--out", "run", "--quiet"]) == 0
    assert clade.read_checkpoint("run/last.safetensors").info["step"] == 1


WRONG = {
    "an unknown kind": (["s.safetensors", "--to", "clad"], 1, "no conversion called 'clad'. Did you mean 'clade'?"),
    "no kind": (["s.safetensors"], 2, "--to"),
    "half, and a kind's words": (["s.safetensors", "--half", "--above", "4"], 2, "--above: goes with --to KIND"),
    "half into itself": (
        ["s.safetensors", "--half", "--out", "s.safetensors"],
        1,
        "is the checkpoint that is converted",
    ),
    "no file": (["none.safetensors", "--to", "clade"], 1, "none.safetensors: no such file"),
    "no SPADE": (["c.safetensors", "--to", "clade"], 1, "The generator is 'clade', which has no plain SPADE blocks"),
    "no SPADE above": (["c.safetensors", "--to", "clade", "--above", "4"], 1, "The generator is 'clade'"),
    "both": (["s.safetensors", "--to", "clade", "--above", "4", "--spade-blocks", "2"], 2, "not allowed with"),
    "nothing above": (
        ["s.safetensors", "--to", "clade", "--above", "64"],
        1,
        "the features of the 7 blocks are 2x3, 4x6, 4x6, 8x12, 16x24, 32x48, 64x96",
    ),
    "all blocks": (["s.safetensors", "--to", "clade", "--spade-blocks", "7"], 1, "a number from 0 to 6"),
    "itself": (["s.safetensors", "--to", "clade", "--out", "s.safetensors"], 1, "is the checkpoint that is converted"),
    "pickled": (["s.safetensors", "--to", "clade", "--out", "c.pth"], 1, "Name it .safetensors"),
    "no maps": (["s.safetensors", "--to", "clade", "--maps", "0"], 1, "--maps is 0"),
    "nothing to fit": (["s.safetensors", "--to", "clade", "--fit", "0"], 1, "--fit is 0"),
    "no labels": (["s.safetensors", "--to", "clade", "--labels", "nowhere"], 1, "nowhere: there is no such file"),
    "steps alone": (["s.safetensors", "--to", "clade", "--finetune-steps", "3"], 1, "give that, too"),
    "a size in words": (["s.safetensors", "--to", "clade", "--size", "big"], 2, "--size is 'big'"),
}


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """A folder with a SPADE and a CLADE generator."""
    folder = tmp_path_factory.mktemp("both")
    write_checkpoint(folder / "s.safetensors")
    write_checkpoint(folder / "c.safetensors", name="clade", width=2)
    return folder


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_said_and_nothing_is_written(what, call, both, tmp_path):
    shutil.copytree(both, tmp_path, dirs_exist_ok=True)
    words, code, message = WRONG[what]
    result = call(*words)
    assert result[0] == code
    assert result[2].startswith("clade: error: ")
    assert message in result[2]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.safetensors", "s.safetensors"]


def test_without_a_recipe_some_things_need_saying(call):
    write_checkpoint(Path("s.safetensors"), recipe=False)
    for words, message in (
        (["--above", "4"], "--above: for pictures of which size?"),
        (["--recipe-out", "f.yaml"], "carries no recipe, so none can be written"),
        (["--fit", "4"], "--fit needs label maps"),
        (["--data", "."], "--data: the checkpoint carries no recipe"),
    ):
        code, _, err = call("s.safetensors", "--to", "clade", *words)
        assert code == 1
        assert message in err


def test_commands_of_the_page_run(call, monkeypatch):
    write_checkpoint(Path("spade.safetensors"))
    write_labels(Path("maps/labels"), LabelSpace.numbered(3))
    page = (ROOT / "docs/convert.md").read_text(encoding="utf-8")
    lines = [
        line.split("  #")[0] for block in re.findall(r"```sh\n(.*?)```", page, re.DOTALL) for line in block.split("\n")
    ]
    lines = [line for line in lines if line.startswith("clade ")]
    assert len(lines) >= 4
    for line in lines:
        assert main(shlex.split(line)[1:]) == 0, line
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(block, {})
