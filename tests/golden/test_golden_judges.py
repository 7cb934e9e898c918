"""The paper's four judges against recordings of the published networks, with weights regenerated from the key names."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
import torch

from clade.metrics import judges
from clade.metrics.judges.upernet import input_sizes

RECORDINGS = {
    "upernet101": "segmenter_upernet101",
    "deeplabv2": "segmenter_deeplabv2",
    "drn-d105": "segmenter_drn_d105",
    "unet-celebamask": "segmenter_unet_celebamask",
}
# As the recording: the published sizes would take minutes.
SMALL = {"upernet101": {"short_sides": (32, 56)}, "unet-celebamask": {"input_size": 64}}


def regenerated(entry):
    """The test weight of one key, by the rules in the recording's JSON."""
    shape, rule = entry["shape"], entry["rule"]
    if rule == "zero":
        return torch.zeros(shape, dtype=torch.int64)
    seed = zlib.crc32(entry["key"].encode()) & 0xFFFFFFFF
    v = np.random.RandomState(seed).standard_normal(shape).astype(np.float32)
    if rule in ("conv", "conv2"):
        v *= np.float32(np.sqrt((2 if rule == "conv2" else 1) / np.prod(shape[1:])))
    elif rule in ("bias", "running_mean"):
        v *= np.float32(0.1)
    else:
        assert rule in ("bn_weight", "running_var")
        v = np.float32(1) + np.float32(0.1) * (np.abs(v) if rule == "running_var" else v)
    return torch.from_numpy(v)


class Recorded:
    """A judge with the recording's weights, and what was recorded."""

    def __init__(self, name, golden):
        self.name = name
        self.tensors, self.about = golden(RECORDINGS[name])
        # The two files of UPerNet have no prefix.
        self.files: dict[str, dict[str, torch.Tensor]] = {}
        for entry in self.about["keys"]:
            self.files.setdefault(entry.get("file", ""), {})[entry["key"]] = regenerated(entry)
        self.state = {key: value for file in self.files.values() for key, value in file.items()}
        self.judge = judges.create(name, list(self.files.values()), **SMALL.get(name, {}))
        self.features: dict[str, torch.Tensor] = {}
        for key in self.tensors:
            part = key.removeprefix("out/feat/")
            if part != key and part not in ("base_050", "base_075"):
                self.judge.network.get_submodule(part).register_forward_hook(self._keep(part))
        with torch.no_grad():
            self.out = self.judge(self.tensors["in/image"])
        self.forward = dict(self.features)

    def _keep(self, part):
        def hook(_module, _inputs, out):
            self.features.setdefault(part, out)  # DeepLab's first pass is the full-size one

        return hook

    def crc32(self, key):
        return zlib.crc32(self.state[key].numpy().astype("<f4").tobytes())


@pytest.fixture(scope="module", params=RECORDINGS)
def recorded(request, golden):
    return Recorded(request.param, golden)


def assert_near(value, expected, atol=1e-4):
    torch.testing.assert_close(value, expected, atol=atol, rtol=0)


def assert_same_classes(prediction, expected, unclear=0):
    """The recording names how many pixels have two scores closer than 1e-4."""
    assert prediction.dtype == torch.int64
    assert prediction.shape == expected.shape
    assert int((prediction != expected).sum()) <= unclear


def test_the_weights_are_the_recorded_ones(recorded):
    wrong = [e["key"] for e in recorded.about["keys"] if "crc32" in e and recorded.crc32(e["key"]) != e["crc32"]]
    assert not wrong


def test_keys_are_the_published_ones(recorded):
    own = recorded.judge.network.state_dict()
    expected = {}
    for file, state in recorded.files.items():
        expected |= {f"{file}.{key}" if file else key: value for key, value in state.items()}
    assert list(own) == list(expected)
    assert all(torch.equal(own[key], value) for key, value in expected.items())
    parameters = sum(parameter.numel() for parameter in recorded.judge.network.parameters())
    assert parameters == recorded.about["parameters"]["all"]


def test_the_output_is_the_recorded_one(recorded):
    tensors = recorded.tensors
    expected = tensors["out/logits" if recorded.name == "upernet101" else "out/scores"]
    assert_near(recorded.out, expected)
    if recorded.name == "upernet101":
        with torch.no_grad():
            assert_near(recorded.judge(tensors["in/image"], (18, 30)), tensors["out/scores"], atol=1e-6)


