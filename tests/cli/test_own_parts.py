"""What lies outside the package is used by name, in Python and on the command line."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

import clade
from clade import (
    CheckpointError,
    CladeError,
    LabelMap,
    LabelSpace,
    RecipeError,
    create_generator,
    profile,
    read_checkpoint,
    save,
)
from clade.cli import main
from clade.engine import Engine
from clade.metrics.scores import SCORES, Protocol, Score, Scores
from clade.metrics.scores.measures import MEASURES
from clade.nn import NORMS
from clade.recipes import Recipe

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the example in it, as after `cd` there; what it registers is forgotten afterwards."""
    shutil.copy(ROOT / "examples/own_layer.py", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path not in ("", str(tmp_path))])
    yield tmp_path
    NORMS._entries.pop("class-shift", None)
    sys.modules.pop("own_layer", None)


@pytest.fixture
def layer(folder, monkeypatch):
    monkeypatch.syspath_prepend(str(folder))
    import own_layer  # pyright: ignore[reportMissingImports]

    return own_layer.ClassShift


def maps():
    return LabelMap(torch.arange(64 * 64).view(1, 64, 64) // 512 % 5)


def test_a_generator_is_built_of_it_alone_or_with_others(layer):
    generator = create_generator("clade", num_classes=5, width=2, norm="class-shift").eval()
    kinds = {type(block.norm1) for block in generator.blocks}
    assert kinds == {layer}
    mixed = create_generator("clade", num_classes=5, width=2, norm="class-shift:2,clade").eval()
    assert [type(block.norm1).__name__ for block in mixed.blocks] == ["ClassShift"] * 2 + ["CLADE"] * 5


def test_the_engine_and_the_profile_fall_back(layer):
    generator = create_generator("clade", num_classes=5, width=2, norm="class-shift:2,clade").eval()
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.add_(0.05)
        expected = generator(maps())
    torch.testing.assert_close(Engine(generator, precision="fp32")(maps()), expected, atol=2e-5, rtol=0)
    assert profile(generator, size=(64, 64)).params == sum(p.numel() for p in generator.parameters())


def test_what_knows_other_layers_alone_says_so(layer):
    generator = create_generator("clade", num_classes=5, width=2, norm="class-shift:2,clade")
    with pytest.raises(CheckpointError, match="layer ClassShift is none of clade's"):
        clade.export_official(generator)
    with pytest.raises(CladeError, match="no plain SPADE blocks to convert"):
        clade.convert(generator)


def test_a_checkpoint_does_not_import_by_itself(folder, layer):
    generator = create_generator("clade", num_classes=5, width=2, norm="class-shift")
    save(generator, "own.safetensors", recipe={"imports": ["own_layer"]})
    assert type(read_checkpoint("own.safetensors").generator.blocks[0].norm1) is layer
    NORMS._entries.pop("class-shift")
    with pytest.raises(CheckpointError, match=r"no layer 'class-shift'.*imported own_layer.*--import MODULE"):
        read_checkpoint("own.safetensors")


def test_a_layer_stands_by_itself(layer):
    ids = torch.randint(5, (2, 8, 8))
    assert layer(3, num_rows=5)(torch.randn(2, 3, 4, 4), ids).shape == (2, 3, 4, 4)


def test_a_layer_that_draws_noise_makes_its_generator_stochastic(layer, monkeypatch):
    assert not create_generator("clade", num_classes=5, width=2, norm="class-shift").stochastic
    assert create_generator("clade", num_classes=5, width=2, norm="clade:6,ace").stochastic
    monkeypatch.setattr(layer, "stochastic", True)
    assert create_generator("clade", num_classes=5, width=2, norm="class-shift:1,clade").stochastic


def test_a_name_that_is_taken_is_refused(layer):
    with pytest.raises(CladeError, match=r"a normalization layer 'class-shift' already, of own_layer"):
        NORMS.register("class-shift")(layer)


def test_positions_need_a_layer_that_takes_them(layer):
    with pytest.raises(CladeError, match="positions='modulation' works in CLADE layers"):
        create_generator("clade-icpe", num_classes=5, width=2, norm="class-shift")


def test_commands_of_the_page_run(folder, capsys):
    page = (ROOT / "docs/own-parts.md").read_text(encoding="utf-8")
    train, generate, profiled = re.findall(r"^clade (.*)$", page, re.MULTILINE)
    tiny = "--data.size [32,32] --training.steps 1 --training.batch_size 2 --training.calibrate 1 --generator.width 2"
    assert main([*shlex.split(train), *tiny.split(), "--data.options", "{count: 2}", "--quiet"]) == 0
    Path("labels").mkdir()
    Image.new("L", (32, 32), 1).save("labels/one.png")
    assert main(shlex.split(generate)) == 0
    assert Path("pictures/one.png").is_file()
    assert main(shlex.split(profiled)) == 0
    capsys.readouterr()


def test_a_module_that_is_not_there_is_named(folder, capsys):
    assert main(["generate", "demo", "--import", "no_such_module"]) == 1
    assert "no module 'no_such_module' to import" in capsys.readouterr().err
    assert main(["generate", "demo", "--import=no_such_module"]) == 1
    assert "no module 'no_such_module' to import" in capsys.readouterr().err
    assert main(["generate", "demo", "--import"]) == 2
    Path("mine.yaml").write_text("imports: [no.such]\n")
    with pytest.raises(CladeError, match=r"no module 'no\.such'"):
        Recipe.from_yaml("mine.yaml")
    Path("mine.yaml").write_text("imports: own_layer\n")
    with pytest.raises(RecipeError, match="imports"):
        Recipe.from_yaml("mine.yaml")


def test_what_a_module_lacks_itself_is_said_as_it_is(folder):
    Path("broken_part.py").write_text("import surely_not_there\n")
    Path("mine.yaml").write_text("imports: [broken_part]\n")
    with pytest.raises(ModuleNotFoundError, match="surely_not_there"):
        Recipe.from_yaml("mine.yaml")


def test_a_recipe_of_a_checkpoint_imports_nothing(folder):
    assert Recipe.from_dict({"imports": ["own_layer"]}).imports == ["own_layer"]
    assert "own_layer" not in sys.modules


def test_a_score_of_the_page_is_in_the_protocol_and_the_table(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(MEASURES, "_entries", dict(MEASURES._entries))
    page = (ROOT / "docs/own-parts.md").read_text(encoding="utf-8")
    code = next(block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "brightness" in block)
    try:
        exec(code, {"__name__": "own_score"})
        for folder in ("images", "labels"):
            (tmp_path / "val" / folder).mkdir(parents=True)
        Image.new("RGB", (32, 32), (90, 90, 90)).save(tmp_path / "val/images/one.png")
        Image.new("L", (32, 32), 1).save(tmp_path / "val/labels/one.png")
        (tmp_path / "classes.json").write_text('{"names": ["a", "b", "c"]}')
        generator = create_generator("clade", num_classes=3, width=2)
        save(generator, tmp_path / "own.safetensors", LabelSpace(names=("a", "b", "c")))
        line = f"evaluate {tmp_path}/own.safetensors --data {tmp_path} --dataset folder --out {tmp_path}/own.json"
        assert main([*line.split(), *["--split", "val", "--metrics", "brightness,l1", "--size", "32x32"]]) == 0
        assert "brightness" in capsys.readouterr().out
    finally:
        SCORES.pop("brightness", None)


def test_a_score_that_nothing_computes_is_said_before_drawing(monkeypatch):
    monkeypatch.setitem(SCORES, "brightness", Score("brightness", True))
    space = LabelSpace(names=("a", "b", "c"))
    protocol = Protocol(metrics=("l1", "brightness"), size=(32, 32))
    scores = Scores(protocol, space, lambda: pytest.fail("no photos are needed"))
    assert scores.missing == {"brightness": "No measure computes 'brightness': register one in MEASURES."}
    with pytest.raises(CladeError, match="No measure computes 'brightness'"):
        Scores(protocol, space, lambda: pytest.fail("no photos are needed"), named=("brightness",))
