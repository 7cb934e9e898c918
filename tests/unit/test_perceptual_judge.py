"""The perceptual loss in the features of a segmenter that was trained here."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from clade.cli import main
from clade.data import ScenesDataset
from clade.errors import CheckpointError, CladeError, RecipeError
from clade.labels import LabelSpace
from clade.metrics.judges.perceptual import EncoderPerceptual
from clade.metrics.judges.trained import MEAN, STD, Architecture, TrainedJudge, read_judge
from clade.recipes import LossConfig
from clade.training.builders import build_objective

pytest.importorskip("segmentation_models_pytorch")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    torch.manual_seed(0)
    architecture = Architecture(name="fpn", encoder="resnet18")
    judge = TrainedJudge(architecture.build(3), architecture, LabelSpace.numbered(3), (32, 32))
    file = tmp_path_factory.mktemp("judge") / "best.safetensors"
    judge.save(file)
    return file


@pytest.fixture
def images():
    random = torch.Generator().manual_seed(1)
    return [torch.rand(2, 3, 40, 48, generator=random) * 2 - 1 for _ in range(2)]


def test_it_is_the_mean_over_stages_of_distances_relative_to_the_photo(path, images):
    loss = EncoderPerceptual(path)
    fake, real = images
    encoder: Any = loss.network.encoder
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))

    def stages(x):  # sides brought to a multiple of 32 by repeating the last row and column
        x = torch.nn.functional.pad(((x + 1) / 2 - mean) / std, (0, 16, 0, 24), mode="replicate")
        return encoder(x)[1:]

    with torch.no_grad():
        expected = [
            float((a - b).abs().mean() / b.abs().mean()) for a, b in zip(stages(fake), stages(real), strict=True)
        ]
        found = loss(fake, real)
    assert len(expected) == 5
    assert float(found) == pytest.approx(sum(expected) / 5, rel=1e-5)
    assert float(loss(real, real)) == 0


def test_gradients_reach_the_generated_image_alone(path, images):
    loss = EncoderPerceptual(path).train()  # a training sets its modules to train
    assert not any(module.training for module in loss.modules())
    fake, real = (image.requires_grad_() for image in images)
    loss(fake, real).backward()
    assert fake.grad is not None
    assert fake.grad.abs().sum() > 0
    assert real.grad is None
    assert all(parameter.grad is None for parameter in loss.parameters())


def test_bfloat16_images_are_compared_in_float32(path, images):
    fake, real = images
    loss = EncoderPerceptual(path)
    with torch.autocast("cpu", torch.bfloat16):
        found = loss(fake.bfloat16(), real)
    assert found.dtype == torch.float32
    assert float(found) == pytest.approx(float(loss(fake, real)), rel=0.05)


def test_a_recipe_chooses_it(path, tmp_path):
    objective = build_objective(LossConfig(perceptual=10, perceptual_judge=str(path)))
    assert isinstance(objective.vgg, EncoderPerceptual)
    assert build_objective(LossConfig(perceptual=0, perceptual_judge=str(path))).vgg is None
    with pytest.raises(RecipeError, match="both given"):
        build_objective(LossConfig(perceptual=10, perceptual_judge=str(path), vgg_weights="vgg19.pth"))
    with pytest.raises(CheckpointError, match="no such file"):
        build_objective(LossConfig(perceptual=10, perceptual_judge=str(tmp_path / "none.safetensors")))
    with pytest.raises(CladeError, match=r"\(1, 3, 32, 32\)"):
        EncoderPerceptual(path)(torch.zeros(1, 3, 32, 32), torch.zeros(2, 3, 32, 32))


@pytest.mark.slow
def test_a_training_goes_on_only_with_the_networks_that_it_looked_through(tmp_path, capsys):
    space, architecture = ScenesDataset().label_space, Architecture(name="fpn", encoder="resnet18")
    files = {key: tmp_path / f"{key}.safetensors" for key in ("loss", "score")}
    for seed, file in enumerate(files.values()):
        torch.manual_seed(seed)
        TrainedJudge(architecture.build(space.num_classes), architecture, space, (32, 32)).save(file)
    words = ["train", "scenes-tiny", "--data.size=[32,32]", "--generator.width=2", "--generator.upsampling=normal"]
    words += ["--discriminator.width=2", "--discriminator.layers=2", "--training.steps=3", "--training.batch_size=2"]
    words += ["--training.calibrate=1", "--training.threads=1", "--training.accelerator=cpu", "--losses.perceptual=1"]
    words += [f"--losses.perceptual_judge={files['loss']}", f"--training.judge={files['score']}", "--quiet"]
    words += ["--training.metrics=[miou]", "--training.max_minutes=0", "--out", str(tmp_path / "run")]
    assert main(words) == 0
    for key, named in (("loss", "perceptual loss"), ("score", "judge")):
        before = files[key].read_bytes()
        judge = read_judge(files[key])
        with torch.no_grad():
            next(judge.network.parameters()).mul_(1.01)
        judge.save(files[key])
        assert main(words) != 0
        assert f"holds a training by another recipe: the weights of {named}. Use the same" in capsys.readouterr().err
        files[key].write_bytes(before)
    assert main(words) == 0
