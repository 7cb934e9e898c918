"""The scripts in examples/ run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

EXAMPLES = Path(__file__).parents[2] / "examples"
TINY = ["--generator.width", "2", "--discriminator.width", "4", "--data.size", "[32,32]", "--training.steps", "2"]


@pytest.mark.slow
def test_the_demo_trains_and_draws_a_sheet_of_three_columns(tmp_path: Path):
    command = [sys.executable, EXAMPLES / "demo.py", "--out", tmp_path / "run", "--rows", "2", *TINY]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    sheet = tmp_path / "run" / "demo.png"
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
