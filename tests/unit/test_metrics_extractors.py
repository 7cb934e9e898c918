"""Extractors and LPIPS: against torch-fidelity and torchmetrics, weights and their errors, what must hold of scores."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from safetensors.torch import load_file, save_file
from torch_fidelity import calculate_metrics

from clade.data import ScenesDataset
from clade.data.scenes import draw_scene
from clade.errors import CheckpointError, CladeError, DataError
from clade.io.images import to_uint8
from clade.metrics import (
    LPIPS,
    Diversity,
    Extractor,
    FrechetDistance,
    KernelDistance,
    Manifold,
    Statistics,
    create_extractor,
    frechet_distance,
)
from clade.metrics.judges.trained import Architecture, TrainedJudge

DOCS = Path(__file__).parents[2] / "docs/metrics.md"


def scenes(count: int, start: int = 0, size: int = 64) -> torch.Tensor:
    drawn = [draw_scene(start + k, height=size, width=size + 16).image for k in range(count)]
    return torch.from_numpy(np.stack(drawn)).movedim(3, 1)


@pytest.fixture(scope="module")
def inception() -> Extractor:
    return create_extractor("inception", "random")


# --- Inception --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def weights(inception: Extractor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    torch.save(inception.network.state_dict(), path)
    return path


@pytest.mark.slow
def test_scores_of_two_folders_are_those_of_torch_fidelity(inception: Extractor, weights: Path, tmp_path: Path) -> None:
    """Generated floats on our side, the PNG files that they make on the other."""
    floats = {"fake": torch.rand(9, 3, 40, 48, generator=torch.Generator().manual_seed(0)) * 2 - 1, "real": None}
    floats["fake"] = floats["fake"] * 0.3 + scenes(9, 50, 40)[..., :48] / 127.5 * 0.7 - 0.7
    floats["real"] = scenes(8) / 127.5 - 1
    for name, images in floats.items():
        (tmp_path / name).mkdir()
        for k, pixels in enumerate(to_uint8(images)):
            Image.fromarray(pixels).save(tmp_path / name / f"{k:03}.png")
    theirs = calculate_metrics(
        input1=str(tmp_path / "fake"),
        input2=str(tmp_path / "real"),
        feature_extractor="inception-v3-compat",
        feature_extractor_weights_path=str(weights),
        fid=True,
        kid=True,
        prc=True,
        kid_subsets=4,
        kid_subset_size=6,
        cuda=False,
        cache=False,
        save_cpu_ram=True,
        batch_size=5,
        verbose=False,
    )
    ours = create_extractor("inception", weights)
    assert ours.dim == 2048
    assert ours.key.removeprefix("inception-") == inception.key.removeprefix("inception-random-")
    scores = [FrechetDistance(2048), KernelDistance(2048, subsets=4, subset_size=6), Manifold(2048)]
    for name, images in floats.items():
        for batch in images.split(3):
            seen = ours(batch)
            assert seen.dtype == torch.float32
            for score in scores:
                score.update(seen, real=name == "real")
    found = {key: float(value) for score in scores for key, value in score.compute().items()}
    assert theirs["frechet_inception_distance"] > 0.1
    assert found["frechet"] == pytest.approx(theirs["frechet_inception_distance"], abs=1e-3)
    assert found["kernel_mean"] == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-4)
    assert found["kernel_std"] == pytest.approx(theirs["kernel_inception_distance_std"], rel=1e-3)
    assert found["precision"] == pytest.approx(theirs["precision"])
    assert found["recall"] == pytest.approx(theirs["recall"])


def test_pictures_have_no_distance_to_themselves_and_noise_makes_it_grow() -> None:
    extractor = create_extractor("timm:resnet10t", "random")
    photos = scenes(8) / 127.5 - 1
    noise = torch.randn(photos.shape, generator=torch.Generator().manual_seed(1))
    seen = Statistics.of(extractor(photos))
    noisy = [Statistics.of(extractor((photos + noise * level).clamp(-1, 1))) for level in (0, 0.1, 0.3, 0.9)]
    distances = [frechet_distance(each, seen) for each in noisy]
    assert abs(distances[0]) < 1e-6
    assert distances == sorted(distances)
    assert distances[1] > 1e-3


def test_an_extractor_leaves_random_numbers_alone_and_stays_in_eval_mode() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    extractor = create_extractor("inception", "random")
    assert torch.equal(torch.rand(2), expected)
    assert not extractor.train().training
    assert not any(module.training for module in extractor.modules())
    assert not any(parameter.requires_grad for parameter in extractor.parameters())


def test_missing_weights_are_an_error_that_says_where_they_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub._hub_dir", None)
    place = tmp_path / "hub/checkpoints/weights-inception-2015-12-05-6726825d.pth"
    with pytest.raises(CheckpointError, match="nothing is downloaded unasked") as caught:
        create_extractor("inception")
    assert f"curl -L --create-dirs -o {place} https://github.com/toshas/torch-fidelity/" in str(caught.value)
    with pytest.raises(CheckpointError, match=r"alexnet-owt-7be5be79\.pth"):
        LPIPS("alex")
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_, **__: None)
    with pytest.raises(CheckpointError, match=r"hf download timm/vit_small_patch14_dinov2\.lvd142m model\.safetensors"):
        create_extractor("dinov2")


def test_inception_is_found_in_the_hub_cache(
    inception: Extractor, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.hub._hub_dir", str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/weights-inception-2015-12-05-6726825d.pth").symlink_to(weights)
    assert torch.equal(create_extractor("inception").network.fc.weight, inception.network.fc.weight)


@pytest.mark.slow
def test_python_of_the_docs_runs(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub._hub_dir", str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/weights-inception-2015-12-05-6726825d.pth").symlink_to(weights)
    torch.save(torchvision.models.alexnet().state_dict(), tmp_path / "checkpoints/alexnet-owt-7be5be79.pth")
    names = {"dataset": ScenesDataset(count=3, height=32, width=32), "batches": [scenes(2) / 127.5 - 1] * 2}
    names["samples"] = (scenes(4) / 127.5 - 1).view(2, 2, 3, 64, 80)
    for block in re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL):
        exec(block, names)
    printed = capsys.readouterr().out.split()
    assert len(printed) > 5
    assert [name for name in ("fid", "kid", "diversity") if name not in names] == []


class Trap:
    def __reduce__(self):
        return (Path.touch, (Path("sprung"),))


def test_a_file_that_is_no_weights_is_refused_and_never_unpickled(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("trap.pth").write_bytes(pickle.dumps({"a": Trap()}, protocol=2))
    save_file({"other": torch.zeros(2)}, "other.safetensors")
    for make in (lambda path: create_extractor("inception", path), lambda path: LPIPS("alex", path)):
        with pytest.raises(CheckpointError, match="cannot be read as plain tensors"):
            make("trap.pth")
        with pytest.raises(CheckpointError, match=r"other\.safetensors"):
            make("other.safetensors")
        with pytest.raises(CheckpointError, match=r"none\.pth: no such file"):
            make("none.pth")
    with pytest.raises(CheckpointError, match=r"trap\.pth"):
        create_extractor("timm:resnet10t", "trap.pth")
    assert not Path("sprung").exists()


@pytest.mark.parametrize("name", ["incption", "timm:", "timm:no_such_model", "hf", "judge:"])
def test_unknown_names_are_refused(name: str) -> None:
    with pytest.raises(CladeError, match=r"There is no extractor|has no model"):
        create_extractor(name, "random")


# --- Other backbones --------------------------------------------------------------------------------------------------


def test_dinov2_gives_its_class_token_of_the_normalised_picture() -> None:
    extractor = create_extractor("dinov2", "random")
    photos = scenes(2, size=224)[..., :224]
    assert extractor.name == "dinov2-random"
    assert extractor.dim == 384
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = (photos / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    expected = extractor.network.forward_features(x)[:, 0]
    torch.testing.assert_close(extractor(photos), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(extractor(photos / 127.5 - 1), expected, rtol=1e-4, atol=1e-5)


def test_a_timm_model_is_read_from_a_file_and_sees_what_pillow_resizes(tmp_path: Path) -> None:
    random = create_extractor("timm:resnet10t", "random")
    save_file(random.network.state_dict(), tmp_path / "model.safetensors")
    extractor = create_extractor("timm:resnet10t", tmp_path / "model.safetensors")
    photos = scenes(2)
    assert extractor.name == "timm:resnet10t"
    assert extractor.key.split("-")[-1] == random.key.split("-")[-1]
    assert torch.equal(extractor(photos), random(photos))
    assert extractor(photos).shape == (2, extractor.dim)
    size = extractor.size[::-1]
    resized = [Image.fromarray(p).resize(size, Image.Resampling.BICUBIC) for p in photos.movedim(1, 3).numpy()]
    shown = extractor.preprocess(torch.from_numpy(np.stack([np.asarray(p) for p in resized])).movedim(3, 1))
    assert (extractor.preprocess(photos) - shown).abs().max() < 8 / 255 / 0.22
    assert (extractor.preprocess(photos) - shown).abs().mean() < 0.2 / 255 / 0.22


def test_a_model_of_transformers_is_read_from_its_folder(tmp_path: Path) -> None:
    from transformers import BitImageProcessor, Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    config = Dinov2Config(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14, mlp_ratio=2
    )
    model = Dinov2Model(config).eval()
    model.save_pretrained(tmp_path)
    BitImageProcessor(size={"shortest_edge": 56}, crop_size={"height": 28, "width": 28}).save_pretrained(tmp_path)
    extractor = create_extractor(f"hf:{tmp_path}")
    photos = scenes(2, size=28)[..., :28]
    assert extractor.dim == 24
    assert extractor.size == (28, 28)
    mean, std = torch.tensor([0.48145466, 0.4578275, 0.40821073]), torch.tensor([0.26862954, 0.26130258, 0.27577711])
    x = (photos / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    with torch.no_grad():
        expected = model(x).last_hidden_state[:, 0]
    torch.testing.assert_close(extractor(photos), expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(CheckpointError, match="hf download no/such"):
        create_extractor("hf:no/such")


def test_a_judge_lends_its_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = Architecture(name="unet", encoder="resnet18", options={"encoder_depth": 3, "decoder_channels": (8, 8, 8)})
    judge = TrainedJudge(tiny.build(12), tiny, ScenesDataset().label_space, (64, 80))
    judge.save(tmp_path / "mine.safetensors")
    extractor = create_extractor(f"judge:{tmp_path / 'mine.safetensors'}")
    photos = scenes(2)
    assert (extractor.name, extractor.dim) == ("judge:mine", judge.dim)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = (photos / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    with torch.no_grad():
        expected = judge.network.encoder(x)[-1].mean((2, 3))
    torch.testing.assert_close(extractor(photos), expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(CladeError, match="computes in float32"):
        create_extractor(f"judge:{tmp_path / 'mine.safetensors'}", dtype=torch.float64)
    monkeypatch.setattr("clade.metrics.judges.open_judge", lambda spec: SimpleNamespace())
    with pytest.raises(CheckpointError, match="has no features"):
        create_extractor("judge:upernet101")


def test_the_key_depends_on_weights_and_preprocessing() -> None:
    one = create_extractor("timm:resnet10t", "random")
    other = create_extractor("timm:resnet10t", "random")
    assert one.key == other.key
    other.__dict__.pop("key")
    other.size = (32, 32)
    assert other.key != one.key
    changed = create_extractor("timm:resnet10t", "random")
    with torch.no_grad():
        next(changed.network.parameters()).add_(1e-3)
    assert changed.key != one.key


# --- LPIPS ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("net", ["alex", "squeeze", pytest.param("vgg", marks=pytest.mark.slow)])
def test_lpips_is_that_of_torchmetrics(net: str, tmp_path: Path) -> None:
    """Weights go through a file of torchvision's layout; the other side's network gets them in its own."""
    backbones = {"alex": "alexnet", "squeeze": "squeezenet1_1", "vgg": "vgg16"}
    torch.manual_seed(1)
    backbone = getattr(torchvision.models, backbones[net])(weights=None)
    kept = {key: value for key, value in backbone.state_dict().items() if key.startswith("features.")}
    save_file(kept, tmp_path / "backbone.safetensors")
    lpips = LPIPS(net, tmp_path / "backbone.safetensors")
    one, other = scenes(3) / 127.5 - 1, scenes(3, start=9) / 127.5 - 1
    ours = lpips(one, other)

    places = list(lpips.network.net.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(lpips.network.net.state_dict().values(), kept.values(), strict=False))
    assert len(places) <= len(kept)
    torch.testing.assert_close(ours, lpips.network(one, other).flatten(), rtol=1e-4, atol=1e-7)
    assert torch.all(ours > 0)
    assert torch.all(lpips(one, one) == 0)


def test_lpips_is_its_equation() -> None:
    lpips = LPIPS("alex", "random")
    one, other = scenes(1) / 127.5 - 1, scenes(1, start=9) / 127.5 - 1
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    total = 0.0
    x, y = ((image - shift.view(3, 1, 1)) / scale.view(3, 1, 1) for image in (one, other))
    slices = [getattr(lpips.network.net, f"slice{k}") for k in range(1, 6)]
    for part, lin in zip(slices, lpips.network.lins, strict=True):
        x, y = part(x), part(y)
        a, b = (layer[0].double().numpy() for layer in (x, y))
        a, b = (layer / np.sqrt((layer**2).sum(0) + 1e-8) for layer in (a, b))
        weight = lin.model[-1].weight[0, :, 0, 0].double().numpy()
        total += float((weight[:, None, None] * (a - b) ** 2).sum(0).mean())
    assert float(lpips(one, other)) == pytest.approx(total, rel=1e-4)
    assert lpips.name == "lpips-alex-random"


def test_diversity_is_the_mean_over_pairs_of_each_label_map() -> None:
    lpips = LPIPS("alex", "random")
    samples = (scenes(12) / 127.5 - 1).view(4, 3, 3, 64, 80)
    expected = np.mean(
        [float(lpips(s[i : i + 1], s[j : j + 1])) for s in samples for i in range(3) for j in range(3) if i < j]
    )
    for batch_size in (1, 3):
        metric = Diversity(lpips)
        for batch in samples.split(batch_size):
            metric.update(batch)
        found = metric.compute()
        assert float(found["lpips"]) == pytest.approx(expected, rel=1e-5)
        assert (int(found["maps"]), int(found["pairs"])) == (4, 12)
    same = Diversity(lpips)
    same.update(samples[:, :1].expand(-1, 3, -1, -1, -1))
    assert float(same.compute()["lpips"]) == 0


def test_diversity_needs_two_pictures_of_a_label_map() -> None:
    metric = Diversity(LPIPS("alex", "random"))
    with pytest.raises(CladeError, match="at least 2 pictures of each"):
        metric.update(torch.zeros(2, 1, 3, 64, 64))
    with pytest.raises(DataError, match="No pictures came"):
        metric.compute()
    with pytest.raises(CladeError, match="no LPIPS network 'alexnet'"):
        LPIPS("alexnet")


@pytest.mark.parametrize("classes", [1000, 0])
def test_timm_weights_that_lack_a_layer_are_refused(classes: int, tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    file = tmp_path / "model.safetensors"
    network = timm.create_model("resnet18", num_classes=classes).eval()
    save_file(network.state_dict(), file)
    network.reset_classifier(0)
    extractor = create_extractor("timm:resnet18", file)
    state = network.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in extractor.network.state_dict().items())
    save_file({key: value for key, value in load_file(file).items() if not key.startswith("layer4")}, file)
    with pytest.raises(CheckpointError, match="not the weights of timm's 'resnet18'"):
        create_extractor("timm:resnet18", file)


def test_lpips_of_tiny_pictures_says_what_it_needs() -> None:
    with pytest.raises(CladeError, match=r"8x40 came; .* 32 or more"):
        LPIPS("alex", "random").features(torch.zeros(1, 3, 8, 40))
