"""Checkpoint files: whole or not at all, and a clear word about every file that is none."""

from __future__ import annotations

import json
import math
import os
import re

import numpy as np
import pytest
import safetensors.torch
import torch

import clade
from clade import CheckpointError, LabelSpace, create_generator
from clade.io.atomic import atomic_path
from clade.models import checkpoints as checkpoints_module
from clade.models.checkpoints import FORMAT, read_checkpoint, read_header, write_tensors
from clade.training.builders import initialize

SPACE = LabelSpace(names=("sky", "tree", "road"), unknown=255)


@pytest.fixture
def generator():
    torch.manual_seed(0)
    return create_generator("clade", num_classes=3, unknown_class=True, width=1)


@pytest.fixture
def saved(generator, tmp_path):
    path = tmp_path / "best.safetensors"
    clade.save(generator, path, label_space=SPACE, recipe={"seed": 1})
    return path


def refused(path, message):
    """Reading must fail with a CheckpointError that names the file."""
    for read in (read_checkpoint, clade.load):
        with pytest.raises(CheckpointError, match=message) as caught:
            read(path)
        assert str(path) in str(caught.value)


def rewritten(path, header):
    """The same tensors under another header."""
    tensors = safetensors.torch.load_file(path)
    safetensors.torch.save_file(
        tensors, path, metadata={"clade": header if isinstance(header, str) else json.dumps(header)}
    )
    return path


def test_what_was_saved_is_read_back(saved, generator):
    checkpoint = read_checkpoint(saved)
    assert checkpoint.label_space == SPACE
    assert checkpoint.recipe == {"seed": 1}
    assert checkpoint.info == {"version": clade.__version__}
    state = checkpoint.generator.state_dict()
    for key, value in generator.state_dict().items():
        assert torch.equal(state[key], value)


def test_in_16_bits_large_tensors_are_rounded_small_ones_kept_and_all_read_as_float32(tmp_path):
    torch.manual_seed(0)
    generator = create_generator("clade", num_classes=3, width=8)
    clade.save(generator, tmp_path / "half.safetensors", half=True)
    stored = safetensors.torch.load_file(tmp_path / "half.safetensors")
    read = read_checkpoint(tmp_path / "half.safetensors").generator.state_dict()
    large = 0
    for key, value in generator.state_dict().items():
        if value.numel() >= 1 << 14:
            assert stored[key].dtype == torch.float16
            assert torch.equal(read[key], torch.from_numpy(value.numpy().astype(np.float16).astype(np.float32)))
            large += value.numel()
        else:
            assert torch.equal(stored[key], value)
        assert read[key].dtype == value.dtype
    assert large > 0.9 * sum(value.numel() for value in read.values())
    assert read_header(tmp_path / "half.safetensors")["half"] is True
    clade.save(generator, tmp_path / "whole.safetensors")
    assert "half" not in read_header(tmp_path / "whole.safetensors")


@pytest.mark.parametrize("value", [7e4, 1e-7, math.nan, math.inf])
def test_weights_that_16_bits_cannot_hold_are_refused(tmp_path, value):
    generator = create_generator("clade", num_classes=3, width=8)
    key, large = next((key, p) for key, p in generator.named_parameters() if p.numel() >= 1 << 14)
    with torch.no_grad():
        large.fill_(1e-7 * 1.1 if value == 1e-7 else 1.0)
        large.view(-1)[0] = value
    said = "up to" if math.isfinite(value) else "that are no finite numbers, in whatever precision"
    with pytest.raises(CheckpointError, match=re.escape(f"'{key}' has values {said}")):
        clade.save(generator, tmp_path / "half.safetensors", half=True)
    assert not (tmp_path / "half.safetensors").exists()


def test_kernels_of_zeros_fit_into_16_bits(tmp_path):
    generator = create_generator("clade", num_classes=3, width=8)
    torch.nn.init.zeros_(next(p for p in generator.parameters() if p.numel() >= 1 << 14))
    clade.save(generator, tmp_path / "half.safetensors", half=True)


