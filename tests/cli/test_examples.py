"""The scripts in examples/ run."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

EXAMPLES = Path(__file__).parents[2] / "examples"
TINY = ["--generator.width", "2", "--discriminator.width", "4", "--data.size", "[32,32]", "--training.steps", "2"]


def test_the_demo_draws_streets_at_once_without_training(tmp_path: Path, monkeypatch, capsys):
    """In this process, which has torch loaded; the training below runs it as a program."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["demo.py", "--out", str(tmp_path / "run"), "--no-training"])
    runpy.run_path(str(EXAMPLES / "demo.py"), run_name="__main__")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["streets.png"]
    assert str(tmp_path / "run" / "streets.png") in capsys.readouterr().out
    pixels = np.asarray(Image.open(tmp_path / "run" / "streets.png"))
    assert pixels.shape == (3 * 256 + 4 * 4, 4 * 342 + 5 * 4, 3)
    assert len(np.unique(pixels[4:260, 4:346].reshape(-1, 3), axis=0)) <= 12  # a label map
    assert len(np.unique(pixels[4:260, 350:692].reshape(-1, 3), axis=0)) > 1000  # a picture


def test_the_demo_without_training_takes_no_words_for_it(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["demo.py", "--out", str(tmp_path / "run"), "--no-training", *TINY])
    with pytest.raises(SystemExit) as left:
        runpy.run_path(str(EXAMPLES / "demo.py"), run_name="__main__")
    assert left.value.code == 2
    assert "--generator.width: changes the training" in capsys.readouterr().err


@pytest.mark.slow
def test_the_demo_trains_and_draws_a_sheet_of_three_columns(tmp_path: Path):
    command = [sys.executable, EXAMPLES / "demo.py", "--out", tmp_path / "run", "--rows", "2", *TINY]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    sheet = tmp_path / "run" / "demo.png"
    assert done.stdout.index(str(tmp_path / "run" / "streets.png")) < done.stdout.index("Training clade-icpe")
    assert str(sheet) in done.stdout
    pixels = np.asarray(Image.open(sheet))
    assert pixels.shape == (2 * 64 + 3 * 4, 3 * 64 + 4 * 4, 3)


@pytest.mark.slow
def test_the_demo_says_in_one_line_what_is_wrong(tmp_path: Path):
    command = [sys.executable, EXAMPLES / "demo.py", "--out", tmp_path / "run", "--generator.widht", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 1
    assert "Did you mean 'generator.width'?" in done.stderr
    assert "Traceback" not in done.stderr
