"""The paper's judges: published file layouts, refusals, images and label maps."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

import clade
from clade.io.images import to_uint8
from clade.metrics import judges
from clade.metrics.judges.deeplab import MultiScale
from clade.metrics.judges.drn import DRNSeg
from clade.metrics.judges.pixels import as_pixels
from clade.metrics.judges.unet import UNet
from clade.metrics.judges.upernet import UPerNet, input_sizes

NETWORKS = {"upernet101": UPerNet, "deeplabv2": MultiScale, "drn-d105": DRNSeg, "unet-celebamask": UNet}
DOCS = Path(__file__).parents[2] / "docs/judges.md"


def zeros(network) -> dict[str, torch.Tensor]:
    """A state dict of the right keys and shapes that takes no memory."""
    with torch.device("meta"):
        state = network().state_dict()
    return {key: torch.zeros((), dtype=value.dtype).expand(value.shape) for key, value in state.items()}


@pytest.fixture(scope="module")
def unet_state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    network = UNet()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return network.state_dict()


@pytest.fixture
def unet(unet_state):
    return judges.create("unet-celebamask", unet_state, input_size=64)


def images(count=2, height=64, width=64):
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(3)) * 2 - 1


class Seen(nn.Module):
    """In place of a network: what ``compute`` makes of its input."""

    def __init__(self, compute):
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(1))
        self.compute = compute

    def forward(self, x):
        return self.compute(x)


# --- Names and weights ------------------------------------------------------------------------------------------------


def test_every_judge_has_its_names_and_accepts_underscores():
    assert judges.names() == list(NETWORKS)
    counts = {}
    for name in judges.names():
        judge = judges.create(name.replace("-", "_"), zeros(NETWORKS[name]))
        counts[name] = judge.num_classes
        assert judge.name == name
        assert not any(parameter.requires_grad for parameter in judge.parameters())
    assert counts == {"upernet101": 150, "deeplabv2": 182, "drn-d105": 19, "unet-celebamask": 19}


def test_an_unknown_name_is_answered_with_a_near_one():
    with pytest.raises(clade.CladeError, match=r"no judge called 'upernet50'\. Did you mean 'upernet101'"):
        judges.create("upernet50", {})


def unprefixed(state, part):
    return {key.removeprefix(part): value for key, value in state.items() if key.startswith(part)}


def marked(state, key):
    return {**state, key: torch.full(state[key].shape, 0.5)}


def test_upernet_comes_from_two_files_with_the_buffers_of_synchronised_training():
    state = marked(marked(zeros(UPerNet), "encoder.conv1.weight"), "decoder.fpn_out.2.0.0.weight")
    encoder, decoder = unprefixed(state, "encoder."), unprefixed(state, "decoder.")
    for ending in ("_tmp_running_mean", "_tmp_running_var", "_running_iter"):
        encoder[f"layer1.0.bn1.{ending}"] = torch.zeros(64)
        decoder[f"conv_last.0.1.{ending}"] = torch.zeros(512)
    layouts = [
        state,
        [decoder, encoder],
        {"encoder": encoder, "decoder": decoder},
        {**encoder, **decoder},
        {"epoch": 50, "state_dict": {f"module.{key}": value for key, value in state.items()}},
    ]
    for layout in layouts:
        own = judges.create("upernet101", layout).network.state_dict()
        assert own.keys() == state.keys()
        for key in ("encoder.conv1.weight", "decoder.fpn_out.2.0.0.weight"):
            assert torch.equal(own[key], state[key])
    with pytest.raises(
        clade.CheckpointError, match=r"missing: decoder\.ppm_conv\.0\.0\.weight; .*decoder_epoch_50\.pth"
    ):
        judges.create("upernet101", encoder)
    with pytest.raises(clade.CheckpointError, match="is in two of the state dicts"):
        judges.create("upernet101", [encoder, encoder])


def test_deeplab_comes_with_its_older_names():
    keys = ("base.layer2.block1.shortcut.conv.weight", "base.aspp.c3.bias")
    state = zeros(MultiScale)
    for key in keys:
        state = marked(state, key)
    older = {
        "scale." + key.removeprefix("base.").replace(".shortcut.", ".proj.").replace("aspp.", "aspp.stages."): value
        for key, value in state.items()
    }
    assert "scale.aspp.stages.c3.bias" in older
    assert "scale.layer2.block1.proj.conv.weight" in older
    own = judges.create("deeplabv2", older).network.state_dict()
    assert own.keys() == state.keys()
    assert all(torch.equal(own[key], state[key]) for key in keys)


def test_drn_needs_its_upsampling_weight_but_not_the_counters_that_old_files_lack():
    state = {key: value for key, value in zeros(DRNSeg).items() if not key.endswith("num_batches_tracked")}
    trained = {"epoch": 1, "arch": "drn_d_105", "state_dict": {f"module.{k}": v for k, v in state.items()}, "best": 0.7}
    for layout in (state, trained):
        assert judges.create("drn-d105", layout).network.state_dict().keys() == zeros(DRNSeg).keys()
    with pytest.raises(clade.CheckpointError, match=r"1 keys missing: up\.weight\."):
        judges.create("drn-d105", {key: value for key, value in state.items() if key != "up.weight"})


def test_the_first_published_unet_has_no_norm_on_the_way_up(unet_state):
    """The same network as one whose norms there do nothing."""
    up = re.compile(r"up_concat\d\.conv\.conv\d\.1\.(.*)")
    neutral = {"weight": 1.0, "bias": 0.0, "running_mean": 0.0, "running_var": 1 - 1e-5}
    without = {key: value for key, value in unet_state.items() if not up.match(key)}
    assert len(without) < len(unet_state)
    silenced = {
        key: torch.full_like(value, neutral[found[1]]) if (found := up.match(key)) and found[1] in neutral else value
        for key, value in unet_state.items()
    }
    old, new = (judges.create("unet-celebamask", state) for state in (without, silenced))
    assert old.network.state_dict().keys() == without.keys()
    torch.testing.assert_close(old(images()), new(images()))


def test_what_does_not_fit_is_named(unet_state):
    other = {**unet_state, "extra.weight": torch.zeros(1), "final.bias": torch.zeros(20)}
    del other["conv2.conv1.0.weight"]
    with pytest.raises(clade.CheckpointError) as caught:
        judges.create("unet-celebamask", other)
    message = str(caught.value)
    assert "1 keys missing: conv2.conv1.0.weight" in message
    assert "1 keys without a place: extra.weight" in message
    assert "final.bias is (20,), expected (19,)" in message
    with pytest.raises(clade.CheckpointError, match="It looks like one of 'unet-celebamask'"):
        judges.create("deeplabv2", unet_state)
    with pytest.raises(clade.CheckpointError, match="int under 'epoch'"):
        judges.create("unet-celebamask", {**unet_state, "epoch": 3})
    with pytest.raises(clade.CheckpointError, match="state_dict is str"):
        judges.create("unet-celebamask", "model.pth")  # pyright: ignore[reportArgumentType]


def test_weights_are_copied(unet_state):
    mine = {key: value.clone() for key, value in unet_state.items()}
    judge = judges.create("unet-celebamask", mine)
    before = judge(images())
    mine["final.weight"].zero_()
    assert torch.equal(judge(images()), before)


# --- Files ------------------------------------------------------------------------------------------------------------


def test_files_are_read_in_either_format(tmp_path, unet, unet_state):
    torch.save(unet_state, tmp_path / "model.pth")
    torch.save(unet_state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    save_file(unet_state, tmp_path / "model.safetensors")
    for path in (*tmp_path.iterdir(), tmp_path):  # a folder holds the published name
        assert torch.equal(judges.load("unet-celebamask", path)(images()), unet(images()))


def test_several_files_make_one_network(tmp_path):
    state = {key: value.to(torch.float16).contiguous() for key, value in zeros(UPerNet).items()}
    paths = []
    for part in ("encoder", "decoder"):
        paths.append(tmp_path / f"{part}_epoch_50.safetensors")
        save_file(unprefixed(state, f"{part}."), paths[-1])
    assert judges.load("upernet101", paths).network.state_dict().keys() == state.keys()


def test_missing_weights_say_which_file_to_put_where(tmp_path, monkeypatch, unet_state):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    place = tmp_path / "checkpoints/judges/unet-celebamask/model.pth"
    with pytest.raises(clade.CheckpointError, match=re.escape(str(place))):
        judges.create("unet-celebamask")
    place.parent.mkdir(parents=True)
    torch.save(unet_state, place)
    assert judges.create("unet-celebamask").num_classes == 19
    with pytest.raises(clade.CheckpointError, match=r"encoder_epoch_50\.pth and decoder_epoch_50\.pth from http"):
        judges.load("upernet101")
    with pytest.raises(clade.CheckpointError, match=r"nowhere\.pth: no such file.*model\.pth"):
        judges.load("unet-celebamask", tmp_path / "nowhere.pth")


class Trap:
    def __reduce__(self):
        return (pytest.fail, ("a stranger's pickle was run",))


def test_nothing_is_unpickled(tmp_path):
    path = tmp_path / "model.pth"
    path.write_bytes(pickle.dumps({"final.weight": Trap()}, protocol=2))
    with pytest.raises(clade.CheckpointError, match="cannot be read as plain tensors"):
        judges.load("unet-celebamask", path)


# --- Inputs -----------------------------------------------------------------------------------------------------------


def test_images_are_quantised_as_in_a_file():
    x = images(2, 5, 7)
    pixels = as_pixels(x)
    assert np.array_equal(pixels.movedim(1, 3).numpy(), to_uint8(x))
    for same in (pixels, to_uint8(x), pixels.movedim(1, 3), x.double()):
        assert torch.equal(as_pixels(same), pixels)
    assert torch.equal(as_pixels(to_uint8(x)[0]), pixels[:1])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (torch.zeros(1, 4, 8, 8), r"shape \(1, 4, 8, 8\)"),
        (torch.zeros(8, 8), r"shape \(8, 8\)"),
        (torch.zeros(0, 3, 8, 8), r"shape \(0, 3, 8, 8\)"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.int64), "int64"),
        (torch.full((1, 3, 8, 8), 255.0), "go from 255 to 255"),
        (torch.full((1, 3, 8, 8), float("nan")), "nan"),
    ],
)
def test_images_that_are_none_are_refused(wrong, message):
    with pytest.raises(clade.CladeError, match=message):
        as_pixels(wrong)


def test_sizes_that_a_network_cannot_take_are_refused(unet):
    with pytest.raises(clade.CladeError, match=r"72 x 60.*multiples of 16, such as 80 x 64"):
        unet(torch.zeros(1, 3, 72, 60))
    with pytest.raises(clade.CladeError, match="needed are floats"):
        unet(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))
    with pytest.raises(clade.CladeError, match="sides of 2 or more"):
        judges.create("deeplabv2", zeros(MultiScale))(torch.zeros(1, 3, 1, 64))
    with pytest.raises(clade.CladeError, match="multiple of 16"):
        judges.create("unet-celebamask", zeros(UNet), input_size=500)
    with pytest.raises(clade.CladeError, match="short_sides"):
        judges.create("upernet101", zeros(UPerNet), short_sides=())


@pytest.mark.parametrize(
    ("name", "own", "logits"),
    [
        ("upernet101", (9, 12), (9, 12)),  # stem and pooling each round up
        ("deeplabv2", (5, 7), (5, 7)),
        ("drn-d105", (40, 48), (5, 6)),
    ],
)
def test_odd_sizes(name, own, logits):
    options = {"short_sides": (32,)} if name == "upernet101" else {}
    judge = judges.create(name, zeros(NETWORKS[name]), **options)
    x = torch.zeros(1, 3, 35, 47)
    with torch.no_grad():
        assert judge(x).shape == (1, judge.num_classes, *own)
        assert judge.logits(x).shape == (1, judge.num_classes, *logits)
        assert judge(x, (35, 47)).shape == (1, judge.num_classes, 35, 47)
    assert judge.predict(images(2, 35, 47)).shape == (2, 35, 47)


def test_upernet_input_sizes():
    assert input_sizes((256, 256), (256,), 1000) == [(256, 256)]
    assert input_sizes((100, 400), (300,), 1000) == [(256, 1024)]  # max_side allows 250 x 1000


# --- Predictions ------------------------------------------------------------------------------------------------------


def test_a_batch_gives_what_its_images_give_alone(unet):
    both = images(3, 40, 50)
    alone = torch.cat([unet.predict(image[None]) for image in both])
    assert torch.equal(unet.predict(both), alone)
    assert unet.predict(both).shape == (3, 40, 50)


def brightest(x):
    """Class = channel of the largest value."""
    return torch.cat([x, torch.full_like(x[:, :1], -100).expand(-1, 16, -1, -1)], 1)


def test_unet_resizes_there_and_back_by_pillow_s_nearest(unet):
    unet.network = Seen(brightest)
    x = images(1, 37, 90)
    picture = Image.fromarray(to_uint8(x)[0]).resize((64, 64), Image.Resampling.NEAREST)
    answer = Image.fromarray(np.asarray(picture).argmax(2).astype(np.uint8))
    expected = np.asarray(answer.resize((90, 37), Image.Resampling.NEAREST))
    assert np.array_equal(unet.predict(x)[0].numpy(), expected)
    assert np.array_equal(unet.predict(x, (64, 64))[0].numpy(), np.asarray(answer))


def test_upernet_averages_probabilities_not_logits():
    judge = judges.create("upernet101", zeros(UPerNet), short_sides=(32, 64))
    # At 32 pixels class 0 wins by far; at 64 class 1 wins by a lot of logit, and class 2 is a close second in both.
    logits = {32: torch.tensor([3.0, 0.0, 2.5]), 64: torch.tensor([-30.0, 3.0, 2.5])}
    judge.network = Seen(lambda x: logits[x.shape[-1]].view(1, 3, 1, 1).expand(len(x), 3, 8, 8))
    expected = sum(np.exp(v.numpy()) / np.exp(v.numpy()).sum() for v in logits.values()) / 2
    scores = judge.scores(images(2, 32, 32), (20, 24))
    assert scores.shape == (2, 3, 20, 24)
    np.testing.assert_allclose(scores[1, :, 7, 5].numpy(), expected, rtol=1e-5)
    assert expected.argmax() == 2
    assert (judge.predict(images(2, 32, 32)) == 2).all()
    judge.short_sides = (64,)
    assert (judge.predict(images(2, 32, 32)) == 1).all()


def test_deeplab_sees_blue_first_in_0_to_255():
    judge = judges.create("deeplabv2", zeros(MultiScale))
    photo = np.zeros((1, 4, 4, 3), np.uint8)
    photo[..., 0], photo[..., 2] = 200, 50
    expected = torch.tensor([50 - 104.008, 0 - 116.669, 200 - 122.675])
    torch.testing.assert_close(judge.preprocess(photo)[0, :, 1, 2], expected)


def test_drn_scores_are_cropped_then_resized():
    judge = judges.create("drn-d105", zeros(DRNSeg))
    padded = torch.full((1, 2, 24, 24), 9.0)
    padded[..., :17, :20] = torch.randn(1, 2, 17, 20, generator=torch.Generator().manual_seed(0))
    judge.network = Seen(lambda x: (padded, None))
    x = torch.zeros(1, 3, 17, 20)
    assert torch.equal(judge(x), padded)
    assert torch.equal(judge(x, (17, 20)), padded[..., :17, :20])
    for size in ((40, 41), (9, 7)):
        pillow = Image.fromarray(padded[0, 1, :17, :20].numpy()).resize(size[::-1], Image.Resampling.BILINEAR)
        np.testing.assert_allclose(judge(x, size)[0, 1].numpy(), np.asarray(pillow), atol=1e-5)


def test_a_judge_never_trains(unet):
    before = unet(images())
    nn.Sequential(unet).train()
    assert not any(module.training for module in unet.modules())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(unet(images()), before)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_what_the_cpu_gives(unet):
    x = images()
    expected = unet(x)
    out = unet.to("cuda")(x.cuda())
    torch.testing.assert_close(out.cpu(), expected, atol=1e-4, rtol=0)
    assert unet.predict(x).device.type == "cuda"


# --- Labels and identity ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "count"), [("upernet101", 150), ("deeplabv2", 182), ("unet-celebamask", 19)])
def test_ids_stay_and_unknown_ones_are_ignored(name, count):
    judge = judges.create(name, zeros(NETWORKS[name]))
    ids = np.array([[0, 7, count - 1], [count, 255, 1]], dtype=np.uint8)
    assert judge.from_ids(ids).tolist() == [[0, 7, count - 1], [255, 255, 1]]
    assert judge.from_ids(ids, count).dtype == torch.int64
    for wrong in (count + 1, -1, 1000):
        with pytest.raises(clade.LabelError, match=f"1 pixels have ids .*such as {wrong}"):
            judge.from_ids(torch.tensor([0, wrong]))
    with pytest.raises(clade.LabelError, match=f"have 11 classes; .* judges {count}"):
        judge.from_ids(ids, 11)
    with pytest.raises(clade.LabelError, match="float32"):
        judge.from_ids(torch.zeros(2))


def test_cityscapes_label_ids_become_train_ids():
    judge = judges.create("drn-d105", zeros(DRNSeg))
    ids = torch.tensor([[0, 7, 8, 9, 26, 33, 34, 35, 255]])
    assert judge.from_ids(ids).tolist() == [[255, 0, 1, 255, 13, 18, 255, 255, 255]]
    assert judge.from_ids(ids.clamp(max=18), 19).tolist() == [[0, 7, 8, 9, 18, 18, 18, 18, 18]]
    with pytest.raises(clade.LabelError, match="judges 19 or 35"):
        judge.from_ids(ids, 34)


def test_the_key_follows_weights_and_options(unet, unet_state):
    same = judges.create("unet-celebamask", unet_state, input_size=64)
    assert same.key == unet.key
    other = {**unet_state, "final.bias": unet_state["final.bias"] + 1}
    keys = {unet.key, judges.create("unet-celebamask", unet_state).key, judges.create("unet-celebamask", other).key}
    assert len(keys) == 3
    assert all(key.startswith("unet-celebamask-") for key in keys)


# --- Page -------------------------------------------------------------------------------------------------------------


def test_python_of_the_page_does_what_it_says(tmp_path, monkeypatch, unet_state):
    monkeypatch.chdir(tmp_path)
    torch.save(unet_state, "model.pth")
    names = {"images": images(2, 32, 32), "ids": torch.zeros(2, 32, 32, dtype=torch.int64)}
    blocks = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    assert blocks
    for block in blocks:
        exec(block, names)
    assert names["prediction"].shape == names["truth"].shape == (2, 32, 32)
