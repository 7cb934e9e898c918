"""BatchNorm statistics that belong to the averaged weights."""

from __future__ import annotations

import copy

import torch
from safetensors.torch import load_file

import clade
from clade import LabelMap, create_generator
from clade.data import Batch
from clade.nn import BatchNorm
from clade.training.calibration import calibrated

BATCHES = 3


def batches():
    torch.manual_seed(1)
    maps = [LabelMap(torch.randint(0, 4, (2, 32, 64))) for _ in range(BATCHES)]
    return [Batch(image=None, label_map=label_map, names=("a", "b")) for label_map in maps]


def generator(**options):
    torch.manual_seed(0)
    return create_generator("clade", num_classes=4, width=2, **options).eval()


def draw(network, batch, number):
    return network(batch.label_map)


def test_statistics_are_the_means_over_the_batches():
    network = generator()
    inputs = []
    first = next(module for module in network.modules() if isinstance(module, BatchNorm))
    handle = first.register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
    for batch in batches():  # the input of the first layer depends on no statistics
        draw(network, batch, 0)
    handle.remove()
    measured = next(m for m in calibrated(network, batches(), draw).modules() if isinstance(m, BatchNorm))
    mean = torch.stack([x.mean((0, 2, 3)) for x in inputs]).mean(0)
    variance = torch.stack([x.transpose(0, 1).flatten(1).var(1) for x in inputs]).mean(0)
    torch.testing.assert_close(measured.running_mean, mean)
    torch.testing.assert_close(measured.running_var, variance)


def test_weights_and_the_network_itself_stay_as_they_are():
    network = generator()
    before = copy.deepcopy(network.state_dict())
    made = calibrated(network, batches(), draw)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert not made.training
    for (key, value), other in zip(network.named_parameters(), made.parameters(), strict=True):
        assert torch.equal(value, other), key
    changed = [key for key, value in made.state_dict().items() if not torch.equal(value, before[key])]
    assert changed
    assert all("running" in key or "num_batches" in key for key in changed)
    assert all(m.momentum == 0.1 for m in made.modules() if isinstance(m, BatchNorm))


def test_a_training_without_averaged_weights_saves_measured_statistics_too(tmp_path):
    recipe = clade.Recipe.from_dict(
        {
            "data": {"name": "scenes", "size": [64, 64], "options": {"count": 4, "val_count": 1}},
            "generator": {"width": 2},
            "discriminator": {"width": 2, "scales": 1},
            "losses": {"perceptual": 0},
            "training": {"steps": 1, "batch_size": 2, "ema": 0, "calibrate": 2, "accelerator": "cpu"},
        }
    )
    clade.train(recipe, tmp_path, quiet=True)
    saved = clade.read_checkpoint(tmp_path / "last.safetensors").generator.state_dict()
    trained = load_file(tmp_path / "state.safetensors")
    for key, value in saved.items():
        if "running" in key:
            assert not torch.equal(value, trained[f"generator/{key}"]), key
        elif "num_batches" not in key:
            assert torch.equal(value, trained[f"generator/{key}"]), key
    assert {int(value) for key, value in saved.items() if "num_batches" in key} == {2}


def test_a_network_without_batch_norm_is_returned_as_it_is():
    network = generator(normalization="instance")
    assert calibrated(network, batches(), draw) is network
