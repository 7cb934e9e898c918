"""Two processes train like one with the doubled batch, batch statistics included."""

import functools
import multiprocessing
import os
import subprocess
import sys

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from clade.data import Batch
from clade.labels import LabelMap, LabelPyramid
from clade.losses import ADVERSARIAL
from clade.models import DISCRIMINATORS, SegmentationDiscriminator, create_generator
from clade.models.checkpoints import read_header
from clade.models.discriminators.diff_augment import DiffAugment, augmentation_numbers
from clade.nn import BatchNorm
from clade.recipes import Recipe
from clade.training import train
from clade.training.state import read_facts
from clade.training.step import (
    Objective,
    TrainableDiscriminator,
    TrainableGenerator,
    latent_noise,
    look_numbers,
    noise_seed,
    training_step,
)

pytestmark = pytest.mark.slow

ROWS, Z, STEPS = 4, 3, 3


def in_process(function, folder, rank):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2)
    save_file(function(rank, 2), folder / f"{rank}.safetensors")
    dist.destroy_process_group()


def by_two(function, folder):
    """What ``function(rank, 2)`` returns in each of two processes."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["clade.training"])
    processes = [context.Process(target=in_process, args=(function, folder, rank)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    return [load_file(folder / f"{rank}.safetensors") for rank in range(2)]


def features():
    """Far from zero mean, which E[x^2] - E[x]^2 would not survive; the processes' parts differ in size and place."""
    random = torch.Generator().manual_seed(0)
    x = torch.randn(3, 5, 4, 6, 7, generator=random, dtype=torch.float64)
    x[:, 2:] += 3
    return x + 50, torch.randn(3, 5, 4, 6, 7, generator=random, dtype=torch.float64)


def normalize(norm, part):
    """Output, input gradient and statistics after each of three batches."""
    out = {}
    for number, (x, weight) in enumerate(zip(*features(), strict=True)):
        x = x[part].clone().requires_grad_()
        y = norm(x)
        (y * weight[part]).sum().backward()
        out |= {f"y{number}": y.detach(), f"grad{number}": x.grad}
        out |= {f"{k}{number}": v.clone() for k, v in norm.state_dict().items()}
    return out


def batch_norm(rank, world):
    part = slice(0, 2) if rank == 0 else slice(2, 5)
    out = normalize(BatchNorm(4).double().train(), part)
    half = BatchNorm(4).train()
    out["half"] = half(features()[0][0, part].to(torch.bfloat16))
    evaluated = half.eval()(features()[0][0, part].float())
    return {**{k: v.contiguous() for k, v in out.items()}, "evaluated": evaluated}


def test_batch_norm_of_two_processes_equals_that_of_the_joined_batch(tmp_path):
    parts = by_two(batch_norm, tmp_path)
    whole = normalize(nn.BatchNorm2d(4, affine=False).double().train(), slice(None))
    for key, expected in whole.items():
        if key[:-1] in ("y", "grad"):
            found = torch.cat([part[key] for part in parts])
            assert found.dtype == torch.float64
            assert torch.allclose(found, expected, rtol=0, atol=1e-10), key
        else:
            for part in parts:
                assert torch.allclose(part[key].double(), expected.double(), rtol=0, atol=1e-10), key
    half = torch.cat([part["half"] for part in parts])
    assert half.dtype == torch.bfloat16
    rounded = features()[0][0].to(torch.bfloat16).double()
    expected = nn.functional.batch_norm(rounded, None, None, training=True)
    assert torch.allclose(half.double(), expected, atol=2e-2)


def steps_by(rank, world, judge="multiscale"):
    """Weights, statistics and losses after a few steps on this rank's part of the batches, all in float64."""
    torch.manual_seed(0)
    generator = create_generator("clade-icpe", num_classes=ROWS, width=2, z_dim=Z, size=(64, 64), instance_edges=True)
    if judge == "segmentation":
        discriminator = SegmentationDiscriminator(ROWS - 1, unknown_class=True, width=4, depth=3)
    else:
        discriminator = DISCRIMINATORS[judge](ROWS + 1 + 3, width=8, layers=3)
    objective = Objective(ADVERSARIAL["hinge"], feature_matching=10.0, perceptual=0.0, l1=1.0, kl=0.0, vgg=None)
    with torch.no_grad():
        for p in (*generator.parameters(), *discriminator.parameters()):
            p.add_(torch.randn_like(p), alpha=0.05)
    wrapped_g = TrainableGenerator(generator.double()).train()
    wrapped_d = TrainableDiscriminator(discriminator.double(), objective, instance_edges=True).train()
    if world > 1:
        wrapped_g, wrapped_d = DistributedDataParallel(wrapped_g), DistributedDataParallel(wrapped_d)
    # Not Adam: its first step is the gradient's sign, and rounding decides the sign of what is almost 0.
    optimizers = [torch.optim.SGD(module.parameters(), lr=0.05) for module in (generator, discriminator)]
    random = torch.Generator().manual_seed(1)
    out = {}
    for step in range(STEPS):
        ids = torch.randint(ROWS, (4, 8, 8), generator=random).repeat_interleave(8, 1).repeat_interleave(8, 2)
        image = torch.rand(4, 3, 64, 64, generator=random, dtype=torch.float64) * 2 - 1
        count = 4 // world
        part = slice(rank * count, (rank + 1) * count)
        batch = Batch(image[part], LabelMap(ids[part], instances=ids[part]), tuple("abcd"[part]))
        labels = LabelPyramid(batch.label_map, ROWS)
        noise = latent_noise(noise_seed(5, step), count, (Z,), rank, world).double()
        augment = DiffAugment(("color", "translation", "cutout"), augmentation_numbers(5, step, count, rank, world))
        numbers = look_numbers(5, step, count, discriminator.draws, rank, world)
        given = {"noise": noise, "augment": augment, "numbers": numbers}
        losses = training_step(wrapped_g, wrapped_d, batch, labels, objective, **given)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        out |= {f"loss/{name}{step}": loss.double() for name, loss in losses.items()}
    for name, module in (("generator", generator), ("discriminator", discriminator)):
        out |= {f"{name}/{k}": v.clone().contiguous() for k, v in module.state_dict().items()}
    return out


