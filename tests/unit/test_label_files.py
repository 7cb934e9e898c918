"""Label and instance files of every mode -> numbers."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from clade import LabelError, LabelSpace
from clade.labels import label_array, read_instances, read_label
from clade.labels.files import open_image

IDS = np.array([[0, 1, 2], [2, 1, 0]], np.uint8)
SPACE = LabelSpace(names=("sky", "tree", "road"), colors=((70, 130, 180), (0, 100, 0), (128, 64, 128)), unknown=255)


def saved(tmp_path, image, name="label.png", **options):
    path = tmp_path / name
    image.save(path, **options)
    return path


def palette_image(ids, colors):
    height, width = ids.shape
    indexed = Image.frombytes("P", (width, height), ids.tobytes())
    indexed.putpalette([channel for color in colors for channel in color])
    return indexed


def test_grey_files_hold_ids(tmp_path):
    assert np.array_equal(read_label(saved(tmp_path, Image.fromarray(IDS))), IDS)


def test_palette_files_hold_indices_whatever_their_colours(tmp_path):
    colors = [(9, 9, 9), (1, 2, 3), (9, 9, 9)]  # two alike: reading by colour would merge them
    assert np.array_equal(read_label(saved(tmp_path, palette_image(IDS, colors))), IDS)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_files_hold_ids_and_are_not_scaled(tmp_path, suffix):
    wide = np.array([[0, 300, 65535], [256, 257, 1]], np.uint16)
    path = saved(tmp_path, Image.fromarray(wide), f"label.{suffix}")
    assert np.array_equal(read_label(path), wide)
    assert np.array_equal(read_instances(path), wide)


def test_big_endian_16_bit_tiff_is_read_alike(tmp_path):
    path = tmp_path / "label.tif"
    # MM: big-endian TIFF of 3 x 1 pixels, one strip behind the header.
    entries = [(256, 3, 1, 3), (257, 3, 1, 1), (258, 3, 1, 16), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8)]
    entries += [(277, 3, 1, 1), (278, 3, 1, 1), (279, 4, 1, 6)]
    directory = len(entries).to_bytes(2, "big")
    for tag, kind, count, value in entries:
        field = value.to_bytes(2, "big") + b"\0\0" if kind == 3 else value.to_bytes(4, "big")
        directory += tag.to_bytes(2, "big") + kind.to_bytes(2, "big") + count.to_bytes(4, "big") + field
    pixels = b"".join(v.to_bytes(2, "big") for v in (1, 300, 65535))
    path.write_bytes(b"MM\0*" + (14).to_bytes(4, "big") + pixels + directory + bytes(4))
    assert read_label(path).tolist() == [[1, 300, 65535]]


def test_one_bit_files_hold_classes_0_and_1(tmp_path):
    binary = np.array([[0, 1, 1], [1, 0, 0]], np.uint8)
    path = saved(tmp_path, Image.fromarray(binary * 255).convert("1"))
    assert np.array_equal(read_label(path), binary)


def test_rgb_files_are_decoded_by_the_palette_of_the_label_space(tmp_path):
    raw = np.array([[0, 3, 2], [2, 1, 0]])
    path = saved(tmp_path, Image.fromarray(SPACE.colorize(raw)))
    assert np.array_equal(read_label(path, SPACE), raw)


def test_rgb_files_without_a_label_space_are_refused(tmp_path):
    path = saved(tmp_path, Image.fromarray(SPACE.colorize(IDS)))
    with pytest.raises(LabelError, match=r"label\.png: is a colour picture \(RGB\).*classes\.json"):
        read_label(path)


def test_colours_that_the_space_does_not_have_are_counted(tmp_path):
    path = saved(tmp_path, Image.fromarray(np.full((2, 3, 3), 77, np.uint8)))
    with pytest.raises(LabelError, match=r"label\.png: 6 pixels in 1 colours.*\(77, 77, 77\): 6"):
        read_label(path, SPACE)


def test_opaque_rgba_is_read_as_rgb_and_transparency_is_refused(tmp_path):
    pixels = np.dstack([SPACE.colorize(IDS), np.full(IDS.shape, 255, np.uint8)])
    assert np.array_equal(read_label(saved(tmp_path, Image.fromarray(pixels)), SPACE), IDS)
    pixels[0, 0, 3] = 0
    with pytest.raises(LabelError, match="transparent"):
        read_label(saved(tmp_path, Image.fromarray(pixels)), SPACE)


def test_numbers_go_through_the_label_space(tmp_path):
    path = saved(tmp_path, Image.fromarray(np.array([[0, 255], [7, 2]], np.uint8)))
    space = LabelSpace(names=SPACE.names, unknown=255, remap={7: 1})
    assert read_label(path, space).tolist() == [[0, 3], [1, 2]]
    with pytest.raises(LabelError, match=r"label\.png: 1 pixels have class 7"):
        read_label(path, SPACE)


@pytest.mark.parametrize("suffix", ["jpg", "webp"])
def test_lossy_files_are_refused_as_labels_and_as_instances(tmp_path, suffix):
    path = saved(tmp_path, Image.fromarray(np.zeros((8, 8), np.uint8)), f"label.{suffix}")
    for read in (read_label, read_instances):
        with pytest.raises(LabelError, match=rf"label\.{suffix}: (JPEG|WEBP) changes pixel values.*PNG"):
            read(path)


def test_a_jpeg_called_png_is_refused(tmp_path):
    path = saved(tmp_path, Image.fromarray(np.zeros((8, 8), np.uint8)), "label.png", format="JPEG")
    with pytest.raises(LabelError, match="JPEG changes pixel values"):
        read_label(path)


@pytest.mark.parametrize("mode", ["LA", "F", "CMYK", "YCbCr", "PA"])
def test_modes_that_cannot_hold_ids_are_refused(mode):
    with pytest.raises(LabelError, match=f"mode {mode} cannot hold labels"):
        label_array(Image.new(mode, (3, 2)))


def test_a_picture_in_memory_is_called_label_map():
    with pytest.raises(LabelError, match=r"^label map: is a colour picture"):
        label_array(Image.new("RGB", (3, 2)))


def test_instances_of_rgb_files_are_numbers_of_base_256(tmp_path):
    path = saved(tmp_path, Image.fromarray(np.array([[[1, 0, 0], [0, 1, 0], [5, 6, 7]]], np.uint8)), "instance.png")
    instances = read_instances(path)
    assert instances.dtype == np.int32
    assert instances.tolist() == [[1, 256, 5 + 6 * 256 + 7 * 65536]]


def test_a_missing_file_a_folder_and_text_are_named(tmp_path):
    text = tmp_path / "label.png"
    text.write_text("no picture")
    for path, message in ((tmp_path / "none.png", "no such file"), (tmp_path, "is a folder"), (text, "cannot be read")):
        with pytest.raises(LabelError, match=message) as caught:
            read_label(path)
        assert str(path) in str(caught.value)


def test_a_truncated_file_is_refused_and_not_filled_up(tmp_path):
    noise = np.random.default_rng(0).integers(0, 3, (64, 64)).astype(np.uint8)
    path = saved(tmp_path, Image.fromarray(noise))
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(LabelError, match=r"label\.png: cannot be read"):
        read_label(path)


def test_a_header_that_claims_too_many_pixels_is_refused_before_they_are_allocated(tmp_path):
    path = tmp_path / "label.pgm"
    path.write_bytes(b"P5\n60000 60000\n255\n")
    with pytest.raises(LabelError, match="pixels"):
        open_image(path)
