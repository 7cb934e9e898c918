"""Styles, samples and interpolation: through the Synthesizer, and from folders."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

import clade
from clade import CladeError, LabelMap, LabelSpace, Synthesizer, create_generator
from clade.synthesis import generate
from clade.synthesis.styles import labels_beside

SPACE = LabelSpace(names=("sky", "tree", "road"))


def moved(generator, seed=0):
    """Weights away from their start, where zeros hide inputs."""
    source = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=source), alpha=0.2)
    return generator.eval()


def latent_clade(**options):
    torch.manual_seed(0)
    return moved(create_generator("clade", num_classes=3, width=2, z_dim=4, size=(64, 64), encoder_width=2, **options))


def sean():
    torch.manual_seed(0)
    return moved(create_generator("sean", num_classes=3, width=2, style_dim=5, hidden=4, encoder_width=2))


def groupdnet():
    torch.manual_seed(0)
    return moved(create_generator("groupdnet", num_classes=3, width=2, encoder=True, encoder_width=12))


def ids(height=64, width=64):
    """Three classes in stripes, each 1/3 of the height."""
    return torch.arange(3).repeat_interleave(22)[:height].view(1, height, 1).repeat(1, 1, width)


def photo(seed, size=(40, 56)):
    return torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def labels_of(image):
    return LabelMap(ids(66)[:, :: 66 // image.shape[2] or 1][:, : image.shape[2], : image.shape[3]])


@pytest.fixture(params=["clade", "sean", "groupdnet"])
def synthesizer(request):
    make = {"clade": lambda: latent_clade(encoder=True), "sean": sean, "groupdnet": groupdnet}
    return Synthesizer(make[request.param](), SPACE, device="cpu")


def style(synthesizer, seed):
    image = photo(seed)
    return (image, labels_of(image)) if synthesizer.generator.regional else image


def test_a_latent_is_what_style_and_seed_stand_for(synthesizer):
    maps = LabelMap(ids())
    z = synthesizer.latent(maps, style(synthesizer, 1))
    assert z.shape == (1, *synthesizer.generator.latent_shape((64, 64)))
    assert torch.equal(synthesizer(maps, z=z, seed=3), synthesizer(maps, style(synthesizer, 1), seed=3))
    z = synthesizer.latent(maps, seed=5)
    assert torch.equal(synthesizer(maps, z=z, seed=5), synthesizer(maps, seed=5))


def test_a_seed_fixes_the_image_and_another_gives_another(synthesizer):
    maps = LabelMap(ids())
    assert torch.equal(synthesizer(maps, seed=1), synthesizer(maps, seed=1))
    assert not torch.equal(synthesizer(maps, seed=1), synthesizer(maps, seed=2))


def test_without_a_seed_every_image_is_another_and_global_random_numbers_stay(synthesizer):
    maps = LabelMap(ids())
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    assert not torch.equal(synthesizer(maps), synthesizer(maps))
    assert torch.equal(torch.rand(1), expected)


def test_styles_of_two_photos_differ_and_steps_lead_from_one_to_the_other(synthesizer):
    maps = LabelMap(ids())
    ends = [synthesizer.latent(maps, style(synthesizer, seed)) for seed in (1, 2)]
    assert not torch.allclose(*ends)
    steps = synthesizer.interpolate(*ends, 3)
    torch.testing.assert_close(steps[0], ends[0])
    torch.testing.assert_close(steps[2], ends[1])
    assert not torch.allclose(steps[1], ends[0])
    with pytest.raises(CladeError, match="at least 2"):
        synthesizer.interpolate(*ends, 1)


def test_the_middle_of_two_samples_is_as_long_as_they_are():
    generator = latent_clade()
    a, b = torch.randn(2, 2, 64)
    middle = generator.interpolate(a, b, 0.5)
    between = (a.norm(dim=1) + b.norm(dim=1)) / 2
    torch.testing.assert_close(middle.norm(dim=1), between, rtol=1e-4, atol=0)
    torch.testing.assert_close(generator.interpolate(a, a, 0.3), a)


def test_variations_of_a_style_follow_the_seed_around_its_mean():
    synthesizer = Synthesizer(latent_clade(encoder=True), SPACE, device="cpu")
    maps, image = LabelMap(ids()), photo(1)
    mean = synthesizer.latent(maps, image)
    varied = [synthesizer.latent(maps, image, seed, vary=True) for seed in (1, 1, 2)]
    assert torch.equal(varied[0], varied[1])
    assert not torch.equal(varied[0], varied[2])
    assert not torch.equal(varied[0], mean)


@pytest.mark.parametrize("make", [sean, groupdnet])
def test_a_class_takes_its_style_from_its_own_photo(make):
    synthesizer = Synthesizer(make(), SPACE, device="cpu")
    maps = LabelMap(ids())
    base, other = ((photo(seed), labels_of(photo(seed))) for seed in (1, 2))
    mixed = synthesizer.latent(maps, {"*": base, "tree": other})
    rows = mixed.view(3, -1)
    torch.testing.assert_close(rows[0], synthesizer.latent(maps, base).view(3, -1)[0])
    torch.testing.assert_close(rows[1], synthesizer.latent(maps, other).view(3, -1)[1])
    torch.testing.assert_close(rows, synthesizer.latent(maps, {"*": base, 1: other}).view(3, -1))


@pytest.mark.parametrize("make", [sean, groupdnet])
def test_a_photo_given_for_a_class_counts_as_that_class_all_over(make):
    synthesizer = Synthesizer(make(), SPACE, device="cpu")
    maps, image = LabelMap(ids()), photo(2)
    everywhere = LabelMap(torch.full((1, *image.shape[2:]), 2))
    told = synthesizer.latent(maps, {"road": (image, everywhere)}, seed=4)
    torch.testing.assert_close(synthesizer.latent(maps, {"road": image}, seed=4), told)


def test_a_photo_of_another_size_than_the_map_gives_its_style():
    synthesizer = Synthesizer(groupdnet(), SPACE, device="cpu")
    maps, image = LabelMap(ids(66, 128)), photo(1, (256, 192))
    own = LabelMap(torch.arange(3).repeat_interleave(86)[:256].view(1, 256, 1).repeat(1, 1, 192))
    z = synthesizer.latent(maps, (image, own))
    assert z.shape == (1, *synthesizer.generator.latent_shape((66, 128)))
    assert synthesizer(maps, z=z).isfinite().all()
    assert torch.equal(synthesizer.latent(maps, {0: (image, own)}, seed=1)[:, :8], z[:, :8])


def test_latents_are_not_the_network_s_own_memory():
    synthesizer = Synthesizer(sean(), SPACE, device="cpu")
    z = synthesizer.latent(LabelMap(ids().repeat(2, 1, 1)))
    z += 1
    assert not synthesizer.generator.style_mean.any()


def test_as_many_style_photos_as_label_maps_or_one():
    synthesizer = Synthesizer(latent_clade(encoder=True), SPACE, device="cpu")
    with pytest.raises(CladeError, match="2 style photos came for 3 label maps"):
        synthesizer(LabelMap(ids().repeat(3, 1, 1)), torch.cat([photo(1), photo(2)]))


@pytest.mark.parametrize("make", [sean, groupdnet])
def test_a_style_per_class_needs_to_know_what_is_where_in_the_photo(make, tmp_path):
    synthesizer = Synthesizer(make(), SPACE, device="cpu")
    with pytest.raises(CladeError, match=r"came without its label map.*--style-labels.*images/.*labels/"):
        synthesizer(LabelMap(ids()), photo(1))
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (44, 44, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "images" / "a.png")
    Image.fromarray(ids(44, 44)[0].numpy().astype(np.uint8)).save(tmp_path / "labels" / "a.png")
    beside = synthesizer.latent(LabelMap(ids()), tmp_path / "images" / "a.png")
    given = synthesizer.latent(LabelMap(ids()), (pixels, ids(44, 44)[0].numpy()))
    torch.testing.assert_close(beside, given)


def test_labels_of_a_style_photo_are_ids_as_an_array_and_numbers_as_a_file(tmp_path):
    """In files, classes count from 1."""
    space = LabelSpace(names=SPACE.names, remap={k + 1: k for k in range(3)})
    synthesizer = Synthesizer(groupdnet(), space, device="cpu")
    image, own = photo(1, (64, 64)), ids()[0]
    Image.fromarray((own + 1).numpy().astype(np.uint8)).save(tmp_path / "a.png")
    latents = [
        synthesizer.latent(maps, (image, labels))
        for maps, labels in (
            (own, own),
            (own.numpy(), own.numpy()),
            (tmp_path / "a.png", tmp_path / "a.png"),
            (synthesizer.encode_numbers(own + 1), Image.open(tmp_path / "a.png")),
        )
    ]
    for latent in latents[1:]:
        assert torch.equal(latent, latents[0])
    assert not torch.equal(synthesizer.latent(own, (image, (own + 1) % 3)), latents[0])


def test_label_files_are_found_beside_photos_only(tmp_path):
    for folder in ("images/deep", "labels/deep"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "labels/deep/a.png").touch()
    assert labels_beside(tmp_path / "images/deep/a.jpg") == tmp_path / "labels/deep/a.png"
    assert labels_beside(tmp_path / "images/deep/b.jpg") is None
    assert labels_beside(tmp_path / "a.jpg") is None


def test_wrong_styles_are_refused():
    plain = Synthesizer(moved(create_generator("clade", num_classes=3, width=2)), SPACE, device="cpu")
    one_style = Synthesizer(latent_clade(encoder=True), SPACE, device="cpu")
    many = Synthesizer(sean(), SPACE, device="cpu")
    maps = LabelMap(ids())
    with pytest.raises(CladeError, match="no latent input"):
        plain(maps, photo(1))
    with pytest.raises(CladeError, match="one style for the whole picture"):
        one_style(maps, {"sky": photo(1)})
    with pytest.raises(CladeError, match=r"'sly', and there is no such class. Did you mean 'sky'"):
        many(maps, {"sly": photo(1)})
    with pytest.raises(CladeError, match=r"label map of the style photo  is 66x64, the photo is 40x56"):
        many(maps, (photo(1), ids(66)))
    with pytest.raises(CladeError, match="has no class 'road'"):
        many(maps, {"road": (photo(1), torch.zeros(40, 56, dtype=torch.uint8))})
    with pytest.raises(CladeError, match="z and a style were both given"):
        one_style(maps, photo(1), z=torch.zeros(1, 4))


# --- Folders ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def labels(tmp_path):
    folder = tmp_path / "labels"
    folder.mkdir()
    for name in ("a", "b"):
        Image.fromarray(ids()[0].numpy().astype(np.uint8)).save(folder / f"{name}.png")
    return folder


def pixels(path):
    return np.asarray(Image.open(path)).astype(int)


def test_samples_are_numbered_and_each_is_that_seed_s_image(labels, tmp_path):
    synthesizer = Synthesizer(latent_clade(), SPACE, device="cpu")
    outcome = generate(synthesizer, [labels], tmp_path / "out", samples=3, seed=7, grid=True)
    assert [path.name for path in outcome.written] == [f"{name}-{k}.png" for name in "ab" for k in (1, 2, 3)]
    assert outcome.seeds == [7, 8, 9]
    generate(synthesizer, [labels / "a.png"], tmp_path / "one", seed=8)
    assert np.array_equal(pixels(tmp_path / "one/a.png"), pixels(tmp_path / "out/a-2.png"))
    assert not np.array_equal(pixels(tmp_path / "out/a-1.png"), pixels(tmp_path / "out/a-2.png"))
    grid = pixels(outcome.grid)
    assert grid.shape == (2 * 64 + 3 * 4, 4 * 64 + 5 * 4, 3)  # label and three samples, for two maps


def test_steps_lead_from_one_seed_to_another(labels, tmp_path):
    synthesizer = Synthesizer(latent_clade(), SPACE, device="cpu")
    generate(synthesizer, [labels / "a.png"], tmp_path / "way", samples=4, seed=1, to=2)
    for k, seed in ((1, 1), (4, 2)):
        generate(synthesizer, [labels / "a.png"], tmp_path / "end", seed=seed)
        assert np.abs(pixels(tmp_path / f"way/a-{k}.png") - pixels(tmp_path / "end/a.png")).max() <= 1


def test_without_a_seed_the_samples_say_which_they_were(labels, tmp_path):
    synthesizer = Synthesizer(latent_clade(), SPACE, device="cpu")
    outcome = generate(synthesizer, [labels / "a.png"], tmp_path / "out", samples=2)
    generate(synthesizer, [labels / "a.png"], tmp_path / "again", samples=2, seed=outcome.seeds[0])
    way = generate(synthesizer, [labels / "a.png"], tmp_path / "way", samples=2, to=3)
    assert len(way.seeds) == 1
    for k in (1, 2):
        assert np.array_equal(pixels(tmp_path / f"out/a-{k}.png"), pixels(tmp_path / f"again/a-{k}.png"))


def test_several_samples_of_a_network_without_variety_are_refused(labels, tmp_path):
    plain = Synthesizer(moved(create_generator("clade", num_classes=3, width=2)), SPACE, device="cpu")
    with pytest.raises(CladeError, match="draws one image of each label map"):
        generate(plain, [labels], tmp_path / "out", samples=2)
    latent = Synthesizer(latent_clade(), SPACE, device="cpu")
    with pytest.raises(CladeError, match="samples is 0"):
        generate(latent, [labels], tmp_path / "out", samples=0)
    with pytest.raises(CladeError, match="at least its two ends"):
        generate(latent, [labels], tmp_path / "out", to=3)
    assert not (tmp_path / "out").exists()


def test_a_sample_that_would_overwrite_a_label_file_is_refused(labels):
    Image.open(labels / "a.png").save(labels / "a-1.png")
    latent = Synthesizer(latent_clade(), SPACE, device="cpu")
    with pytest.raises(CladeError, match="would be written over"):
        generate(latent, [labels], labels, samples=2)


def test_the_style_photo_is_not_written_over(labels, tmp_path):
    synthesizer = Synthesizer(latent_clade(encoder=True), SPACE, device="cpu")
    (tmp_path / "out").mkdir()
    for name in ("a.png", "b-2.png"):
        Image.new("RGB", (32, 32)).save(tmp_path / "out" / name)
    with pytest.raises(CladeError, match="would be written over"):
        generate(synthesizer, [labels], tmp_path / "out", style=tmp_path / "out/a.png")
    with pytest.raises(CladeError, match="would be written over"):
        generate(synthesizer, [labels], tmp_path / "out", samples=2, seed=1, to=tmp_path / "out/b-2.png")


def test_the_public_names_are_there():
    assert callable(clade.export_official)
    assert callable(clade.import_official)
