"""The synthesizer: label maps in any form, samples that can be had again, and pictures."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from PIL import Image

import clade
from clade import CladeError, LabelError, LabelMap, LabelSpace, Synthesizer, create_generator
from clade.engine import Engine
from clade.io.images import save_png, sheet, to_uint8

pytestmark = pytest.mark.processor

SPACE = LabelSpace(names=("sky", "tree", "road"), colors=((70, 130, 180), (0, 100, 0), (128, 64, 128)), unknown=255)
RAW = np.array([[0, 0, 1, 1, 255], [0, 2, 2, 1, 255], [2, 2, 2, 1, 1]], np.uint8).repeat(7, 0).repeat(9, 1)
IDS = np.where(RAW == 255, 3, RAW)


def build(seed=0, **options):
    torch.manual_seed(seed)
    generator = create_generator("clade", num_classes=3, unknown_class=True, width=1, **options)
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.add_(torch.randn(parameter.shape), alpha=0.3)
    return generator


@pytest.fixture
def synthesizer():
    return Synthesizer(build(), SPACE, device="cpu", precision="fp32")


@pytest.fixture
def latent():
    return Synthesizer(
        build(z_dim=4, size=(32, 64), encoder=True, encoder_width=1), SPACE, device="cpu", precision="fp32"
    )


def expected(generator):
    with torch.no_grad():
        return generator.eval()(LabelMap(IDS))


def near(image, other):
    torch.testing.assert_close(image, other, atol=1e-4, rtol=0)  # weights here are large, and so is rounding


def test_every_form_of_label_map_gives_the_same_image(synthesizer, tmp_path):
    Image.fromarray(RAW).save(tmp_path / "grey.png")
    Image.fromarray(RAW.astype(np.uint16)).save(tmp_path / "wide.png")
    Image.fromarray(SPACE.colorize(IDS)).save(tmp_path / "rgb.png")
    forms = {
        "LabelMap, ids as inside": LabelMap(IDS),
        "path": tmp_path / "grey.png",
        "text": str(tmp_path / "grey.png"),
        "16-bit file": tmp_path / "wide.png",
        "colour file": tmp_path / "rgb.png",
        "picture": Image.fromarray(RAW),
        "colour picture": Image.fromarray(SPACE.colorize(IDS)),
        "array": IDS.astype(np.uint8),
        "array of int64": IDS,
        "array of uint16": IDS.astype(np.uint16),
        "tensor": torch.from_numpy(IDS),
        "batch": IDS[None],
        "numbers of files": synthesizer.encode_numbers(RAW),
        "numbers of files, uint16": synthesizer.encode_numbers(RAW.astype(np.uint16)),
        "numbers of files, tensor of a batch": synthesizer.encode_numbers(torch.from_numpy(RAW)[None]),
    }
    image = synthesizer(LabelMap(IDS))
    near(image, expected(build()))
    for form, label_map in forms.items():
        assert torch.equal(synthesizer(label_map), image), form


def test_the_image_is_float32_on_the_cpu_and_of_the_maps_size(synthesizer):
    image = synthesizer(IDS)
    assert image.shape == (1, 3, *IDS.shape)
    assert image.dtype == torch.float32
    assert image.device.type == "cpu"
    assert not image.requires_grad
    assert image.abs().max() <= 1


def test_a_batch_gives_one_image_per_map(synthesizer):
    other = np.roll(IDS, 9, 1)
    both = synthesizer(np.stack([IDS, other]))
    for k, one in enumerate((IDS, other)):
        torch.testing.assert_close(both[k : k + 1], synthesizer(one), atol=1e-5, rtol=0)


def test_without_a_label_space_numbers_are_the_ids_themselves(tmp_path):
    synthesizer = Synthesizer(build(), device="cpu", precision="fp32")
    near(synthesizer(IDS), expected(build()))
    assert torch.equal(synthesizer.encode_numbers(IDS).ids[0], torch.from_numpy(IDS))
    Image.fromarray(RAW).save(tmp_path / "raw.png")
    for read, form in ((synthesizer, RAW), (synthesizer.encode_numbers, RAW), (synthesizer, tmp_path / "raw.png")):
        with pytest.raises(LabelError, match=f"{(RAW == 255).sum()} pixels have class 255"):
            read(form)


ADE20K = LabelSpace(  # in the published numbers 0 is unknown and classes count from 1
    names=tuple(f"class {k}" for k in range(150)), unknown=255, remap={0: 255} | {k: k - 1 for k in range(1, 151)}
)


def test_one_tensor_means_the_same_to_generator_engine_and_synthesizer():
    torch.manual_seed(0)
    generator = create_generator("clade", num_classes=150, unknown_class=True, width=1).eval()
    ids = torch.arange(32 * 64).view(32, 64) % 151
    synthesizer = Synthesizer(generator, ADE20K, device="cpu", precision="fp32")
    with torch.no_grad():
        image = generator(ids)
    near(Engine(generator, precision="fp32")(ids), image)
    near(synthesizer(ids), image)
    near(synthesizer(ids.numpy().astype(np.uint8)), image)
    assert torch.equal(synthesizer.read(ids).ids[0], ids)
    for shifted in (ids + 1, ids - 1):  # as before, when arrays were numbers of files
        for draw in (generator, Engine(generator), synthesizer):
            with pytest.raises(LabelError, match=r"ids; numbers as label files hold them .*encode_numbers"):
                draw(shifted)


def test_numbers_of_ade20k_files_become_ids_by_name_and_as_files_do(tmp_path):
    generator = create_generator("clade", num_classes=150, unknown_class=True, width=1)
    synthesizer = Synthesizer(generator, ADE20K, device="cpu", precision="fp32")
    numbers = (np.arange(32 * 64).reshape(32, 64) % 151).astype(np.uint8)
    Image.fromarray(numbers).save(tmp_path / "label.png")
    ids = torch.from_numpy(np.where(numbers == 0, 150, numbers.astype(int) - 1))[None]
    for read in (
        synthesizer.encode_numbers(numbers),
        synthesizer.encode_numbers(torch.from_numpy(numbers)),
        synthesizer.read(tmp_path / "label.png"),
        synthesizer.read(Image.fromarray(numbers)),
    ):
        assert torch.equal(read.ids.long(), ids)
    with pytest.raises(LabelError, match="2048 pixels have class 200") as caught:
        synthesizer.encode_numbers(np.full((32, 64), 200, np.uint8))
    assert "encode_numbers" not in str(caught.value)


@pytest.mark.parametrize("wrong", [np.zeros((4, 4), np.float32), torch.zeros(1, 3, 8, 8), None, "label.png"])
def test_what_holds_no_numbers_is_not_encoded(synthesizer, wrong):
    with pytest.raises(LabelError):
        synthesizer.encode_numbers(wrong)


@pytest.mark.parametrize("form", ["path", "array", "picture", "LabelMap"])
def test_ids_outside_are_refused_in_every_form(synthesizer, tmp_path, form):
    wrong = RAW.copy()
    wrong[0, :3] = 77
    Image.fromarray(wrong).save(tmp_path / "wrong.png")
    made = {
        "path": tmp_path / "wrong.png",
        "array": np.where(wrong == 255, 3, wrong),
        "picture": Image.fromarray(wrong),
        "LabelMap": LabelMap(np.where(wrong == 255, 3, wrong)),
    }
    with pytest.raises(LabelError, match="3 pixels have class 77") as caught:
        synthesizer(made[form])
    assert form != "path" or "wrong.png" in str(caught.value)
    assert ("synthesizer.encode_numbers" in str(caught.value)) == (form in ("array", "LabelMap"))


@pytest.mark.parametrize(
    ("label_map", "message"),
    [
        (np.zeros((4, 4), np.float32), "arg-max"),
        (torch.zeros(1, 3, 8, 8), "arg-max"),
        ("nowhere.png", "no such file"),
        (None, "NoneType"),
        (np.zeros((40, 40, 3), np.uint8), "colour picture"),
    ],
    ids=["float", "one-hot", "missing file", "none", "colours"],
)
def test_what_is_no_label_map_is_refused(synthesizer, label_map, message):
    with pytest.raises(LabelError, match=message):
        synthesizer(label_map)


def test_the_generator_that_was_given_is_left_as_it_is():
    generator = build().train()
    before = {key: value.clone() for key, value in generator.state_dict().items()}
    Synthesizer(generator, device="cpu")(IDS)
    assert generator.training
    assert all(p.requires_grad for p in generator.parameters())
    assert generator.state_dict().keys() == before.keys()
    for key, value in generator.state_dict().items():
        assert torch.equal(value, before[key]), key
    generator(LabelMap(np.stack([IDS, IDS]))).sum().backward()  # it still trains


def test_later_training_does_not_reach_the_synthesizer():
    generator = build()
    synthesizer = Synthesizer(generator, device="cpu")
    before = synthesizer(IDS)
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.zero_()
    assert torch.equal(synthesizer(IDS), before)


def test_loading_a_checkpoint_needs_nothing_else(tmp_path):
    clade.save(build(), tmp_path / "g.safetensors", label_space=SPACE, recipe={"seed": 5}, info={"step": 9})
    loaded = clade.load(tmp_path / "g.safetensors", device="cpu", precision="fp32")
    near(loaded(IDS), expected(build()))
    assert loaded.recipe == {"seed": 5}
    assert loaded.info["step"] == 9
    assert loaded.label_space == SPACE


# --- Samples and styles -----------------------------------------------------------------------------------------------


def test_a_seed_gives_the_same_image_again_and_another_seed_another(latent):
    assert torch.equal(latent(IDS, seed=3), latent(IDS, seed=3))
    assert not torch.allclose(latent(IDS, seed=3), latent(IDS, seed=4))
    assert not torch.allclose(latent(IDS), latent(IDS))


def test_a_list_of_files_pictures_and_maps_is_a_batch(tmp_path, synthesizer):
    Image.fromarray(RAW[::-1].astype(np.uint8)).save(tmp_path / "other.png")
    drawn = synthesizer([tmp_path / "other.png", LabelMap(IDS), Image.fromarray(RAW.astype(np.uint8))])
    assert torch.equal(drawn, synthesizer(np.stack([IDS[::-1], IDS, IDS])))
    assert len(synthesizer.pictures([str(tmp_path / "other.png")])) == 1
    near(synthesizer([torch.from_numpy(IDS)] * 2), drawn[1:])
    near(synthesizer([IDS.tolist()]), drawn[1:2])  # numbers in lists are one array, as before
    with pytest.raises(LabelError, match="different sizes"):
        synthesizer([LabelMap(IDS), LabelMap(IDS[:10])])


def test_a_seed_neither_reads_nor_moves_the_global_random_numbers(latent):
    torch.manual_seed(1)
    first = latent(IDS, seed=3)
    after = torch.rand(3)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(3), after)
    torch.manual_seed(2)
    assert torch.equal(latent(IDS, seed=3), first)


def test_the_first_of_a_batch_is_the_image_of_the_same_seed_alone(latent):
    both = latent(np.stack([IDS, IDS]), seed=3)
    torch.testing.assert_close(both[:1], latent(IDS, seed=3), atol=1e-5, rtol=0)
    assert not torch.allclose(both[0], both[1])


def test_a_seed_makes_no_difference_where_nothing_is_random(synthesizer):
    assert torch.equal(synthesizer(IDS, seed=1), synthesizer(IDS, seed=2))


def test_a_style_photo_in_every_form_gives_the_same_image(latent, tmp_path):
    photo = np.random.default_rng(0).integers(0, 256, (24, 40, 3)).astype(np.uint8)
    Image.fromarray(photo).save(tmp_path / "photo.png")
    tensor = torch.from_numpy(photo).movedim(2, 0).float() / 127.5 - 1
    image = latent(IDS, style=tensor)
    for form in (tmp_path / "photo.png", str(tmp_path / "photo.png"), Image.fromarray(photo), photo, tensor[None]):
        assert torch.equal(latent(IDS, style=form), image)
    assert torch.equal(latent(IDS, style=photo, seed=4), image)  # nothing is left to draw
    assert not torch.allclose(latent(IDS, style=255 - photo), image)


@pytest.mark.parametrize(
    "style", [torch.zeros(1, 8, 8), torch.zeros(8, 8), np.zeros((8, 8, 3)), np.zeros((8, 8), np.uint8), 5]
)
def test_what_is_no_style_photo_is_refused(latent, style):
    with pytest.raises(CladeError, match="A style"):
        latent(IDS, style=style)


def test_a_style_of_byte_values_is_refused_and_not_taken_for_minus_one_to_one(latent):
    with pytest.raises(CladeError, match=r"A style"):
        latent(IDS, style=torch.full((3, 8, 8), 200, dtype=torch.uint8))


def test_a_missing_style_photo_is_named(latent, tmp_path):
    with pytest.raises(CladeError, match=r"none\.png"):
        latent(IDS, style=tmp_path / "none.png")


def test_a_style_is_refused_where_no_encoder_is(synthesizer):
    with pytest.raises(CladeError, match="no latent input"):
        synthesizer(IDS, style=torch.zeros(3, 8, 8))
    with pytest.raises(CladeError, match="no style encoder"):
        Synthesizer(build(z_dim=4, size=(32, 64)), SPACE, device="cpu")(IDS, style=torch.zeros(3, 8, 8))


# --- Device and precision ---------------------------------------------------------------------------------------------


def test_bf16_is_near_fp32_and_comes_back_as_float32(synthesizer):
    half = Synthesizer(build(), SPACE, device="cpu", precision="bf16")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = half(IDS)
    assert image.dtype == torch.float32
    difference = (image - synthesizer(IDS)).abs()
    assert difference.mean() < 0.02
    assert difference.any()  # it did compute in another precision


@pytest.mark.parametrize(("instructions", "expected"), [("avx2", "fp32"), ("avx512-bf16", "bf16"), ("amx", "bf16")])
def test_auto_on_a_cpu_is_bf16_where_the_processor_multiplies_in_it(monkeypatch, instructions, expected):
    monkeypatch.setattr("clade.system.processor.instruction_set", lambda: instructions)
    assert Synthesizer(build(), device="cpu").precision == expected


@pytest.mark.parametrize("device", ["gpu", "cuda:x", ""])
def test_an_unknown_device_is_refused(device):
    with pytest.raises(CladeError, match=r"no device.*auto, cpu, cuda"):
        Synthesizer(build(), device=device)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_is_refused_where_there_is_none():
    with pytest.raises(CladeError, match="finds no CUDA device"):
        Synthesizer(build(), device="cuda")


def test_an_unknown_precision_is_refused():
    with pytest.raises(CladeError, match=r"no precision 'fp16'.*auto, fp32, bf16"):
        Synthesizer(build(), device="cpu", precision="fp16")


def test_a_label_space_of_another_number_of_classes_is_refused():
    with pytest.raises(CladeError, match="label space has 5 ids, the generator 4"):
        Synthesizer(build(), LabelSpace.numbered(5), device="cpu")


# --- Pictures ---------------------------------------------------------------------------------------------------------


def test_pictures_are_the_images_in_bytes(synthesizer):
    (picture,) = synthesizer.pictures(IDS)
    assert picture.mode == "RGB"
    assert picture.size == IDS.shape[::-1]
    np.testing.assert_array_equal(np.asarray(picture), to_uint8(synthesizer(IDS))[0])


def test_minus_one_to_one_becomes_0_to_255():
    values = torch.tensor([-2.0, -1.0, 0.0, 1.0, 3.0]).view(1, 1, 5).expand(3, 1, 5)
    assert to_uint8(values)[0, :, 0].tolist() == [0, 0, 128, 255, 255]
    assert to_uint8(values.bfloat16()).dtype == np.uint8
    assert to_uint8(torch.zeros(2, 3, 4, 5)).shape == (2, 4, 5, 3)


def test_every_byte_survives_the_way_through_minus_one_to_one():
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16)[..., None].repeat(3, 2)
    image = torch.from_numpy(pixels).movedim(2, 0).float() / 127.5 - 1
    np.testing.assert_array_equal(to_uint8(image), pixels)


def test_a_png_holds_the_pixels(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)
    save_png(pixels, tmp_path / "new" / "image.png")
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "new" / "image.png")), pixels)
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["image.png"]


def test_a_sheet_holds_every_picture_whole_and_is_white_elsewhere():
    rng = np.random.default_rng(0)
    sizes = [[(4, 6), (3, 2)], [(5, 5)], [(2, 9), (6, 1), (1, 1)]]
    rows = [[rng.integers(0, 200, (*size, 3)).astype(np.uint8) for size in row] for row in sizes]
    page = sheet(rows, gap=2)
    assert page.shape == (2 + 4 + 2 + 5 + 2 + 6 + 2, 2 + 9 + 2 + 2 + 2 + 1 + 2, 3)
    covered = np.zeros(page.shape[:2], bool)
    for row, top in zip(rows, (2, 8, 15), strict=True):
        for picture, left in zip(row, (2, 13, 17), strict=False):
            height, width = picture.shape[:2]
            np.testing.assert_array_equal(page[top : top + height, left : left + width], picture)
            covered[top : top + height, left : left + width] = True
    assert (page[~covered] == 255).all()


def test_ids_of_another_label_space_are_told_so_without_recipe_keys():
    space = LabelSpace(names=("sky", "road"))
    synthesizer = Synthesizer(create_generator("clade", num_classes=2, width=2), space)
    with pytest.raises(
        LabelError, match=r"1 pixels have class 7.*\(sky, road\) that this generator was trained with"
    ) as e:
        synthesizer(np.array([[0, 7]], np.uint8))
    assert "data." not in str(e.value)
