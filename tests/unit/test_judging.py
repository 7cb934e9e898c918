"""Judges that are trained here or come from the Hub: classes, files, training, the score on real photos."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

import clade
from clade.data import Batch, ScenesDataset
from clade.errors import CheckpointError, CladeError, DataError, LabelError, RecipeError
from clade.labels import LabelMap, LabelSpace
from clade.metrics import judges
from clade.metrics.judges.base import Judge
from clade.metrics.judges.matching import NamedJudge, chosen, match
from clade.metrics.judges.pixels import as_pixels
from clade.models.checkpoints import read_header
from clade.training.judges import fit as fitting
from clade.training.judges.losses import Learner, cross_entropy, dice, freeze_unused, step_size

smp = pytest.importorskip("segmentation_models_pytorch")

from clade.metrics.judges.trained import Architecture, TrainedJudge, load_encoder, read_judge  # noqa: E402
from clade.training.judges import JudgeRecipe, list_judge_recipes, score, train_judge  # noqa: E402
from clade.training.judges.scoring import ceiling_of, confusion_of  # noqa: E402

TINY = {"encoder_depth": 3, "decoder_channels": [16, 8, 8]}
SPACE = LabelSpace(names=("sky", "road", "car"), unknown=255)


def images(count: int = 2, height: int = 64, width: int = 64) -> torch.Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(3)) * 2 - 1


def trained(**options) -> TrainedJudge:
    torch.manual_seed(0)
    architecture = Architecture(name="unet", encoder="resnet18", options=TINY)
    network = architecture.build(SPACE.num_classes)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return TrainedJudge(network, architecture, SPACE, (64, 64), "tiny", **options)


def recipe(*overrides: str) -> JudgeRecipe:
    value = {
        "name": "tiny",
        "data": {"name": "scenes", "size": [64, 64], "options": {"count": 16, "val_count": 4}, "max_zoom": 1.1},
        "network": {"architecture": "unet", "encoder": "resnet18", "options": TINY},
        "learning": {"lr": 0.004},
        "training": {"steps": 8, "batch_size": 4, "accelerator": "cpu", "validate_every": 2, "ema": 0.5},
    }
    return JudgeRecipe.from_dict(value, overrides)


# --- Classes ----------------------------------------------------------------------------------------------------------


def test_classes_are_matched_by_name_whatever_their_case_spacing_and_synonyms():
    own = ("person;individual", "Traffic Light", "road, route", "sky")
    found = match(own, ("traffic_light", "Road", "individual", "dog"))
    assert found.groups == ((1,), (2,), (0,), ())
    assert found.unmatched == ("dog",)
    assert found.unused(own) == ("sky",)


def test_a_mapping_goes_before_names_and_may_name_several_classes(tmp_path):
    own = ("road", "car", "truck", "bus", "terrain")
    file = tmp_path / "map.yaml"
    file.write_text("Car: [car, truck, 3]\nGrass: terrain\nRoad:\n", encoding="utf-8")
    assert match(own, ("Road", "Car", "Grass"), file).groups == ((), (1, 2, 3), (4,))
    with pytest.raises(LabelError, match=r"'car' stands for 'Car' and 'Grass'"):
        match(own, ("Road", "Car", "Grass"), {"Car": "car", "Grass": ["car"]})
    with pytest.raises(LabelError, match=r"the judge has no class 'trucks'\. Did you mean 'truck'"):
        match(own, ("Road", "Car"), {"Car": "trucks"})
    with pytest.raises(LabelError, match=r"the dataset has no class 'Cars'"):
        match(own, ("Road", "Car"), {"Cars": "car"})
    with pytest.raises(LabelError, match=r"no class 9"):
        match(own, ("Road", "Car"), {"Car": 9})
    with pytest.raises(LabelError, match="None of the dataset's classes"):
        match(own, ("dress", "hat"))


def test_the_same_classes_need_no_match():
    assert chosen(("a", "b"), ("A", "b"), None) is None
    assert chosen(("a", "b"), ("b", "a"), None) is not None
    with pytest.raises(LabelError, match=r"names=space\.names"):
        chosen(("a",), None, {"a": "a"})


class Fixed(NamedJudge):
    """Its scores are the channels of the image."""

    name = "fixed"

    def preprocess(self, images):
        return images.float()

    def evaluate(self, x, size):
        return x


@pytest.mark.parametrize("count", [254, 255, 256, 300])
def test_every_class_of_many_is_judged_255_too(count):
    names = tuple(f"class {k}" for k in range(count))
    for matched in (None, match(names, names)):
        judge = Fixed(nn.Conv2d(1, 1, 1), names, matched)
        ids = torch.arange(count + 1)
        truth = judge.from_ids(ids, count)
        assert truth[:count].tolist() == list(range(count))
        assert truth[count] == judge.ignored
        assert judge.ignored not in range(count)
        with pytest.raises(LabelError, match=f"such as {max(count, 255) + 1}; needed are 0..{count - 1}, and {count}"):
            judge.from_ids(torch.tensor([max(count, 255) + 1]))


def test_a_judge_of_many_classes_counts_all_of_them():
    names = tuple(f"class {k}" for k in range(300))
    judge = Fixed(nn.Conv2d(1, 1, 1), names)
    truth = torch.tensor([[255, 255, 254, 300]])
    predicted = torch.tensor([[255, 254, 254, 254]])
    batch = Batch(torch.zeros(1, 3, 1, 4), LabelMap(truth), ("a",))
    counts = confusion_of(lambda _: predicted[None], judge, [batch], 300)[:-1]
    assert {tuple(place): counts[tuple(place)].item() for place in counts.nonzero().tolist()} == {
        (254, 254): 1,
        (255, 254): 1,
        (255, 255): 1,
    }


def test_a_matched_judge_answers_with_the_best_of_the_classes_that_are_meant():
    own = ("car", "truck", "tree")
    names = ("Vehicle", "Pole", "Tree")
    x = images(2, 8, 8)
    judge = Fixed(nn.Conv2d(1, 1, 1), own, match(own, names, {"Vehicle": ["car", "truck"]}))
    best = as_pixels(x).float().argmax(1)
    expected = torch.where(best == 2, 2, 0)
    assert torch.equal(judge.scores(x).argmax(1), expected)
    assert judge.names == names
    assert judge.unmatched == ("Pole",)
    # A class that the judge does not know is not counted, whether or not the number of classes is told.
    for count in (None, 3):
        assert judge.from_ids(torch.tensor([0, 1, 2, 3, 255]), count).tolist() == [0, 255, 2, 255, 255]
    with pytest.raises(LabelError):
        judge.from_ids(torch.tensor([0]), 4)
    plain = Fixed(judge.network, own)
    assert plain.key != judge.key


# --- Files ------------------------------------------------------------------------------------------------------------


def test_a_saved_judge_predicts_the_same(tmp_path):
    judge = trained(info={"step": 3}, recipe={"data": {"name": "scenes"}})
    path = tmp_path / "judge.safetensors"
    judge.save(path)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    read = read_judge(path)
    assert torch.equal(torch.get_rng_state(), before)
    x = images()
    assert torch.equal(read.predict(x), judge.predict(x))
    assert torch.equal(read.features(x), judge.features(x))
    assert (read.key, read.names, read.size, read.name) == (judge.key, SPACE.names, (64, 64), "tiny")
    assert read.key.startswith("tiny-")
    assert read.info["step"] == 3
    assert read.recipe == judge.recipe
    assert read.label_space == SPACE
    assert read_header(path)["kind"] == "judge"
    assert judges.open(path).key == judge.key


def test_a_judge_in_other_classes_is_the_same_network(tmp_path):
    judge = trained()
    judge.save(tmp_path / "j.safetensors")
    read = judges.open(tmp_path / "j.safetensors", names=("CAR", "dog", "Sky"))
    x = images()
    own = judge.scores(x)
    assert torch.equal(read.predict(x), torch.where(own[:, 2] >= own[:, 0], 0, 2))
    assert read.unused == ("road",)
    assert read.key != judge.key


def test_a_judge_sees_padded_and_resized_images():
    judge = trained()
    odd = images(1, 64, 64)
    judge.size = (60, 50)
    x = judge.preprocess(odd)
    assert x.shape == (1, 3, 60, 50)
    assert judge.predict(odd).shape == (1, 64, 64)
    whole = F.pad(x, (0, 6, 0, 4), mode="replicate")
    expected = judge.network(whole)[..., :60, :50]
    assert torch.allclose(judge(x), expected, atol=1e-6)
    assert judge.predict(odd, (30, 20)).shape == (1, 30, 20)


def test_preprocessing_is_that_of_the_training():
    judge = trained()
    pixels = torch.arange(2 * 3 * 64 * 64).remainder(256).to(torch.uint8).view(2, 3, 64, 64)
    x = pixels.float() / 127.5 - 1
    learner = Learner(judge.network).eval()
    assert torch.allclose(judge(judge.preprocess(pixels)), learner(x), atol=1e-4)


def test_features_are_the_mean_of_the_encoder_s_last_ones():
    judge = trained()
    x = judge.preprocess(images())
    expected = judge.network.encoder(x)[-1].mean((2, 3))
    assert judge.features(images()).shape == (2, judge.dim)
    assert torch.allclose(judge.features(images()), expected, atol=1e-6)


def test_what_is_no_judge_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="no such file"):
        read_judge(tmp_path / "none.safetensors")
    generator = clade.create_generator("clade", num_classes=3, width=2)
    clade.save(generator, tmp_path / "g.safetensors")
    with pytest.raises(CheckpointError, match="holds a generator"):
        judges.open(tmp_path / "g.safetensors")
    judge = trained()
    path = tmp_path / "j.safetensors"
    judge.save(path)
    header, tensors = read_header(path), load_file(path)
    for change, message in (
        ({"judge": {**header["judge"], "encoder": "tu-hf-hub:someone/net"}}, "no name of an encoder"),
        ({"judge": {**header["judge"], "options": {"encoder_weights": "imagenet"}}}, "encoder_weights"),
        ({"judge": {**header["judge"], "architecture": "unot"}}, "Did you mean 'unet'"),
        ({"judge": {**header["judge"], "encoder": "resnet34"}}, "cannot be made of it"),
        ({"judge": {}}, "header is damaged"),
    ):
        save_file(tensors, path, metadata={"clade": json.dumps({**header, **change})})
        with pytest.raises(CheckpointError, match=message):
            read_judge(path)
    with pytest.raises(CheckpointError, match=r"There is no judge 'upernet'.*Did you mean 'upernet101'"):
        judges.open("upernet")
    with pytest.raises(CheckpointError, match="no such file of weights"):
        judges.open(f"upernet101={tmp_path / 'none.pth'}")
    with pytest.raises(CheckpointError, match="name it "):
        judge.save(tmp_path / "j.pth")


def test_published_encoder_weights_are_taken_with_their_classifier(tmp_path):
    import torchvision

    torch.manual_seed(1)
    published = torchvision.models.resnet18(weights=None)
    torch.save(published.state_dict(), tmp_path / "resnet18.pth")
    network = Architecture(name="unet", encoder="resnet18").build(3)
    load_encoder(network, tmp_path / "resnet18.pth")
    assert torch.equal(network.encoder.layer4[1].conv2.weight, published.layer4[1].conv2.weight)
    network = Architecture(name="unet", encoder="resnet34").build(3)
    with pytest.raises(CheckpointError, match=r"do not fit the encoder: \d+ are missing"):
        load_encoder(network, tmp_path / "resnet18.pth")
    torch.save(nn.Linear(1, 1), tmp_path / "module.pth")
    with pytest.raises(CheckpointError, match="cannot be read as plain tensors"):
        load_encoder(network, tmp_path / "module.pth")


# --- The Hub's --------------------------------------------------------------------------------------------------------


def saved_segformer(folder: Path, names=("wall", "road", "sky")) -> Path:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.SegformerConfig(
        hidden_sizes=[8, 16, 16, 16],
        depths=[1, 1, 1, 1],
        num_attention_heads=[1, 2, 2, 2],
        decoder_hidden_size=16,
        id2label=dict(enumerate(names)),
        label2id={name: k for k, name in enumerate(names)},
    )
    transformers.SegformerForSemanticSegmentation(config).save_pretrained(folder)
    transformers.SegformerImageProcessor(size={"height": 48, "width": 48}).save_pretrained(folder)
    return folder


def test_a_segformer_gives_what_transformers_pipeline_gives(tmp_path):
    transformers = pytest.importorskip("transformers")
    folder = saved_segformer(tmp_path / "segformer")
    judge = judges.open(f"hf:{folder}")
    pixels = torch.randint(0, 256, (2, 3, 40, 56), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    network = transformers.SegformerForSemanticSegmentation.from_pretrained(folder).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    with torch.no_grad():
        out = network(**processor(images=list(pixels.movedim(1, 3).numpy()), return_tensors="pt"))
    expected = torch.stack(processor.post_process_semantic_segmentation(out, [(40, 56)] * 2))
    assert torch.equal(judge.predict(pixels), expected)
    assert judge.names == ("wall", "road", "sky")
    assert judge.name == "hf:segformer"
    assert "/" not in judge.key
    assert judge.features(pixels).shape == (2, 16)
    other = judges.open(f"hf:{folder}", names=("Sky", "ROAD"))
    scores = judge.scores(pixels)
    assert torch.equal(other.predict(pixels), scores[:, [2, 1]].argmax(1))


@pytest.mark.parametrize("kind", ["maskformer", "mask2former"])
def test_mask_classifiers_give_what_transformers_gives(kind):
    transformers = pytest.importorskip("transformers")
    from clade.metrics.judges.hugging_face import HuggingFaceJudge

    torch.manual_seed(0)
    swin = transformers.SwinConfig(
        embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], out_features=["stage1", "stage2", "stage3", "stage4"]
    )
    labels = {"id2label": {0: "a", 1: "b", 2: "c"}, "label2id": {"a": 0, "b": 1, "c": 2}}
    if kind == "maskformer":
        detr = transformers.DetrConfig(
            d_model=32, decoder_layers=1, encoder_layers=1, decoder_ffn_dim=16, encoder_ffn_dim=16, num_queries=5,
            decoder_attention_heads=2, encoder_attention_heads=2,
        )  # fmt: skip
        config = transformers.MaskFormerConfig(
            backbone_config=swin, decoder_config=detr, fpn_feature_size=32, mask_feature_size=32, **labels
        )
        network, processor = (
            transformers.MaskFormerForInstanceSegmentation(config),
            transformers.MaskFormerImageProcessor,
        )
    else:
        config = transformers.Mask2FormerConfig(
            backbone_config=swin, feature_size=32, mask_feature_size=32, hidden_dim=32, encoder_feedforward_dim=16,
            encoder_layers=1, decoder_layers=2, num_attention_heads=2, dim_feedforward=16, num_queries=5, **labels,
        )  # fmt: skip
        network, processor = (
            transformers.Mask2FormerForUniversalSegmentation(config),
            transformers.Mask2FormerImageProcessor,
        )
    processor = processor(size={"height": 64, "width": 64})
    judge = HuggingFaceJudge(network, processor, kind)
    pixels = torch.randint(0, 256, (2, 3, 40, 56), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        out = network.eval()(processor(images=list(pixels.movedim(1, 3).numpy()), return_tensors="pt")["pixel_values"])
    expected = torch.stack(processor.post_process_semantic_segmentation(out, [(40, 56)] * 2))
    agreement = (judge.predict(pixels) == expected).double().mean()
    assert agreement > 0.999  # near ties may fall to either side
    assert judge.scores(pixels).shape == (2, 3, 40, 56)


class _Looking(torch.nn.Module):
    """A network of transformers whose scores are the pixels that it gets."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))
        self.config = SimpleNamespace(id2label={0: "r", 1: "g", 2: "b"}, model_type="seen")

    def forward(self, pixel_values):
        return SimpleNamespace(logits=pixel_values * self.weight)


