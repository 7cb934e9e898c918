"""Photo, labels and instances always move together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from clade.data import Augment, Sample, plain_resize, to_batch
from clade.data.transforms import color_jitter, flip, random_crop, resize
from clade.errors import DataError, RecipeError
from clade.labels.positions import positions_of

COLOURS = np.array([(0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)], np.uint8)
"""Far apart, so that the nearest one tells which class a filtered colour mostly came from."""


def tiles(height: int = 48, width: int = 64, tile: int = 8, seed: int = 0) -> Sample:
    """Square patches; the photo shows the class by its colour, the instance map is class + 10."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, len(COLOURS), (height // tile, width // tile), np.uint8)
    ids = coarse.repeat(tile, axis=0).repeat(tile, axis=1)
    return Sample("tiles", COLOURS[ids], ids, ids.astype(np.int32) + 10)


def classes_in_photo(sample: Sample) -> np.ndarray:
    assert sample.image is not None
    distance = np.abs(sample.image[:, :, None].astype(int) - COLOURS).sum(axis=-1)
    return distance.argmin(axis=-1)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


EXACT: dict[str, Callable[[Sample], Sample]] = {
    "flip": flip,
    "crop": lambda sample: random_crop(sample, (20, 30), rng(3)),
    "pixels": lambda sample: Augment(crop="pixels")(sample, (20, 30), rng(3)),
    "resize 2x": lambda sample: resize(sample, (96, 128)),
    "zoomless": lambda sample: Augment(max_zoom=1.0, flip=True)(sample, (48, 64), rng(1)),
    "integer box": lambda sample: resize(sample, (20, 30), (7, 5, 27, 35)),
}


@pytest.mark.parametrize("change", EXACT.values(), ids=EXACT)
def test_labels_photo_and_instances_agree_in_every_pixel(change: Callable[[Sample], Sample]):
    out = change(tiles())
    assert np.array_equal(classes_in_photo(out), out.ids)
    assert out.instances is not None
    assert np.array_equal(out.instances, out.ids.astype(np.int32) + 10)


@pytest.mark.parametrize("fit", ["stretch", "crop"])
@pytest.mark.parametrize("size", [(48, 64), (96, 80), (31, 57)])
def test_zoomed_labels_lie_on_the_photo(fit: str, size: tuple[int, int]):
    """Filtered pixels on a border may go either way; inside a patch, photo and label must agree."""
    for seed in range(5):
        out = Augment(max_zoom=1.5, fit=fit)(tiles(), size, rng(seed))
        assert out.ids.shape == size
        assert out.image is not None
        assert out.image.shape == (*size, 3)
        same = np.ones(size, bool)  # where all 8 neighbours have the same class
        padded = np.pad(out.ids, 1, mode="edge")
        for dy in range(3):
            for dx in range(3):
                same &= padded[dy : dy + size[0], dx : dx + size[1]] == out.ids
        assert same.mean() > 0.2
        assert np.array_equal(classes_in_photo(out)[same], out.ids[same])
        assert out.instances is not None
        assert np.array_equal(out.instances, out.ids.astype(np.int32) + 10)


def test_nearest_label_is_the_one_that_pillow_takes():
    ids = rng().integers(0, 200, (37, 53), dtype=np.uint8)
    for height, width in ((20, 20), (37, 100), (80, 53), (1, 1), (74, 106)):
        expected = np.asarray(Image.fromarray(ids).resize((width, height), Image.Resampling.NEAREST))
        assert np.array_equal(resize(Sample("a", None, ids), (height, width)).ids, expected)


def test_box_of_a_resized_photo_is_the_crop_of_the_whole_one():
    photo = rng().integers(0, 256, (40, 60, 3), dtype=np.uint8)
    sample = Sample("a", photo, photo[..., 0])
    whole = resize(sample, (80, 120))
    part = resize(sample, (20, 40), (5, 10, 15, 30))
    assert whole.image is not None
    assert part.image is not None
    assert np.abs(whole.image[10:30, 20:60].astype(int) - part.image).max() <= 1
    assert np.array_equal(whole.ids[10:30, 20:60], part.ids)


