"""A training that meets broken files: it stops with the file's name, or goes on without it and says so."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from clade.errors import CladeError
from clade.recipes import Recipe
from clade.training import train

pytestmark = pytest.mark.slow


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Eight pictures to train on and three to validate on: photos 2 and 5 and the first label of "val" are broken."""
    for split, count in (("train", 8), ("val", 3)):
        for k in range(count):
            rng = np.random.default_rng(k)
            for part, shape in (("images", (32, 32, 3)), ("labels", (32, 32))):
                path = tmp_path / "data" / split / part / f"{k}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(rng.integers(0, 256 if part == "images" else 3, shape, np.uint8)).save(path)
    for broken in ("train/images/2.png", "train/images/5.png", "val/labels/0.png"):
        (tmp_path / "data" / broken).write_bytes((tmp_path / "data" / broken).read_bytes()[:60])
    return tmp_path / "data"


def options(data: Path, *changes: str) -> list[str]:
    return [
        "--data.name=folder",
        f"--data.root={data}",
        "--data.num_classes=3",
        "--data.size=[32, 32]",
        "--data.on_error=skip",
        "--generator.name=clade",
        "--generator.width=2",
        "--discriminator.width=4",
        "--discriminator.layers=2",
        "--losses.perceptual=0",
        "--training.steps=8",
        "--training.batch_size=2",
        "--training.accelerator=cpu",
        "--training.threads=1",
        "--training.calibrate=2",
        "--training.samples=2",
        "--training.log_every=2",
        "--training.validate_every=1",
        *changes,
    ]


def trained(data: Path, out: Path, *changes: str):
    threads = torch.get_num_threads()
    try:
        return train(Recipe.from_dict({}, options(data, *changes)), out, quiet=True)
    finally:
        torch.set_num_threads(threads)


def state(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "state.safetensors")


def test_each_broken_file_is_told_once_listed_and_counted(data: Path, tmp_path: Path, capsys):
    result = trained(data, tmp_path / "run")
    listed = (tmp_path / "run" / "skipped.txt").read_text(encoding="utf-8").splitlines()
    broken = ["train/images/2.png", "train/images/5.png", "val/labels/0.png"]
    assert (result.step, result.skipped) == (8, 3)
    assert sorted(next(name for name in broken if str(data / name) in line) for line in listed) == broken
    told = capsys.readouterr().err.splitlines()
    assert told == [f"Skipped: {line}" for line in listed]
    (file,) = (tmp_path / "run" / "tensorboard").iterdir()
    points = EventAccumulator(str(file)).Reload().Scalars("skipped_files")
    assert points[-1].value == 3


def test_workers_and_an_interruption_change_nothing(data: Path, tmp_path: Path, capsys):
    """The list goes on, and what was told is not told again."""
    whole = trained(data, tmp_path / "whole", "--training.validate_every=2")
    capsys.readouterr()
    folder, changes = tmp_path / "parts", ["--training.validate_every=2", "--data.workers=2"]
    assert trained(data, folder, *changes, "--training.max_minutes=0").step == 1
    first = trained(data, folder, *changes, "--training.max_minutes=0")
    assert (folder / "skipped.txt").exists() == bool(first.skipped)
    result = trained(data, folder, *changes)
    assert (result.step, result.skipped, result.best) == (8, 3, whole.best)
    assert all(torch.equal(value, state(tmp_path / "whole")[key]) for key, value in state(folder).items())
    lists = [sorted((run / "skipped.txt").read_text(encoding="utf-8").splitlines()) for run in (whole.folder, folder)]
    assert lists[0] == lists[1]
    assert sorted(capsys.readouterr().err.splitlines()) == [f"Skipped: {line}" for line in lists[1]]


def test_two_processes_tell_of_each_file_once(data: Path, tmp_path: Path):
    (tmp_path / "small.yaml").write_text("name: small\n", encoding="utf-8")
    command = [sys.executable, "-m", "clade", "train", str(tmp_path / "small.yaml"), "--devices=2"]
    done = subprocess.run(
        [*command, "--quiet", f"--out={tmp_path / 'two'}", *options(data, "--training.batch_size=1")],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    listed = (tmp_path / "two" / "skipped.txt").read_text(encoding="utf-8").splitlines()
    assert len(listed) == 3
    assert [line for line in done.stderr.splitlines() if line.startswith("Skipped")] == [
        f"Skipped: {line}" for line in listed
    ]


@pytest.mark.parametrize("workers", [0, 1])
def test_by_default_the_first_broken_file_stops_with_its_name(data: Path, tmp_path: Path, workers: int):
    before = set(multiprocessing.active_children())
    with pytest.raises(CladeError, match=r"train/images/[25]\.png") as raised:
        trained(data, tmp_path / "run", "--data.on_error=stop", f"--data.workers={workers}")
    # Though the error is kept: a worker that is left would keep the process from ending.
    assert set(multiprocessing.active_children()) <= before
    assert f"`--data.on_error skip` goes on without such files; `clade data check {data}`" in str(raised.value)
    assert not (tmp_path / "run" / "skipped.txt").exists()


def test_a_training_that_a_broken_file_has_stopped_goes_on_with_skip(data: Path, tmp_path: Path):
    saved = "--training.save_every=1"
    with pytest.raises(CladeError):
        trained(data, tmp_path / "run", "--data.on_error=stop", saved)
    assert trained(data, tmp_path / "run", saved).step == 8
    trained(data, tmp_path / "whole", saved)
    assert all(torch.equal(value, state(tmp_path / "whole")[key]) for key, value in state(tmp_path / "run").items())


@pytest.mark.parametrize("split", ["train", "val"])
def test_data_that_are_all_broken_stop(data: Path, tmp_path: Path, split: str):
    for path in (data / split / "images").iterdir():
        path.write_bytes(b"no picture")
    with pytest.raises(CladeError, match=rf"None of the \d pictures can be used.*{split}/"):
        trained(data, tmp_path / "run")


def test_with_edges_and_balance_broken_first_pictures_do_not_stop_it(data: Path, tmp_path: Path):
    label = data / "train/labels/0.png"
    label.write_bytes(label.read_bytes()[:60])
    changes = ["--generator.instance_edges=true", "--data.sampling=balanced", "--training.validate_every=100"]
    assert trained(data, tmp_path / "run", *changes).step == 8