@pytest.mark.parametrize("kind", ["MaskFormerImageProcessor", "MobileViTImageProcessor"])
def test_padding_and_cutting_do_not_move_what_a_processor_shows(kind):
    transformers = pytest.importorskip("transformers")
    from clade.metrics.judges.hugging_face import HuggingFaceJudge

    if kind == "MaskFormerImageProcessor":
        processor = transformers.MaskFormerImageProcessor(
            size={"shortest_edge": 80, "longest_edge": 200}, size_divisor=32
        )
    else:
        processor = transformers.MobileViTImageProcessor(
            size={"shortest_edge": 80}, crop_size={"height": 64, "width": 64}, do_flip_channel_order=False
        )
    pixels = torch.zeros(1, 3, 40, 60, dtype=torch.uint8)
    pixels[:, 0, :, :30], pixels[:, 1, :20, 30:], pixels[:, 2, 20:, 30:] = 255, 255, 255
    seen = HuggingFaceJudge(_Looking(), processor, "seen").predict(pixels)
    assert torch.equal(seen, pixels.argmax(1))


def test_what_the_hub_must_not_give(tmp_path):
    transformers = pytest.importorskip("transformers")
    with pytest.raises(CheckpointError, match=r"cannot be opened .*hf download someone/nothing"):
        judges.open("hf:someone/nothing")
    config = transformers.SegformerConfig(hidden_sizes=[8] * 4, depths=[1] * 4, num_attention_heads=[1] * 4)
    transformers.SegformerForImageClassification(config).save_pretrained(tmp_path / "classifier")
    with pytest.raises(CladeError, match="gives no class for every pixel"):
        judges.open(f"hf:{tmp_path / 'classifier'}")
    pickled = saved_segformer(tmp_path / "pickled")
    torch.save(load_file(pickled / "model.safetensors"), pickled / "pytorch_model.bin")
    (pickled / "model.safetensors").rename(tmp_path / "kept.safetensors")
    with pytest.raises(CheckpointError, match="safetensors"):
        judges.open(f"hf:{pickled}")
    state = load_file(tmp_path / "kept.safetensors")
    state.pop("decode_head.classifier.weight")
    save_file(state, pickled / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"1 weights .*decode_head\.classifier\.weight"):
        judges.open(f"hf:{pickled}")