def test_shrinking_a_photo_is_antialiased():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    image = resize(Sample("a", stripes, stripes[..., 0]), (16, 16)).image
    assert image is not None
    assert np.abs(image[:, 2:-2].astype(int) - 127).max() < 8


@pytest.mark.parametrize("size", [(48, 64), (31, 57), (96, 80)])
def test_mirroring_while_resizing_is_mirroring_the_result(size: tuple[int, int]):
    for box in (None, (3.3, 1.25, 40.0, 63.5), (0.0, 0.0, 48.0, 64.0)):
        mirrored, expected = resize(tiles(), size, box, mirror=True), flip(resize(tiles(), size, box))
        for part in ("image", "ids", "instances"):
            assert np.array_equal(getattr(mirrored, part), getattr(expected, part))


def test_no_change_of_size_returns_the_sample_itself():
    sample = tiles()
    assert resize(sample, (48, 64)) is sample
    assert plain_resize(sample, (48, 64)) is sample


def test_stretch_shows_the_whole_picture_and_crop_keeps_the_aspect_ratio():
    gradient = np.arange(100, dtype=np.uint8)[None].repeat(50, axis=0)
    sample = Sample("a", None, gradient)
    stretched, cropped = plain_resize(sample, (50, 50)), plain_resize(sample, (50, 50), fit="crop")
    assert stretched.ids[0, [0, -1]].tolist() == [1, 99]
    assert cropped.ids[0].tolist() == list(range(25, 75))


def test_zoom_stays_within_its_range_and_reaches_the_borders():
    columns = np.arange(1000, dtype=np.int32)[None].repeat(4, axis=0)
    sample, augment = Sample("a", None, columns), Augment(flip=False, max_zoom=1.25)
    generator = rng()
    rows = [augment(sample, (4, 1000), generator).ids[0] for _ in range(300)]
    spans = np.array([row[-1] - row[0] + 1 for row in rows])
    assert spans.min() >= 798
    assert spans.max() <= 1000
    assert spans.max() - spans.min() > 180
    close = [row for row, span in zip(rows, spans, strict=True) if span < 850]  # of these, anywhere is as likely
    assert min(row[0] for row in close) < 15
    assert max(row[-1] for row in close) > 985
    assert 40 < np.mean([row[0] for row in close]) < 140


def test_about_half_of_the_pictures_are_mirrored():
    ids = np.array([[0, 1]], np.uint8)
    generator = rng()
    augment = Augment(max_zoom=1.0)
    mirrored = sum(int(augment(Sample("a", None, ids), (1, 2), generator).ids[0, 0]) for _ in range(1000))
    assert 430 < mirrored < 570


def test_mirroring_mirrors_and_negates_horizontal_positions():
    sample = tiles()
    plain, mirrored = (to_batch([s], True, False).label_map.positions for s in (sample, flip(sample)))
    assert plain is not None
    assert mirrored is not None
    assert torch.allclose(mirrored[:, 0], plain[:, 0].flip(-1), atol=1e-6)
    assert torch.allclose(mirrored[:, 1], -plain[:, 1].flip(-1), atol=1e-6)
    assert plain[:, 1].abs().max() > 0.9


def test_positions_are_those_of_the_cropped_objects():
    ids = np.zeros((32, 32), np.uint8)
    ids[4:28, 4:28] = 1
    cropped = resize(Sample("a", None, ids), (12, 12), (0, 0, 12, 12))  # cuts the object
    positions = to_batch([cropped], True, False).label_map.positions
    assert positions is not None
    inside = positions[0][:, torch.from_numpy(cropped.ids == 1)]
    assert torch.allclose(inside.mean(dim=1), torch.zeros(2), atol=1e-5)
    assert inside.amax() > 0.99
    assert np.array_equal(positions[0].numpy(), positions_of(cropped.ids))


def test_jitter_changes_the_photo_and_nothing_else():
    sample = tiles()
    out = color_jitter(sample, 0.4, rng(2))
    assert not np.array_equal(out.image, sample.image)
    assert out.ids is sample.ids
    assert out.instances is sample.instances
    still = color_jitter(sample, 0.0, rng(2))
    assert np.array_equal(still.image, sample.image)


