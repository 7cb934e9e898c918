"""SEAN against recordings of the published network, noise included, and at full size against the paper's numbers."""

from __future__ import annotations

import pytest
import torch

import clade
from clade import LabelMap
from clade.models.published import export_official

BLOCKS = ("head_0", "G_middle_0", "G_middle_1", "up_0", "up_1", "up_2", "up_3")
PLACES = {"ace_s": "norm_shortcut", "ace_0": "norm1", "ace_1": "norm2"}  # in the order in which they draw their noise
OPTIONS = {"num_classes": 5, "width": 3, "hidden": 8, "style_dim": 10, "style_layers": 19, "encoder_width": 8}


def part(tensors, prefix):
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def imported(tensors, **options):
    return clade.import_official("sean", part(tensors, "state/"), **options)


def recorded_noise(tensors, monkeypatch):
    """Let torch.randn give the recorded draws in published order, as long as they are asked for in their shapes."""
    draws = [tensors[key] for b in BLOCKS for place in PLACES if (key := f"in/noise/{b}.{place}") in tensors]
    assert len(draws) == len(part(tensors, "in/noise/"))

    def next_draw(*shape, device=None):
        draw = draws.pop(0)
        assert tuple(draw.shape) == shape
        return draw.clone()

    monkeypatch.setattr(torch, "randn", next_draw)
    return draws


def assert_near(value, expected):
    torch.testing.assert_close(value, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("options", [{}, OPTIONS], ids=["read from shapes", "given"])
def test_image_features_and_style_codes_are_the_recorded_ones(golden, monkeypatch, options):
    tensors, _ = golden("sean")
    generator = imported(tensors, **options)
    assert OPTIONS.items() <= generator.options.items()
    outputs = {}
    for name, module in generator.named_modules():
        module.register_forward_hook(lambda _m, _i, out, name=name: outputs.__setitem__(name, out))
    left = recorded_noise(tensors, monkeypatch)
    label_map = LabelMap(tensors["in/label"])
    with torch.no_grad():
        assert_near(generator.encode(tensors["in/rgb"], label_map)[0], tensors["out/style_codes"])
        image = generator(label_map, style=tensors["in/rgb"])
    assert left == []
    assert_near(image, tensors["out/image"])
    recorded = part(tensors, "out/feat/")
    assert recorded
    for key, expected in recorded.items():
        block, _, place = key.partition(".")
        ours = f"blocks.{BLOCKS.index(block)}" + (f".{PLACES[place]}" if place else "")
        assert_near(outputs[ours], expected)


def test_the_recorded_noise_is_seen(golden, monkeypatch):
    tensors, _ = golden("sean")
    generator = imported(tensors)
    with torch.no_grad():
        other = generator(LabelMap(tensors["in/label"]), style=tensors["in/rgb"])
    assert (other - tensors["out/image"]).abs().max() > 1e-3


def test_export_gives_back_every_published_tensor_bit_for_bit(golden):
    tensors, about = golden("sean")
    state = part(tensors, "state/")
    generator = imported(tensors)
    assert sum(p.numel() for p in generator.parameters()) == about["n_params"]
    exported = export_official(generator)
    assert exported.keys() == state.keys()
    for key, value in state.items():
        assert torch.equal(exported[key], value), key


def test_an_imported_generator_survives_a_checkpoint(golden, tmp_path):
    tensors, _ = golden("sean")
    generator = imported(tensors)
    clade.save(generator, tmp_path / "published.safetensors")
    again = clade.read_checkpoint(tmp_path / "published.safetensors").generator
    images = []
    for network in (generator, again):
        torch.manual_seed(0)
        with torch.no_grad():
            images.append(network(LabelMap(tensors["in/label"]), style=tensors["in/rgb"]))
    assert torch.equal(*images)


def test_every_full_size_key_has_its_place_and_parameters_are_those_of_the_paper(golden):
    entry = golden("state_keys")[1]["G/sean/celeba"]
    state = {key: torch.empty(shape, device="meta") for key, shape in entry["keys"].items()}
    with torch.device("meta"):
        generator = clade.import_official("sean", state)
    assert export_official(generator).keys() == state.keys()
    count = sum(p.numel() for p in generator.parameters())
    assert count == entry["n_params"]
    assert round(count / 1e6, 1) == 266.9


@pytest.mark.parametrize(
    ("dropped", "message"),
    [
        ("Zencoder.model.1.bias", "the key 'Zencoder.model.1.bias' is missing"),
        ("up_3.ace_s.noise_var", r"1 missing keys: up_3\.ace_s\.noise_var"),
        ("up_2.ace_1.fc_mu18.weight", r"1 other shapes: up_2\.ace_1\.fc_mu0\.weight is \(18, 10, 10\)"),
    ],
)
def test_a_missing_key_is_named(golden, dropped, message):
    state = part(golden("sean")[0], "state/")
    del state[dropped]
    with pytest.raises(clade.CheckpointError, match=message):
        clade.import_official("sean", state)


def test_weights_of_sean_are_recognised_under_another_name(golden):
    with pytest.raises(clade.CheckpointError, match="It looks like one of 'sean'"):
        clade.import_official("spade", part(golden("sean")[0], "state/"))