# --- Losses and scores ------------------------------------------------------------------------------------------------


def test_unknown_pixels_do_not_count_in_the_loss():
    logits = torch.randn(2, 3, 4, 4, dtype=torch.float32, generator=torch.Generator().manual_seed(0))
    truth = torch.randint(0, 3, (2, 4, 4), generator=torch.Generator().manual_seed(1))
    truth[0, :2] = 255
    chances = logits.softmax(1)
    values = [
        -chances[n, truth[n, i, j], i, j].log()
        for n in range(2)
        for i in range(4)
        for j in range(4)
        if truth[n, i, j] != 255
    ]
    for ignored in (255, -1):
        told = truth.masked_fill(truth == 255, ignored)
        assert cross_entropy(logits, told, ignored) == pytest.approx(float(sum(values) / len(values)), rel=1e-5)
        assert cross_entropy(logits, torch.full_like(truth, ignored), ignored) == 0


def test_unknown_pixels_do_not_count_in_the_dice_loss():
    logits = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    truth = torch.randint(0, 3, (1, 4, 4), generator=torch.Generator().manual_seed(1))
    truth[0, :2] = -1
    seen, known = logits.softmax(1)[:, :, 2:], truth[:, 2:]
    hot = torch.stack([known == k for k in range(3)], 1).float()
    each = 1 - 2 * (seen * hot).sum((0, 2, 3)) / (seen + hot).sum((0, 2, 3))
    expected = (each * (hot.sum((0, 2, 3)) > 0)).mean()  # as smp has it: a class that does not occur costs nothing
    torch.testing.assert_close(dice(logits, truth, -1), expected)