def test_jitter_does_not_change_the_geometry():
    for seed in range(4):
        plain, jittered = (Augment(jitter=j)(tiles(), (40, 40), rng(seed)) for j in (0.0, 0.5))
        assert np.array_equal(plain.ids, jittered.ids)


def test_same_generator_state_gives_the_same_picture():
    one, two, other = (Augment(jitter=0.3)(tiles(), (40, 40), rng(seed)) for seed in (5, 5, 6))
    assert np.array_equal(one.image, two.image)
    assert np.array_equal(one.ids, two.ids)
    assert not np.array_equal(one.ids, other.ids)


def test_augmentation_leaves_the_sample_that_came_untouched():
    sample = tiles()
    copy = tiles()
    for part in (sample.image, sample.ids, sample.instances):
        assert part is not None
        part.flags.writeable = False
    Augment(jitter=0.5)(sample, (48, 64), rng(1))
    assert np.array_equal(sample.image, copy.image)


def test_batch_has_images_in_minus_one_to_one_and_the_ids_as_they_are():
    samples = [tiles(seed=k) for k in range(3)]
    batch = to_batch(samples, with_positions=False, instances=True)
    assert batch.image is not None
    assert batch.image.shape == (3, 3, 48, 64)
    assert batch.image.dtype == torch.float32
    assert batch.image.is_contiguous()
    assert (float(batch.image.min()), float(batch.image.max())) == (-1.0, 1.0)
    for k, sample in enumerate(samples):
        back = ((batch.image[k] + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).numpy()
        assert np.array_equal(back, sample.image)
        assert np.array_equal(batch.label_map.ids[k].numpy(), sample.ids)
    assert batch.label_map.ids.dtype == torch.uint8
    assert batch.label_map.instances is not None
    assert batch.label_map.instances.dtype == torch.int32
    assert batch.label_map.positions is None
    assert batch.names == ("tiles",) * 3
    assert len(batch) == 3


def test_batch_leaves_out_instances_that_are_not_asked_for_or_not_there():
    with_, without = tiles(), replace(tiles(), instances=None)
    assert to_batch([with_], False, instances=False).label_map.instances is None
    assert to_batch([with_, without], False, instances=True).label_map.instances is None


def test_batch_without_photos_has_no_image():
    assert to_batch([replace(tiles(), image=None)], False, False).image is None


def test_batch_moves_as_a_whole():
    moved = to_batch([tiles()], True, True).to("meta")
    assert moved.image is not None
    assert {moved.image.device.type, moved.label_map.device.type} == {"meta"}
    assert moved.label_map.positions is not None


def test_sizes_and_options_that_make_no_sense_are_refused():
    with pytest.raises(DataError, match="one size"):
        to_batch([tiles(), tiles(height=56)], False, False)
    with pytest.raises(DataError, match="one size"):
        to_batch([], False, False)
    with pytest.raises(DataError, match="cut out"):
        random_crop(tiles(), (49, 10), rng())
    with pytest.raises(DataError, match="no pixels"):
        resize(tiles(), (0, 10))
    for options in ({"max_zoom": 0.9}, {"max_zoom": float("nan")}, {"jitter": 1.0}, {"jitter": -0.1}, {"fit": "pad"}):
        with pytest.raises(RecipeError):
            Augment(**options)


def test_pixels_are_cut_out_and_not_resampled():
    sample = tiles()
    assert sample.image is not None
    windows = np.lib.stride_tricks.sliding_window_view(sample.image, (20, 30, 3)).reshape(-1, 20, 30, 3)
    mirrored = set()
    for seed in range(8):
        out = Augment(crop="pixels")(sample, (20, 30), rng(seed)).image
        assert out is not None
        as_is = bool((windows == out).all(axis=(1, 2, 3)).any())
        assert as_is or (windows == out[:, ::-1]).all(axis=(1, 2, 3)).any()
        mirrored.add(not as_is)
    assert mirrored == {True, False}
    with pytest.raises(DataError, match="cannot be cut"):
        Augment(crop="pixels")(sample, (50, 30), rng())
    with pytest.raises(RecipeError, match="'zoom' or 'pixels'"):
        Augment(crop="none")  # pyright: ignore[reportArgumentType]
