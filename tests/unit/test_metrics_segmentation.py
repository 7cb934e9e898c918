"""mIoU and pixel accuracy: against a slow loop, absent classes, ignored pixels, chance."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from clade.data import ScenesDataset
from clade.errors import CladeError, DataError, LabelError
from clade.metrics import SegmentationScore, ignored_number


def slow(prediction: np.ndarray, truth: np.ndarray, classes: int) -> tuple[list[float], float]:
    """IoU of each class (NaN where it is nowhere) and accuracy, pixel by pixel."""
    both, either = [0] * classes, [0] * classes
    right = counted = 0
    for seen, true in zip(prediction.flat, truth.flat, strict=True):
        if true == 255:
            continue
        counted += 1
        right += seen == true
        for k in range(classes):
            both[k] += seen == k and true == k
            either[k] += seen == k or true == k
    return [a / b if b else float("nan") for a, b in zip(both, either, strict=True)], right / counted


def drawn(seed: int = 0, classes: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    """Predictions and label maps with ignored pixels. Class 4 is only predicted, class 5 nowhere."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes - 2, (7, 9, 5))
    prediction = np.where(rng.random(truth.shape) < 0.5, truth, rng.integers(0, classes - 1, truth.shape))
    truth[rng.random(truth.shape) < 0.2] = 255
    return torch.from_numpy(prediction), torch.from_numpy(truth)


@pytest.mark.parametrize("batch_size", [1, 3, 7])
def test_scores_are_those_of_a_slow_loop(batch_size: int) -> None:
    prediction, truth = drawn()
    iou, accuracy = slow(prediction.numpy(), truth.numpy(), 6)
    assert np.isnan(iou[5])
    assert iou[4] == 0
    metric = SegmentationScore(6)
    for one, other in zip(prediction.split(batch_size), truth.split(batch_size), strict=True):
        metric.update(one, other.to(torch.uint8))
    found = metric.compute()
    np.testing.assert_allclose(found["iou"].numpy(), iou)
    assert float(found["accuracy"]) == pytest.approx(accuracy)
    assert float(found["miou"]) == pytest.approx(np.nanmean(iou))
    assert int(found["pixels"]) == int((truth != 255).sum())
    share = [float((prediction[truth == k] == k).float().mean()) for k in range(4)]
    np.testing.assert_allclose(found["class_accuracy"][:4].numpy(), share, rtol=1e-6)
    assert torch.isnan(found["class_accuracy"][4:]).all()


def test_an_absent_class_counts_as_told() -> None:
    prediction, truth = drawn()
    iou, _ = slow(prediction.numpy(), truth.numpy(), 6)
    metric = SegmentationScore(6, absent="zero")
    metric.update(prediction, truth)
    assert float(metric.compute()["miou"]) == pytest.approx(np.nansum(iou) / 6)
    with pytest.raises(CladeError, match="Did you mean 'zero'"):
        SegmentationScore(6, absent="zeros")  # pyright: ignore[reportArgumentType]


def test_pixels_are_counted_over_all_pictures_before_dividing() -> None:
    metric = SegmentationScore(2)
    metric.update(torch.tensor([[0, 0, 0, 0]]), torch.tensor([[0, 0, 0, 1]]))
    metric.update(torch.tensor([[1, 0]]), torch.tensor([[1, 255]]))
    assert metric.compute()["iou"].tolist() == pytest.approx([3 / 4, 1 / 2])


def test_states_add_up() -> None:
    prediction, truth = drawn()
    one, other, all_in_one = (SegmentationScore(6) for _ in range(3))
    one.update(prediction[:3], truth[:3])
    other.update(prediction[3:], truth[3:])
    all_in_one.update(prediction, truth)
    one.merge_state(other)
    assert torch.equal(one.matrix, all_in_one.matrix)


@pytest.mark.parametrize("classes", [255, 256, 300])
def test_class_255_of_many_is_scored_and_unknown_pixels_are_not(classes: int) -> None:
    truth = torch.arange(classes).repeat(3)
    prediction = truth.clone()
    prediction[::7] = (prediction[::7] + 1) % classes
    known = torch.rand(truth.shape, generator=torch.Generator().manual_seed(0)) < 0.7
    metric = SegmentationScore(classes)
    metric.update(prediction, truth.masked_fill(~known, ignored_number(classes)))
    found = metric.compute()
    assert int(found["pixels"]) == int(known.sum())
    for k in range(classes):
        said, true = (prediction == k) & known, (truth == k) & known
        expected = float((said & true).sum() / (said | true).sum())
        assert float(found["iou"][k]) == pytest.approx(expected, nan_ok=True), k
    with pytest.raises(CladeError, match=f"ignored is {classes - 1}, which is one of the {classes} classes"):
        SegmentationScore(classes, ignored=classes - 1)


def test_wrong_maps_are_refused() -> None:
    metric = SegmentationScore(3)
    with pytest.raises(LabelError, match="same size"):
        metric.update(torch.zeros(1, 4, 4), torch.zeros(1, 4, 5))
    with pytest.raises(LabelError, match=r"A prediction has classes 0\.\.3, needed are 0\.\.2"):
        metric.update(torch.tensor([[0, 3]]), torch.tensor([[0, 1]]))
    with pytest.raises(LabelError, match=r"A label map has classes -1\.\.0"):
        metric.update(torch.tensor([[0, 1]]), torch.tensor([[0, -1]]))
    metric.update(torch.tensor([[7]]), torch.tensor([[255]]))  # what is not counted may be anything
    with pytest.raises(DataError, match="No pixel"):
        metric.compute()


def test_the_right_label_maps_score_one_and_shuffled_ones_near_chance() -> None:
    """With a judge that sees what was drawn: truth that belongs to other pictures has nothing to do with them."""
    scenes = ScenesDataset(count=48, height=32, width=32)
    classes = scenes.label_space.num_classes
    ids = torch.from_numpy(np.stack([scenes.read(k).ids for k in range(len(scenes))])).long()
    truth = ids.masked_fill(ids == classes, 255)
    seen = ids.clamp(max=classes - 1)

    right, shuffled, chance = (SegmentationScore(classes) for _ in range(3))
    right.update(seen, truth)
    assert float(right.compute()["miou"]) == 1
    # Layouts repeat (sky is above), so whole maps are no chance at all; pixels are.
    places = torch.randperm(truth.numel(), generator=torch.Generator().manual_seed(0))
    shuffled.update(seen, truth.flatten()[places].view_as(truth))
    frequency = torch.bincount(truth[truth != 255], minlength=classes).double()
    frequency /= frequency.sum()
    expected = float((frequency.square() / (2 * frequency - frequency.square())).mean())
    assert float(shuffled.compute()["miou"]) == pytest.approx(expected, rel=0.1)
    chance.update(seen, truth.roll(1, 0))
    assert float(chance.compute()["miou"]) < 0.4