def test_weights_that_no_output_depends_on_are_not_trained():
    network = Architecture(name="unet", encoder="resnet18", options=TINY).build(3).train()
    freeze_unused(network, (64, 64))
    frozen = {name.split(".")[1] for name, p in network.named_parameters() if not p.requires_grad}
    assert frozen == {"layer3", "layer4"}
    assert all(p.grad is None for p in network.parameters())


def test_step_sizes():
    rising = [step_size("one-cycle", k, 100) for k in range(100)]
    assert max(rising) == rising[10] == 1
    assert rising[:10] == sorted(rising[:10])
    assert rising[10:] == sorted(rising[10:], reverse=True)
    assert 0 < rising[-1] < 0.01
    assert step_size("poly", 0, 100) == 1
    assert step_size("poly", 50, 100) == pytest.approx(0.5**0.9)
    assert all(0 < step_size("one-cycle", k, n) <= 1 for n in (1, 2, 3) for k in range(n))


def test_a_ceiling_is_what_counting_by_hand_gives():
    scenes = ScenesDataset(split="val", count=2, val_count=5, height=64, width=64)
    judge = Coloured(scenes.label_space)
    found = score(judge, scenes, size=(64, 64), batch_size=2)
    k, counts = scenes.label_space.num_classes, {}
    for index in range(5):
        sample = scenes.read(index)
        for truth, said in zip(sample.ids.ravel().tolist(), (sample.image[..., 0] % k).ravel().tolist(), strict=True):
            if truth < k:
                counts[truth, said] = counts.get((truth, said), 0) + 1
    for c, name in enumerate(scenes.label_space.names):
        hit = counts.get((c, c), 0)
        union = sum(n for pair, n in counts.items() if c in pair)
        assert found.iou[name] == (pytest.approx(hit / union) if union else None)
    there = [value for value in found.iou.values() if value is not None]
    assert found.miou == pytest.approx(np.mean(there))
    right = sum(n for (truth, said), n in counts.items() if truth == said)
    assert found.accuracy == pytest.approx(right / sum(counts.values()))
    assert found.pictures == 5
    assert score(judge, scenes, size=(64, 64), batch_size=2, limit=3).pictures == 3
    with pytest.raises(DataError, match="Not one pixel"):
        ceiling_of(torch.zeros(k + 1, k), scenes.label_space.names)