def test_a_training_begins_with_weights_in_16_bits(tmp_path):
    torch.manual_seed(0)
    theirs, ours = (create_generator("clade", num_classes=3, unknown_class=True, width=8) for _ in range(2))
    clade.save(theirs, tmp_path / "half.safetensors", label_space=SPACE, half=True)
    initialize(ours, str(tmp_path / "half.safetensors"), SPACE)
    state = ours.state_dict()
    for key, value in theirs.state_dict().items():
        assert state[key].dtype == value.dtype
        assert torch.allclose(state[key], value, rtol=1e-3, atol=1e-7)


def test_any_safetensors_reader_can_open_it(saved, generator):
    assert safetensors.torch.load_file(saved).keys() == generator.state_dict().keys()


def test_a_generator_without_label_space_and_recipe_can_be_saved(generator, tmp_path):
    clade.save(generator, tmp_path / "bare.safetensors")
    checkpoint = read_checkpoint(tmp_path / "bare.safetensors")
    assert checkpoint.label_space is None
    assert checkpoint.recipe is None


def test_saving_leaves_the_generator_as_it_is(generator, tmp_path):
    generator.train()
    before = {key: value.clone() for key, value in generator.state_dict().items()}
    clade.save(generator, tmp_path / "g.safetensors")
    assert generator.training
    for key, value in generator.state_dict().items():
        assert torch.equal(value, before[key])


def test_tuples_among_the_options_come_back_as_tuples(tmp_path):
    generator = create_generator("clade", num_classes=3, width=1, z_dim=4, size=(32, 64))
    clade.save(generator, tmp_path / "g.safetensors")
    assert read_checkpoint(tmp_path / "g.safetensors").generator.options["size"] == (32, 64)


def test_a_trainings_folder_is_its_last_generator(generator, tmp_path):
    clade.save(generator, tmp_path / "last.safetensors")
    clade.save(create_generator("clade", num_classes=3, width=1), tmp_path / "best.safetensors")
    own = read_checkpoint(tmp_path).generator.state_dict()
    assert all(torch.equal(value, own[key]) for key, value in generator.state_dict().items())
    assert clade.load(tmp_path, device="cpu").generator.num_rows == generator.num_rows


def test_a_missing_file_is_named(tmp_path):
    refused(tmp_path / "none.safetensors", "no such file")
    refused(tmp_path, "is a folder, and no last.safetensors, a training's generator, is in it")


@pytest.mark.parametrize("suffix", ["pth", "pt", "ckpt"])
def test_a_pickle_is_never_opened(tmp_path, suffix):
    path = tmp_path / f"net_G.{suffix}"

    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "opened"),)

    torch.save({"bomb": Bomb()}, path)
    refused(path, r"pickled file.*import_official.*weights_only=True")
    path.rename(tmp_path / "net_G.safetensors")
    refused(tmp_path / "net_G.safetensors", "not a safetensors file, or damaged")
    assert not (tmp_path / "opened").exists()


@pytest.mark.parametrize("keep", [0, 4, 100, 0.5, 0.999])
def test_a_truncated_file_is_refused(saved, keep):
    content = saved.read_bytes()
    saved.write_bytes(content[: keep if isinstance(keep, int) else int(len(content) * keep)])
    refused(saved, "not a safetensors file, or damaged")


def test_a_file_with_a_damaged_header_is_refused(saved):
    content = bytearray(saved.read_bytes())
    content[20:40] = b"\xff" * 20
    saved.write_bytes(bytes(content))
    refused(saved, "not a safetensors file, or damaged")


def test_safetensors_of_somebody_else_are_refused_with_a_way_in(tmp_path):
    path = tmp_path / "foreign.safetensors"
    safetensors.torch.save_file({"fc.weight": torch.zeros(2, 2)}, path)
    refused(path, "says nothing of how to build the network.*import_official")
    safetensors.torch.save_file({"fc.weight": torch.zeros(2, 2)}, path, metadata={"format": "pt"})
    refused(path, "says nothing of how to build the network")