def test_features_are_the_recorded_ones(recorded):
    for part, value in recorded.forward.items():
        expected = recorded.tensors[f"out/feat/{part}"]
        assert_near(value[:, : expected.shape[1]], expected)
    assert len(recorded.forward) >= 2


def test_the_classes_of_the_recorded_input_are_the_recorded_ones(recorded):
    expected = recorded.tensors["out/prediction"]
    with torch.no_grad():
        scores = recorded.judge(recorded.tensors["in/image"], (64, 96))
    unclear = next(iter(recorded.about["margin"].values()))["below_1e_4"]
    assert_same_classes(scores.argmax(1), expected, unclear)


def test_a_photo_becomes_the_recorded_input_and_classes(recorded):
    judge, tensors = recorded.judge, recorded.tensors
    photo = tensors["pre/rgb"]
    inputs = judge.preprocess(photo)
    if recorded.name == "upernet101":
        assert len(inputs) == 2
        assert all(torch.equal(x, tensors[f"pre/image_{k}"]) for k, x in enumerate(inputs))
        assert_near(judge.scores(photo).max(1).values, tensors["pre/max_score"], atol=1e-6)
    else:
        assert torch.equal(inputs, tensors["pre/image"])
    expected = tensors["pre/prediction"]
    prediction = judge.predict(photo, tuple(expected.shape[-2:]))
    assert_same_classes(prediction, expected, unclear=3)  # the recording says that a few may differ


def test_names_are_the_published_ones(recorded):
    assert list(recorded.judge.names) == recorded.about["classes"]["names"]
    assert recorded.judge.num_classes == recorded.about["classes"]["count"]


def only(name):
    return pytest.mark.parametrize("recorded", [name], indirect=True)


@only("drn-d105")
def test_drn_gives_logits_before_its_upsampling(recorded):
    with torch.no_grad():
        assert_near(recorded.judge.logits(recorded.tensors["in/image"]), recorded.tensors["out/logits"])


@only("drn-d105")
def test_drn_with_the_published_upsampling_kernel(recorded):
    """w[c, 0, i, j] = t[i] t[j], t[i] = 1 - |i / 8 - 15 / 16|"""
    t = 1 - np.abs(np.arange(16) / 8 - 15 / 16)
    kernel = torch.from_numpy(np.outer(t, t)).float().expand(19, 1, 16, 16)
    judge = judges.create("drn_d105", {**recorded.state, "up.weight": kernel})
    with torch.no_grad():
        prediction = judge(recorded.tensors["in/image"]).argmax(1)
    unclear = recorded.about["margin"]["bilinear"]["below_1e_4"]
    assert_same_classes(prediction, recorded.tensors["out/prediction_bilinear"], unclear)


@only("drn-d105")
def test_label_ids_become_the_published_train_ids(recorded):
    published = recorded.about["classes"]["label_id_to_train_id"]
    ids = recorded.judge.from_ids(torch.arange(35)).tolist()
    assert ids == [published.get(str(label), published["others"]) for label in range(35)]


@only("deeplabv2")
def test_deeplab_takes_the_scale_itself_for_odd_sizes(recorded):
    with torch.no_grad():
        assert_near(recorded.judge(recorded.tensors["in/image_odd"]), recorded.tensors["out/scores_odd"])


@only("deeplabv2")
def test_every_scale_of_deeplab_gives_the_recorded_logits(recorded):
    passes = []
    hook = recorded.judge.network.base.register_forward_hook(lambda _m, _i, out: passes.append(out))
    with torch.no_grad():
        recorded.judge(recorded.tensors["in/image"])
    hook.remove()
    for out, name in zip(passes, ("base", "base_050", "base_075"), strict=True):
        assert_near(out, recorded.tensors[f"out/feat/{name}"])


def test_published_sizes_of_upernet_inputs(golden):
    about = golden(RECORDINGS["upernet101"])[1]["preprocessing"]
    for size in ((256, 256), (256, 512)):
        expected = [tuple(s) for s in about[f"sizes_for_{size[0]}x{size[1]}"]]
        assert input_sizes(size, (300, 375, 450, 525, 600), 1000) == expected