class Coloured(Judge):
    """Says the remainder of the red byte."""

    name = "coloured"

    def __init__(self, space: LabelSpace) -> None:
        super().__init__(nn.Conv2d(1, 1, 1), space.names)

    def preprocess(self, images):
        return images.float()

    def evaluate(self, x, size):
        return F.one_hot(x[:, 0].long() % self.num_classes, self.num_classes).movedim(3, 1).float()


# --- Training ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A training to its end: (its folder, its result)."""
    folder = tmp_path_factory.mktemp("judge") / "run"
    made = recipe("--training.steps", "40", "--training.validate_every", "10")
    return folder, train_judge(made, folder, quiet=True)


def test_training_learns_and_keeps_its_score_as_the_ceiling(run):
    folder, result = run
    assert result.finished
    assert result.step == 40
    judge = judges.open(folder)
    ceiling = judge.info["ceiling"]
    assert ceiling["miou"] == result.best
    again = score(judge, recipe().data)
    assert again.miou == pytest.approx(ceiling["miou"], abs=1e-3)
    assert again.iou.keys() == ceiling["iou"].keys()
    untrained = TrainedJudge(
        judge.architecture.build(judge.num_classes), judge.architecture, judge.label_space, (64, 64)
    )
    assert again.miou > score(untrained, recipe().data).miou + 0.1
    assert again.miou > 1 / judge.num_classes  # more than any answer that is the same everywhere
    assert not (folder / "skipped.txt").exists()


