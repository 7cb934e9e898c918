"""Every command of the README runs as it stands, on a small dataset and with a small network."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from clade import LabelSpace, create_generator
from clade.cli import main
from clade.data import ScenesDataset

README = Path(__file__).parents[2] / "README.md"
TINY = {
    "clade train": "--data.size [32,32] --data.workers 0 --generator.width 4 --discriminator.width 4 "
    "--training.steps 2 --training.samples 1 --training.calibrate 2 --quiet",
    "clade judge train": "--data.size [64,64] --training.steps 2 --quiet",
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "dataset"
    for split in ("train", "val"):
        scenes = ScenesDataset(split=split, count=4, val_count=2, height=40, width=48)
        write_folder(root / split, scenes)
        write_classes(root, scenes.label_space)
    return root


def write_folder(folder: Path, scenes: ScenesDataset) -> None:
    for index in range(len(scenes)):
        sample = scenes.read(index)
        assert sample.image is not None
        raw = np.where(sample.ids == scenes.label_space.num_classes, 255, sample.ids).astype(np.uint8)
        for name, pixels in (("images", sample.image), ("labels", raw)):
            (folder / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / name / f"{index}.png")


def write_classes(root: Path, space: LabelSpace) -> None:
    (root / "classes.json").write_text(json.dumps(space.to_dict()), encoding="utf-8")


def test_commands_and_python_of_the_readme_run(
    dataset: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    commands = [line.split("#")[0].strip() for block in blocks("sh") for line in block.splitlines()]
    commands = [command for command in commands if command.startswith("clade ")]
    assert len(commands) >= 4
    for command in commands:
        extra = next((words for name, words in TINY.items() if command.startswith(name)), "")
        assert main(shlex.split(f"{command} {extra}")[1:]) == 0, (command, capsys.readouterr())
    assert sorted(path.name for path in Path("pictures").iterdir()) == ["0.png", "1.png", "grid.png"]

    (dataset / "val" / "labels" / "0.png").rename("label.png")
    state = published_state()
    monkeypatch.setattr(torch, "load", lambda path, weights_only: state)
    ids = torch.zeros(1, 64, 64, dtype=torch.uint8)
    names: dict[str, object] = {"torch": torch, "ids": ids, "instances": ids.int()}
    monkeypatch.setattr("clade.create_generator", small(create_generator), raising=False)
    for block in blocks("python"):
        exec(block, names)
    assert isinstance(names["images"], torch.Tensor)
    assert names["images"].shape == (1, 3, 40, 48)
    assert Path("picture.png").exists()
    assert Path("ade20k.safetensors").exists()


def small(create: object) -> object:
    """Full width takes seconds to initialise; the example is the same at any width."""
    return lambda name, **options: create(name, **{**options, "width": 2})  # type: ignore[operator]


def published_state() -> dict[str, torch.Tensor]:
    """A state dict with the published key names, of random weights."""
    generator = create_generator("clade", num_classes=3, width=2)
    return {published_key(key): value for key, value in generator.state_dict().items()}


def published_key(key: str) -> str:
    stages = ["head_0", "G_middle_0", "G_middle_1", "up_0", "up_1", "up_2", "up_3"]
    key = re.sub(r"^blocks\.(\d)", lambda m: stages[int(m[1])], key)
    key = re.sub(r"\.(norm|conv)(\d)\.", lambda m: f".{m[1]}_{int(m[2]) - 1}.", key)
    for ours, published in {
        "stem.": "fc.",
        "to_image.": "conv_img.",
        "norm_shortcut": "norm_s",
        "conv_shortcut": "conv_s",
        ".normalize.": ".param_free_norm.",
        ".gamma": ".class_specified_affine.weight",
        ".beta": ".class_specified_affine.bias",
        ".parametrizations.weight.original": ".weight_orig",
        ".parametrizations.weight.0._": ".weight_",
    }.items():
        key = key.replace(ours, published)
    return key