@pytest.mark.parametrize("judge", ["multiscale", "segmentation"])
def test_training_steps_of_two_processes_equal_those_of_one_with_the_joined_batch(judge, tmp_path):
    parts, whole = by_two(functools.partial(steps_by, judge=judge), tmp_path), steps_by(0, 1, judge)
    start = create_generator("clade-icpe", num_classes=ROWS, width=2, z_dim=Z, size=(64, 64), instance_edges=True)
    assert not torch.equal(start.to_image.weight.double(), whole["generator/to_image.weight"])
    for key, expected in whole.items():
        if key.startswith("loss/"):  # a mean over pictures; of the segmentation discriminator's over all of them
            found = (parts[0][key] + parts[1][key]) / 2
            assert found.item() == pytest.approx(expected.item(), rel=1e-5, abs=1e-6), key
            continue
        for part in parts:
            assert torch.allclose(part[key].double(), expected.double(), rtol=1e-5, atol=1e-6), key


TRAINING = [
    "--data.size=[64, 64]",
    '--data.options={"count": 8, "val_count": 3}',
    "--generator.width=4",
    "--discriminator.width=8",
    "--training.steps=4",
    "--training.precision=fp32",
    "--training.accelerator=cpu",
    "--training.threads=1",
    "--training.calibrate=2",
    # Adam's first steps are signs of gradients, and rounding decides the sign of what is almost 0: so, small ones.
    "--optimizer.lr_generator=1e-5",
    "--optimizer.lr_discriminator=1e-5",
    "--training.log_every=1",
    "--training.validate_every=1",
    "--training.save_every=100",
]


def curves(folder):
    files = list((folder / "tensorboard").iterdir())
    assert len(files) == 1
    events = EventAccumulator(str(files[0])).Reload()
    return {tag: [point.value for point in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def assert_trained_alike(two, one):
    """Up to what Adam makes of rounding. Other batches give losses some 10 % apart."""
    many, single = curves(two), curves(one)
    assert many.keys() == single.keys()
    losses = [tag for tag in single if tag.startswith(("loss/", "val/"))]
    assert {"loss/gan", "loss/l1", "loss/d_real", "loss/d_fake", "val/l1"} <= set(losses)
    assert ("loss/feature_matching" in losses) != ("loss/d_label_mix" in losses)
    for tag in losses:
        assert many[tag] == pytest.approx(single[tag], rel=2e-3, abs=2e-3), tag
        if tag.startswith("loss/"):
            assert many[tag][0] == pytest.approx(single[tag][0], rel=1e-4, abs=1e-6), tag
    a, b = load_file(two / "state.safetensors"), load_file(one / "state.safetensors")
    assert a.keys() == b.keys()
    statistics = [key for key in b if "running_" in key]
    assert statistics
    for key in statistics:
        assert torch.allclose(a[key], b[key], rtol=1e-2, atol=1e-3 * max(1.0, b[key].abs().max().item())), key
    assert read_facts(two / "state.safetensors")["best"] == pytest.approx(
        read_facts(one / "state.safetensors")["best"], rel=1e-3
    )
    assert sorted(p.name for p in two.rglob("*.png")) == sorted(p.name for p in one.rglob("*.png"))


SEGMENTED = ["--discriminator.name=segmentation", "--losses.feature_matching=0", "--discriminator.options={depth: 4}"]


@pytest.mark.parametrize(
    ("name", "launcher", "more"),
    [
        ("clade", ["-m", "clade", "train", "scenes-tiny", "--devices=2"], []),
        ("clade", ["-m", "clade", "train", "scenes-tiny", "--devices=2"], SEGMENTED),
        (
            "clade-icpe",
            ["-m", "torch.distributed.run", "--nproc-per-node=2", "-m", "clade", "train", "scenes-tiny"],
            [],
        ),
    ],
    ids=["devices", "segmentation", "torchrun"],
)
def test_a_training_by_two_processes_goes_like_one_with_the_doubled_batch(name, launcher, more, tmp_path):
    options = [*TRAINING, f"--generator.name={name}", *more]
    two = subprocess.run(
        [sys.executable, *launcher, f"--out={tmp_path / 'two'}", *options, "--training.batch_size=2"],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert two.returncode == 0, two.stderr
    assert two.stdout.splitlines() == [str(tmp_path / "two" / "last.safetensors")]
    threads = torch.get_num_threads()
    train(Recipe.from_yaml("scenes-tiny", [*options, "--training.batch_size=4"]), tmp_path / "one", quiet=True)
    torch.set_num_threads(threads)
    assert_trained_alike(tmp_path / "two", tmp_path / "one")
    header = read_header(tmp_path / "two" / "last.safetensors")
    assert header["info"] == {**read_header(tmp_path / "one" / "last.safetensors")["info"]}