def states(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "state.safetensors")


def test_class_255_of_many_is_learned_and_scored(tmp_path):
    """One class all over, which has no loss where it is taken for an unlabelled pixel, and no score."""
    for split in ("train", "val"):
        for kind, pixels in (
            ("images", np.full((64, 64, 3), 90, np.uint8)),
            ("labels", np.full((64, 64), 255, np.uint16)),
        ):
            (tmp_path / split / kind).mkdir(parents=True)
            Image.fromarray(pixels).save(tmp_path / split / kind / "a.png")
    data = {"name": "folder", "root": str(tmp_path), "num_classes": 300, "size": [64, 64]}
    value = {**recipe("--training.steps", "8", "--learning.dice", "1").to_dict(), "data": data}
    value["training"] |= {"validate_every": 100, "batch_size": 2}
    result = train_judge(JudgeRecipe.from_dict(value), tmp_path / "run", quiet=True)
    assert result.best == 1


@pytest.mark.slow
def test_a_stopped_training_goes_on_as_if_it_had_not_stopped(tmp_path, monkeypatch):
    options = (
        "--learning.dice",
        "0.5",
        "--training.steps",
        "5",
        "--network.architecture",
        "fpn",
        "--network.options",
        "{}",
    )
    made = recipe(*options)
    train_judge(made, tmp_path / "whole", quiet=True)
    step = fitting._Run._train_step

    def stop_at_second(self, batch):
        losses = step(self, batch)
        if self.step == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return losses

    monkeypatch.setattr(fitting._Run, "_train_step", stop_at_second)
    first = train_judge(made, tmp_path / "parts", quiet=True)
    assert (first.step, first.finished) == (2, False)
    assert read_judge(tmp_path / "parts/last.safetensors").info["step"] == 2
    monkeypatch.setattr(fitting._Run, "_train_step", step)
    torch.manual_seed(99)
    assert train_judge(made, tmp_path / "parts", quiet=True).finished
    whole, parts = states(tmp_path / "whole"), states(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[key], parts[key]) for key in whole if not key.startswith("rng"))
    same = recipe(*options, "--training.steps", "6")
    with pytest.raises(RecipeError, match=r"training\.steps \(5 -> 6\)"):
        train_judge(same, tmp_path / "parts", quiet=True)


