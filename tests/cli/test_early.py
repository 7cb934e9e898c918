"""What is wrong with names and paths is told before torch loads, which takes seconds."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import clade.data
from clade.cli.early import require_trainable
from clade.data.base import DATASETS
from clade.errors import RecipeError
from clade.models import DISCRIMINATORS, GENERATORS
from clade.recipes import Recipe
from clade.registry import names_in_source

WRONG = {
    "train camvid-clad": "Did you mean 'camvid-clade'?",
    "train scenes-tiny --generator.widht 3": "Did you mean 'generator.width'?",
    "train scenes-tiny --training.steps many": "training.steps is many",
    "train scenes-tiny --generator.name clad": "Did you mean 'clade'?",
    "train scenes-tiny --discriminator.name multiscal": "Did you mean 'multiscale'?",
    "train camvid-clade --data.name camvit": "Did you mean 'camvid'?",
    "train camvid-clade --data.root nosuch": "nosuch: no such folder",
    "train scenes-tiny --out file": "file: is a file",
    "train scenes-tiny --training.init_from nosuch.safetensors": "training.init_from: nosuch.safetensors: no such file",
    "train scenes-tiny --threads 0": "'0' came; needed is at least 1",
    "generate nosuch.safetensors x": "nosuch.safetensors: no such file",
    "generate dmo x": "Did you mean 'demo'?",
    "generate demo nosuch.png": "nosuch.png: there is no such file or folder",
    "evaluate nosuch.safetensors": "nosuch.safetensors: no such file",
    "evaluate demo --data nosuch": "nosuch: no such folder",
    "compare a=demo b=nosuch.safetensors": "nosuch.safetensors: no such file",
    "convert file --half": "file: not a safetensors file",
    "analyze nosuch.safetensors --out out": "nosuch.safetensors: no such file",
    "info nosuch.safetensors": "nosuch.safetensors: no such file",
    "judge train camvd": "Did you mean 'camvid'?",
    "judge train camvid --network.encodr x": "Did you mean 'encoder'?",
    "judge train camvid --data.root nosuch": "nosuch: no such folder",
    "judge score x --data nosuch": "nosuch: no such folder",
    "profile clad": "Did you mean 'clade'?",
    "profile nosuch.safetensors": "nosuch.safetensors: no such file",
    "study build a.safetensors b.safetensors --labels x --out y": "a.safetensors: no such file",
    "data prepare camvid-clad --out x": "Did you mean 'camvid-clade'?",
}
PROGRAM = """
import contextlib, io, json, sys
from clade.cli import main
told = {}
for line in json.loads(sys.argv[1]):
    error = io.StringIO()
    with contextlib.redirect_stderr(error):
        code = main(line.split())
    told[line] = [code, error.getvalue(), "torch" in sys.modules]
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """Command -> its exit code, what it says, and whether torch was there then; all in one process."""
    folder = tmp_path_factory.mktemp("early")
    (folder / "file").write_text("no folder")
    words = [sys.executable, "-c", PROGRAM, json.dumps([*WRONG])]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("line", WRONG)
def test_a_wrong_word_is_told_without_loading_torch(told, line):
    code, error, loaded = told[line]
    assert code in (1, 2)
    assert WRONG[line] in error
    assert len(error.splitlines()) == 1
    assert "unexpected" not in error
    assert not loaded


@pytest.mark.parametrize(
    ("room", "name", "registry"),
    [
        ("models", "GENERATORS", GENERATORS),
        ("models", "DISCRIMINATORS", DISCRIMINATORS),
        ("data", "DATASETS", DATASETS),
    ],
)
def test_the_names_read_off_the_source_are_those_that_are_registered(room, name, registry):
    assert names_in_source(Path(clade.__file__).parent / room, name) == registry.names()


def test_a_training_goes_on_when_the_checkpoint_that_it_began_with_is_gone(tmp_path):
    recipe = Recipe.from_dict({"training": {"init_from": str(tmp_path / "gone.safetensors")}})
    with pytest.raises(RecipeError, match=r"training\.init_from: .*gone\.safetensors: no such file"):
        require_trainable(recipe, str(tmp_path), False)
    (tmp_path / "state.safetensors").write_bytes(b"")
    require_trainable(recipe, str(tmp_path), False)
    with pytest.raises(RecipeError, match="no such file"):
        require_trainable(recipe, str(tmp_path), True)