@pytest.mark.parametrize("version", [FORMAT + 1, None, "1"])
def test_another_format_is_refused(saved, version):
    header = {**read_header(saved), "format": version}
    refused(rewritten(saved, header), f"checkpoint format {version}, this version .* reads {FORMAT}")


@pytest.mark.parametrize("header", ["{", "[]", "7", "null", '"clade"'])
def test_a_header_that_is_no_mapping_is_refused(saved, header):
    refused(rewritten(saved, header), "damaged")


@pytest.mark.parametrize(
    "change",
    [
        {"generator": None},
        {"generator": {"name": "clade"}},
        {"generator": {"options": {"num_classes": 3}}},
        {"generator": {"name": "clade", "options": []}},
        {"generator": {"name": "clade", "options": {"num_classes": "many"}}},
        {"label_space": 5},
        {"label_space": {"names": []}},
        {"info": None},
    ],
    ids=str,
)
def test_a_header_with_a_damaged_part_is_refused(saved, change):
    refused(rewritten(saved, {**read_header(saved), **change}), "damaged|do not fit")


@pytest.mark.parametrize("part", ["label_space", "recipe", "info", "version"])
def test_a_header_that_lacks_a_part_is_refused(saved, part):
    header = read_header(saved)
    del header[part]
    refused(rewritten(saved, header), f"damaged.*'{part}'")


def test_a_generator_that_this_version_does_not_know_is_named(saved):
    header = read_header(saved)
    header["generator"]["name"] = "clad"
    refused(rewritten(saved, header), "no generator called 'clad'.*Did you mean 'clade'")


def test_weights_that_do_not_fit_the_network_in_the_header_are_refused(saved):
    header = read_header(saved)
    header["generator"]["options"]["width"] = 2
    refused(rewritten(saved, header), "weights do not fit the network")


def test_missing_weights_are_refused_and_not_left_at_random(saved):
    tensors, header = safetensors.torch.load_file(saved), read_header(saved)
    del tensors["to_image.bias"]
    write_tensors(saved, tensors, header)
    refused(saved, r"(?s)weights do not fit.*to_image\.bias")


def test_a_training_state_is_refused_with_a_hint(tmp_path):
    path = tmp_path / "state.safetensors"
    write_tensors(path, {"x": torch.zeros(1)}, {"format": FORMAT, "version": clade.__version__, "step": 3})
    refused(path, r"training state, not a generator.*best\.safetensors")


def test_a_label_space_of_another_number_of_classes_is_refused_before_anything_is_written(generator, tmp_path):
    with pytest.raises(CheckpointError, match="label space has 3 ids, the generator 4"):
        clade.save(generator, tmp_path / "g.safetensors", label_space=LabelSpace.numbered(3))
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file_and_nothing_else(saved, generator, monkeypatch):
    def save_file(tensors, path, metadata=None):
        with open(path, "wb") as file:
            file.write(b"half of it")
        raise OSError("no space left on device")

    monkeypatch.setattr(checkpoints_module.safetensors.torch, "save_file", save_file)
    before = saved.read_bytes()
    with pytest.raises(OSError, match="no space"):
        clade.save(generator, saved)
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


def test_a_replaced_file_is_whole_at_every_moment(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with atomic_path(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_folders_on_the_way_are_made(generator, tmp_path):
    path = tmp_path / "runs" / "one" / "g.safetensors"
    clade.save(generator, path)
    assert path.is_file()


def test_the_header_is_read_without_the_weights(saved):
    header = read_header(saved)
    assert header["generator"] == {
        "name": "clade",
        "options": {"num_classes": 3, "unknown_class": True, "width": 1},
    }
    assert header["format"] == FORMAT


@pytest.mark.parametrize("name", ["g.pth", "g.ckpt", "."])
def test_a_name_that_could_not_be_loaded_again_is_refused(tmp_path, name):
    generator = create_generator("clade", num_classes=2, width=2)
    with pytest.raises(CheckpointError, match=r"\.safetensors"):
        clade.save(generator, tmp_path / name)
    assert not list(tmp_path.iterdir())