def test_a_killed_training_goes_on_from_the_last_saved_state(tmp_path, monkeypatch):
    options = ("--training.steps", "4", "--training.save_every", "2", "--training.validate_every", "10")
    made = recipe(*options, "--network.encoder", "mobilenet_v2")
    step = fitting._Run._train_step

    def die(self, batch):
        if self.step == 4:
            raise KeyboardInterrupt
        return step(self, batch)

    monkeypatch.setattr(fitting._Run, "_train_step", die)
    with pytest.raises(KeyboardInterrupt):
        train_judge(made, tmp_path, quiet=True)
    monkeypatch.setattr(fitting._Run, "_train_step", step)
    seen = []
    monkeypatch.setattr(fitting._Run, "_train_step", lambda self, b: (seen.append(self.step), step(self, b))[1])
    assert train_judge(made, tmp_path, quiet=True).finished
    assert seen == [3, 4]


def test_a_folder_of_a_generator_is_not_gone_on_with(tmp_path):
    from clade.training.state import save_state

    save_state(tmp_path / "state.safetensors", {}, {}, {"step": 3, "recipe": {}})
    with pytest.raises(RecipeError, match="training of a generator"):
        train_judge(recipe(), tmp_path, quiet=True)


def test_a_loss_that_is_no_number_stops_the_training(tmp_path):
    with pytest.raises(CladeError, match=r"no longer numbers.*learning\.lr"):
        train_judge(recipe("--learning.lr", "1e30", "--network.encoder", "mobilenet_v2"), tmp_path, quiet=True)


# --- Recipes ----------------------------------------------------------------------------------------------------------


def test_one_picture_is_too_few_for_a_network_that_pools_it_to_one_value(tmp_path):
    made = JudgeRecipe.from_dict(
        {
            **recipe("--training.batch_size", "1").to_dict(),
            "network": {"architecture": "deeplabv3plus", "encoder": "resnet18"},
        }
    )
    with pytest.raises(RecipeError, match=r"'deeplabv3plus' pools .* training\.batch_size to at least 2"):
        train_judge(made, tmp_path, quiet=True)


def test_recipes_for_judges_come_with_clade():
    assert {"camvid", "ccp"} <= set(list_judge_recipes())
    assert not set(list_judge_recipes()) & set(clade.list_recipes())
    for name in list_judge_recipes():
        read = JudgeRecipe.from_yaml(name)
        assert read.name == name
        assert JudgeRecipe.from_dict(json.loads(json.dumps(read.to_dict()))) == read
        Architecture(name=read.network.architecture, encoder=read.network.encoder, options=read.network.options).build(
            3
        )


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["--network.encodr", "x"], r"no key 'network\.encodr'.*Did you mean 'encoder'"),
        (["--learning.schedule", "step"], "'one-cycle' or 'poly'"),
        (["--training.batch_size", "0"], "at least 1"),
        (["--training.batch_size", "many"], "batch_size"),
        (["--generator.width", "3"], r"no key 'generator\.width'"),
    ],
)
def test_wrong_keys_and_values_are_named(overrides, message):
    with pytest.raises(RecipeError, match=message):
        recipe(*overrides)


def test_wrong_recipe_files_are_named(tmp_path):
    with pytest.raises(RecipeError, match=r"no recipe 'canvid'.*Did you mean 'camvid'"):
        JudgeRecipe.from_yaml("canvid")
    file = tmp_path / "r.yaml"
    file.write_text("data: 3", encoding="utf-8")
    with pytest.raises(RecipeError, match="'data' is a group of keys"):
        JudgeRecipe.from_yaml(file)
    with pytest.raises(RecipeError, match="no network 'unett'"):
        Architecture(name="unett", encoder="resnet18").build(3)
    with pytest.raises(RecipeError, match="cannot be built"):
        Architecture(name="unet", encoder="resnet19").build(3)
