"""The command line: what each command prints, writes and returns."""

import contextlib
import io
import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import clade
from clade.cli import COMMANDS, main
from clade.data import scenes

TINY = [
    "--data.size=[32, 64]",
    '--data.options={"count": 4, "val_count": 2}',
    "--generator.width=2",
    "--discriminator.width=4",
    "--training.batch_size=2",
    "--training.calibrate=2",
    "--training.accelerator=cpu",
    "--training.precision=fp32",
]


@pytest.fixture
def call(capsys):
    """``call(*words)`` -> (exit code, stdout, stderr)"""

    def run(*words):
        capsys.readouterr()
        try:
            code = main([str(word) for word in words])
        except SystemExit as leave:  # argparse's help
            code = leave.code
        out, err = capsys.readouterr()
        return code, out, re.sub(r"\ADrawing \d+ label maps?.*: cpu, .*\n", "", err)  # as every drawing begins

    return run


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A run's folder, after two steps."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    with contextlib.redirect_stdout(io.StringIO()):
        assert main(["train", "scenes-tiny", f"--out={folder}", *TINY, "--training.steps=2", "--quiet"]) == 0
    return folder


@pytest.fixture(scope="session")
def styled(tmp_path_factory):
    """A checkpoint of a multi-modal generator, untrained."""
    path = tmp_path_factory.mktemp("styled") / "styled.safetensors"
    generator = clade.create_generator("clade", num_classes=3, width=2, z_dim=4, size=(32, 32))
    clade.save(generator, path)
    return path


def write_dataset(folder, names=("a", "b"), size=(32, 64), instances=True, images=True):
    """Drawn scenes as a dataset folder."""
    for number, name in enumerate(names):
        scene = scenes.draw_scene(number, height=size[0], width=size[1])
        parts = {"labels": scene.ids}
        if images:
            parts["images"] = scene.image
        if instances:
            parts["instances"] = scene.instances.astype(np.uint16)
        for part, pixels in parts.items():
            path = folder / part / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    space = {"names": list(scenes.NAMES), "unknown": scenes.UNKNOWN}
    (folder / "classes.json").write_text(json.dumps(space))
    return folder


@pytest.fixture
def dataset(tmp_path):
    return write_dataset(tmp_path / "data")


def pictures(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def one_line_error(err):
    assert err.startswith("clade: error: ")
    assert len(err.strip().splitlines()) == 1, err
    assert "Traceback" not in err
    return err


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_help_lists_every_command(call, words):
    code, out, _ = call(*words)
    assert code == 0
    for name, (_, _, summary) in COMMANDS.items():
        assert f"  {name} " in out
        assert summary in out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(call, name):
    code, out, err = call(*name.split(), "--help")
    assert code == 0
    assert err == ""
    assert out.startswith(f"usage: clade {name}")
    assert COMMANDS[name][2].lower() in " ".join(out.split()).lower()


def test_the_help_of_train_explains_the_recipe(call):
    _, out, _ = call("train", "--help")
    assert "--training.batch_size" in out
    assert "Pictures per device and backward pass" in " ".join(out.split())


def test_version(call):
    assert call("--version") == (0, f"clade {clade.__version__}\n", "")


def test_the_package_runs_as_a_module_without_loading_torch_for_the_version():
    run = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "clade", "--version"], capture_output=True, text=True
    )
    assert run.returncode == 0
    assert run.stdout == f"clade {clade.__version__}\n"
    assert not any(line.split("|")[-1].strip() == "torch" for line in run.stderr.splitlines())


@pytest.mark.parametrize(
    ("words", "meant"), [(["trian"], "train"), (["genrate", "x"], "generate"), (["data", "chek"], "data check")]
)
def test_an_unknown_command_is_refused_with_the_nearest_one(call, words, meant):
    code, _, err = call(*words)
    assert code == 2
    assert f"Did you mean '{meant}'?" in one_line_error(err)


@pytest.mark.parametrize(
    "words",
    [
        ["generate", "x.safetensors"],
        ["info"],
        ["info", "a", "b"],
        ["data", "check"],
        ["train"],
        ["info", "x", "--jsn"],
        ["generate", "x", "y", "--out", "z", "--seed", "one"],
    ],
)
def test_wrong_words_are_refused_in_one_line(call, words):
    code, out, err = call(*words)
    assert code == 2
    assert out == ""
    assert "--help`" in one_line_error(err)


def test_train_writes_a_run_and_names_its_checkpoint(call, tmp_path):
    folder = tmp_path / "run"
    code, out, _ = call("train", "scenes-tiny", "--out", folder, *TINY, "--training.steps", "2", "--quiet")
    assert code == 0
    assert out == f"{folder / 'last.safetensors'}\n"
    names = {path.name for path in folder.iterdir()}
    assert names == {"last.safetensors", "best.safetensors", "state.safetensors", "samples", "tensorboard"}
    assert pictures(folder / "samples") == ["step-0000002.png"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["scenes-tyni"], "Did you mean 'scenes-tiny'?"),
        (["no/such.yaml"], "no/such.yaml: no such recipe file"),
        (["scenes-tiny", "--training.stpes", "2"], "Did you mean 'training.steps'?"),
        (["scenes-tiny", "--training.steps", "two"], "training.steps"),
        (["scenes-tiny", "--training.steps"], "training.steps"),
        (["scenes-tiny", "stray"], "stray"),
        (["scenes-tiny", "--generator.name", "clad"], "Did you mean 'clade'?"),
        (["scenes-tiny", "--data.name", "folder", "--data.options", "{}"], "needs the option 'root'"),
        (["scenes-tiny", "--losses.adversarial", "hinged"], "Did you mean 'hinge'?"),
        (["scenes-tiny", "--losses.perceptual", "1", "--losses.vgg_weights", "none.pth"], "none.pth: no such file"),
    ],
)
def test_a_wrong_recipe_is_refused_in_one_line(call, tmp_path, words, said):
    code, _, err = call("train", words[0], "--out", tmp_path / "run", *TINY, *words[1:])
    assert code == 1
    assert said in one_line_error(err)
    assert "unexpected" not in err
    assert not (tmp_path / "run").exists()


def test_the_recipe_comes_before_its_overrides(call):
    code, _, err = call("train", "--training.steps", "4", "scenes-tiny")
    assert code == 2
    assert "the recipe comes first" in one_line_error(err)


def test_debug_shows_the_traceback_of_an_error(tmp_path):
    with pytest.raises(clade.CheckpointError):
        main(["info", str(tmp_path / "none.safetensors"), "--debug"])
    run = subprocess.run(
        [sys.executable, "-m", "clade", "--debug", "info", str(tmp_path / "none.safetensors")],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 1
    assert "Traceback" in run.stderr
    assert "CheckpointError" in run.stderr


def test_an_error_of_ours_is_one_line_that_says_how_to_see_more(call, monkeypatch):
    def broken(args, rest):
        raise ZeroDivisionError("a bug\nin two lines")

    monkeypatch.setitem(COMMANDS, "info", (broken, COMMANDS["info"][1], "x"))
    code, _, err = call("info", "x")
    assert code == 1
    assert one_line_error(err) == (
        "clade: error: unexpected ZeroDivisionError: a bug in two lines (--debug shows where)\n"
    )


def test_ctrl_c_leaves_quietly(call, monkeypatch):
    def interrupted(args, rest):
        raise KeyboardInterrupt

    monkeypatch.setitem(COMMANDS, "info", (interrupted, COMMANDS["info"][1], "x"))
    assert call("info", "x") == (130, "", "clade: interrupted\n")


def test_info_tells_what_a_checkpoint_holds(call, trained):
    code, out, _ = call("info", trained / "last.safetensors")
    assert code == 0
    assert "clade-icpe" in out
    assert "scenes-tiny (data scenes, size 32x64)" in out
    assert "12: sky, cloud" in out
    assert "step 2" in out


def test_info_for_programs(call, trained):
    code, out, _ = call("info", trained / "best.safetensors", "--json")
    assert code == 0
    facts = json.loads(out)
    assert facts["generator"] == "clade-icpe"
    assert facts["classes"] == 12
    assert facts["recipe"]["generator"]["width"] == 2
    assert facts["info"]["val_l1"] > 0
    loaded = clade.load(trained / "best.safetensors", device="cpu")
    assert facts["parameters"] == sum(
        p.numel() for p in clade.read_checkpoint(trained / "best.safetensors").generator.parameters()
    )
    assert facts["label_space"] == json.loads(json.dumps(loaded.label_space.to_dict()))


def test_info_of_what_is_no_checkpoint(call, trained, tmp_path):
    code, _, err = call("info", trained / "state.safetensors")
    assert code == 1
    assert "holds a training state, not a generator" in one_line_error(err)
    (tmp_path / "x.safetensors").write_text("nothing")
    code, _, err = call("info", tmp_path / "x.safetensors")
    assert code == 1
    assert "x.safetensors: not a safetensors file, or damaged" in one_line_error(err)


def test_generate_draws_a_file_at_its_own_size(call, trained, tmp_path):
    write_dataset(tmp_path / "data", names=["street"], size=(50, 70))
    label = tmp_path / "data" / "labels" / "street.png"
    code, out, err = call("generate", trained / "last.safetensors", label, "--out", tmp_path / "out")
    assert (code, err) == (0, "")
    assert out == f"1 images in {tmp_path / 'out'}\n"
    assert pictures(tmp_path / "out") == ["street.png"]
    drawn = Image.open(tmp_path / "out" / "street.png")
    assert drawn.size == (70, 50)
    assert drawn.mode == "RGB"
    expected = clade.load(trained / "last.safetensors", device="cpu").pictures(label)[0]
    assert np.array_equal(np.asarray(drawn), np.asarray(expected))


@pytest.mark.parametrize("given", ["folder", "dataset", "pattern", "files"])
def test_generate_takes_folders_datasets_patterns_and_files(call, trained, dataset, tmp_path, given):
    labels = dataset / "labels"
    words = {
        "folder": [labels],
        "dataset": [dataset],
        "pattern": [labels / "*.png"],
        "files": [labels / "a.png", labels / "b.png"],
    }[given]
    code, _, err = call("generate", trained / "last.safetensors", *words, "--out", tmp_path / "out")
    assert (code, err) == (0, "")
    assert pictures(tmp_path / "out") == ["a.png", "b.png"]


def test_generate_keeps_the_folders_below_the_given_one(call, trained, tmp_path):
    write_dataset(tmp_path / "data", names=["bonn/000", "ulm/000"])
    code, _, _ = call("generate", trained / "last.safetensors", tmp_path / "data", "--out", tmp_path / "out")
    assert code == 0
    assert pictures(tmp_path / "out") == ["bonn/000.png", "ulm/000.png"]


def test_generate_names_the_files_that_are_no_label_maps(call, trained, dataset, tmp_path):
    (dataset / "labels" / "notes.txt").write_text("x")
    shutil.copy(dataset / "images" / "a.png", dataset / "labels" / "photo.jpg")
    code, _, err = call("generate", trained / "last.safetensors", dataset / "labels", "--out", tmp_path / "out")
    assert code == 0
    assert sorted(err.splitlines()) == [
        f"Not a label map, left out: {dataset / 'labels' / 'notes.txt'}",
        f"Not a label map, left out: {dataset / 'labels' / 'photo.jpg'}",
    ]
    assert pictures(tmp_path / "out") == ["a.png", "b.png"]


def broken_bytes(dataset):
    (dataset / "labels" / "b.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    return "labels/b.png"


def broken_number(dataset):
    Image.fromarray(np.full((32, 64), 77, np.uint8)).save(dataset / "labels" / "b.png")
    return "labels/b.png"


def broken_empty(dataset):
    (dataset / "labels" / "b.png").write_bytes(b"")
    return "labels/b.png"


@pytest.mark.parametrize("broken", [broken_bytes, broken_number, broken_empty])
def test_one_broken_label_file_does_not_keep_the_others_from_being_drawn(call, trained, tmp_path, broken):
    dataset = write_dataset(tmp_path / "data", names=["a", "b", "c"])
    name = broken(dataset)
    code, out, err = call("generate", trained / "last.safetensors", dataset, "--out", tmp_path / "out")
    assert code == 1
    assert str(dataset / name) in one_line_error(err)
    assert out == f"2 images in {tmp_path / 'out'}; 1 label maps failed\n"
    assert pictures(tmp_path / "out") == ["a.png", "c.png"]


@pytest.fixture(scope="session")
def edged(tmp_path_factory):
    """A checkpoint of a generator that sees instance edges, untrained, with weights large enough to show them."""
    path = tmp_path_factory.mktemp("edged") / "edged.safetensors"
    generator = clade.create_generator("clade", num_classes=12, unknown_class=True, width=2, instance_edges=True)
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in generator.parameters():
            p.add_(torch.randn(p.shape, generator=random), alpha=0.1)
    clade.save(generator, path, clade.LabelSpace(names=scenes.NAMES, unknown=scenes.UNKNOWN))
    return path


def test_instances_of_another_size_are_reported_with_the_label_file(call, edged, tmp_path):
    dataset = write_dataset(tmp_path / "data", names=["a", "b"])
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(dataset / "instances" / "a.png")
    code, _, err = call("generate", edged, dataset, "--out", tmp_path / "out")
    assert code == 1
    assert str(dataset / "labels" / "a.png") in one_line_error(err)
    assert pictures(tmp_path / "out") == ["b.png"]


def test_the_instances_beside_the_labels_are_used(call, edged, tmp_path):
    dataset = write_dataset(tmp_path / "data", names=["a"])
    instances = np.tile(np.arange(64, dtype=np.uint8) // 7, (32, 1))
    Image.fromarray(instances).save(dataset / "instances" / "a.png")
    shutil.copytree(dataset / "labels", tmp_path / "alone")
    assert call("generate", edged, dataset, "--out", tmp_path / "with")[0] == 0
    assert call("generate", edged, tmp_path / "alone", "--out", tmp_path / "without")[0] == 0
    drawn = [np.asarray(Image.open(tmp_path / part / "a.png")) for part in ("with", "without")]
    scene = scenes.draw_scene(0, height=32, width=64)
    synthesizer = clade.load(edged, device="cpu")
    label_map = clade.LabelMap(synthesizer.label_space.encode(scene.ids), instances)
    expected = np.asarray(synthesizer.pictures(label_map)[0])
    assert np.array_equal(drawn[0], expected)
    assert not np.array_equal(drawn[1], expected)


def test_two_label_files_of_one_name_are_refused_before_anything_is_drawn(call, trained, dataset, tmp_path):
    other = write_dataset(tmp_path / "other")
    code, _, err = call("generate", trained / "last.safetensors", dataset, other, "--out", tmp_path / "out")
    assert code == 1
    message = one_line_error(err)
    assert str(dataset / "labels" / "a.png") in message
    assert str(other / "labels" / "a.png") in message
    assert not (tmp_path / "out").exists()


def test_a_file_given_twice_is_drawn_once(call, trained, dataset, tmp_path):
    label = dataset / "labels" / "a.png"
    code, out, _ = call("generate", trained / "last.safetensors", label, label, "--out", tmp_path / "out")
    assert code == 0
    assert out.startswith("1 images")


@pytest.mark.parametrize("part", ["labels", "images", "instances"])
def test_generate_never_writes_over_what_it_reads(call, trained, dataset, part):
    before = {path: path.read_bytes() for path in dataset.rglob("*.png")}
    code, _, err = call("generate", trained / "last.safetensors", dataset, "--out", dataset / part)
    assert code == 1
    assert "would be written over" in one_line_error(err)
    assert {path: path.read_bytes() for path in dataset.rglob("*.png")} == before


def test_grid_shows_label_image_and_photo(call, trained, dataset, tmp_path):
    code, out, _ = call("generate", trained / "last.safetensors", dataset, "--out", tmp_path / "out", "--grid")
    assert code == 0
    assert f"overview {tmp_path / 'out' / 'grid.png'}" in out
    grid = np.asarray(Image.open(tmp_path / "out" / "grid.png"))
    assert grid.shape == (2 * 32 + 3 * 4, 3 * 64 + 4 * 4, 3)
    assert np.array_equal(grid[4:36, 72:136], np.asarray(Image.open(tmp_path / "out" / "a.png")))
    assert np.array_equal(grid[4:36, 140:204], np.asarray(Image.open(dataset / "images" / "a.png")))
    scene = scenes.draw_scene(0, height=32, width=64)
    assert np.array_equal(grid[4:36, 4:68][scene.ids == 0][0], scenes.COLORS[0])


def test_a_label_file_called_grid_is_refused_where_the_overview_would_replace_it(call, trained, tmp_path):
    dataset = write_dataset(tmp_path / "data", names=["grid"])
    words = ["generate", trained / "last.safetensors", dataset, "--out", tmp_path / "out"]
    code, _, err = call(*words, "--grid")
    assert code == 1
    assert "grid.png" in one_line_error(err)
    assert call(*words)[0] == 0


def test_a_broken_photo_for_the_grid_is_reported_and_the_others_are_drawn(call, trained, dataset, tmp_path):
    (dataset / "images" / "a.png").write_bytes(b"broken")
    code, _, err = call("generate", trained / "last.safetensors", dataset, "--out", tmp_path / "out", "--grid")
    assert code == 1
    assert str(dataset / "images" / "a.png") in one_line_error(err)
    assert {"b.png", "grid.png"} <= set(pictures(tmp_path / "out"))


@pytest.mark.parametrize(("size", "pixels"), [("trained", (64, 32)), ("40x48", (48, 40)), ("64X32", (32, 64))])
def test_size_brings_label_maps_to_a_size_first(call, trained, tmp_path, size, pixels):
    write_dataset(tmp_path / "data", names=["a"], size=(50, 70))
    words = ["generate", trained / "last.safetensors", tmp_path / "data", "--out", tmp_path / "out", "--size", size]
    assert call(*words)[0] == 0
    assert Image.open(tmp_path / "out" / "a.png").size == pixels


@pytest.mark.parametrize("size", ["big", "256", "256x", "0x64", "-3x64", "1x2x3", "1.5x2"])
def test_a_size_that_is_none_is_refused(call, trained, dataset, tmp_path, size):
    code, _, err = call("generate", trained / "last.safetensors", dataset, "--out", tmp_path / "out", f"--size={size}")
    assert code == 2
    assert f"'{size}'" in one_line_error(err)
    assert not (tmp_path / "out").exists()


def test_the_trained_size_of_a_checkpoint_without_recipe_is_not_known(call, styled, dataset, tmp_path):
    code, _, err = call("generate", styled, dataset, "--out", tmp_path / "out", "--size", "trained")
    assert code == 1
    assert "carries no recipe" in one_line_error(err)


def test_seed_chooses_the_sample_of_a_multi_modal_generator(call, styled, tmp_path):
    label = tmp_path / "x.png"
    Image.fromarray(np.arange(3, dtype=np.uint8).repeat(32 * 32 // 3 + 1)[: 32 * 32].reshape(32, 32)).save(label)
    drawn = {}
    for name, words in {"a": ["--seed=1"], "b": ["--seed=1"], "c": ["--seed=2"]}.items():
        assert call("generate", styled, label, "--out", tmp_path / name, *words)[0] == 0
        drawn[name] = (tmp_path / name / "x.png").read_bytes()
    assert drawn["a"] == drawn["b"] != drawn["c"]


def test_a_style_for_a_generator_without_style_encoder_is_refused_once(call, trained, dataset, tmp_path):
    words = ["generate", trained / "last.safetensors", dataset, "--out", tmp_path / "out"]
    code, _, err = call(*words, "--style", dataset / "images" / "a.png")
    assert code == 1
    assert "no style encoder" in one_line_error(err)


@pytest.mark.parametrize(
    ("labels", "said"),
    [("none", "there is no such file or folder"), ("*.gif", "matches nothing"), ("empty", "No label maps in")],
)
def test_nothing_to_draw_is_an_error(call, trained, tmp_path, labels, said):
    (tmp_path / "empty").mkdir()
    code, _, err = call("generate", trained / "last.safetensors", tmp_path / labels, "--out", tmp_path / "out")
    assert code == 1
    assert said in one_line_error(err)


@pytest.mark.parametrize("out", ["file", "file/below"])
def test_an_output_folder_that_cannot_be_is_refused(call, trained, dataset, tmp_path, out):
    (tmp_path / "file").write_text("")
    code, _, err = call("generate", trained / "last.safetensors", dataset, "--out", tmp_path / out)
    assert code == 1
    assert str(tmp_path / "file") in one_line_error(err)
    assert "unexpected" not in err


@pytest.mark.parametrize("words", [["--workers", "0"], ["--workers", "1"], ["--batch", "2"]])
def test_generate_draws_the_same_however_it_shares_the_work(call, edged, tmp_path, words):
    dataset = write_dataset(tmp_path / "data", names=["a", "b", "c"])
    words = [
        "--precision",
        "fp32",
        *words,
    ]  # bf16 rounds products by how many there are, and these pictures are 0 or 255
    assert call("generate", edged, dataset, "--out", tmp_path / "usual", "--precision", "fp32")[0] == 0
    assert call("generate", edged, dataset, "--out", tmp_path / "out", *words)[0] == 0
    for name in pictures(tmp_path / "usual"):
        usual, other = (np.asarray(Image.open(tmp_path / part / name)).astype(int) for part in ("usual", "out"))
        assert np.abs(usual - other).max() <= (1 if "--batch" in words else 0)


def test_generate_refuses_a_batch_of_none(call, trained, dataset, tmp_path):
    code, _, err = call("generate", trained / "last.safetensors", dataset, "--out", tmp_path / "out", "--batch", "0")
    assert code == 1
    assert "batch is 0" in one_line_error(err)


def test_generate_begins_with_what_it_does_where_unless_it_is_quiet(trained, dataset, tmp_path, capsys):
    words = ["generate", str(trained / "last.safetensors"), str(dataset), "--precision=fp32", "--device=cpu"]
    assert main([*words, f"--out={tmp_path / 'out'}", "--threads=1"]) == 0
    assert capsys.readouterr().err == "Drawing 2 label maps: cpu, fp32, 1 thread.\n"
    assert main([*words, f"--out={tmp_path / 'out'}", "--quiet"]) == 0
    assert capsys.readouterr().err == ""


def test_on_a_terminal_generate_tells_its_pace(call, trained, dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    code, _, err = call("generate", trained / "last.safetensors", dataset, "--out", tmp_path / "out")
    assert code == 0
    assert re.search(r"2 pictures in [0-9.]+ s \([0-9.]+ pictures/s\), network busy [0-9]+ % of the time\n$", err)


def test_generate_notes_classes_that_the_checkpoint_calls_otherwise(call, trained, dataset, tmp_path):
    names = ["sky", "tree", "mountain", *scenes.NAMES[3:]]
    (dataset / "classes.json").write_text(json.dumps({"names": names, "unknown": scenes.UNKNOWN}))
    code, out, err = call("generate", trained / "last.safetensors", dataset, "--out", tmp_path / "out")
    assert code == 0
    assert out.startswith("2 images")
    assert err.startswith(f"Note: {dataset / 'classes.json'} calls class 1 'tree'")
    assert len(err.splitlines()) == 1


def test_an_end_of_the_way_that_is_no_seed_is_refused(call, styled, dataset, tmp_path):
    code, _, err = call("generate", styled, dataset, "--out", tmp_path / "out", "--samples", "2", "--to", 2**63)
    assert code == 2
    assert f"{2**63} is no seed" in one_line_error(err)


def test_an_unknown_device_is_refused(call, trained, dataset, tmp_path):
    words = ["generate", trained / "last.safetensors", dataset, "--out", tmp_path / "out"]
    code, _, err = call(*words, "--device", "gpu")
    assert code == 1
    assert "There is no device 'gpu'" in one_line_error(err)
    code, _, err = call(*words, "--precision", "fp8")
    assert code == 1
    assert "There is no precision 'fp8'" in one_line_error(err)


def test_a_clean_dataset_passes_the_check(call, dataset):
    code, out, err = call("data", "check", dataset)
    assert (code, err) == (0, "")
    assert out
    code, out, _ = call("data", "check", dataset, "--json")
    assert code == 0
    assert isinstance(json.loads(out), dict)


def test_a_broken_dataset_fails_the_check_with_every_file_named(call, dataset):
    broken_number(dataset)
    (dataset / "labels" / "a.png").write_bytes(b"broken")
    code, out, err = call("data", "check", dataset)
    assert code == 1
    assert err == ""
    assert "a.png" in out
    assert "77" in out
    code, out, _ = call("data", "check", dataset, "--json")
    assert code == 1
    json.loads(out)
    assert call("data", "check", dataset, "--remap", '{"77": 0}', "--json")[0] == 1


def test_a_check_can_be_told_the_classes(call, dataset):
    (dataset / "classes.json").unlink()
    code, _, err = call("data", "check", dataset, "--num-classes", "12", "--unknown", "255")
    assert (code, err) == (0, "")


@pytest.mark.parametrize("remap", ["37", "{", '["a"]', '{"a": 1}'])
def test_a_remap_that_is_none_is_refused(call, dataset, remap):
    code, _, err = call("data", "check", dataset, "--remap", remap)
    assert code == 2
    assert "JSON mapping of numbers" in one_line_error(err)


def test_a_check_of_nothing_is_an_error(call, tmp_path):
    code, _, err = call("data", "check", tmp_path / "none")
    assert code == 1
    assert "no such folder" in one_line_error(err)


# The losses of the step before may still be numbers: only the weights tell.
@pytest.mark.parametrize("wild", ["--optimizer.lr_generator=1e38", "--optimizer.lr_discriminator=1e38"])
def test_losses_that_are_no_numbers_stop_the_training_and_leave_the_last_good_state(call, tmp_path, wild):
    folder = tmp_path / "run"
    often = [
        "--training.save_every=1",
        "--training.steps=9",
        "--training.validate_every=0.1",
        "--training.log_every=100",
    ]
    words = ["train", "scenes-tiny", "--out", folder, *TINY, *often, wild, "--quiet"]
    code, _, err = call(*words)
    assert code == 1
    message = one_line_error(err)
    assert "no longer numbers" in message
    assert "lr_generator" in message
    assert "unexpected" not in message
    kept = sorted(folder.glob("*.safetensors"))
    assert ("The last state" in message) == bool(kept)
    for path in kept:
        assert all(value.isfinite().all() for value in load_file(path).values()), path


def test_a_training_that_goes_wrong_later_keeps_the_state_of_before(call, tmp_path, monkeypatch):
    from clade.training import fit

    folder = tmp_path / "run"
    words = ["train", "scenes-tiny", "--out", folder, *TINY, "--training.save_every=2", "--training.steps=4", "--quiet"]
    original, calls = fit.training_step, []

    def spoiled(*args, **kwargs):
        losses = original(*args, **kwargs)
        calls.append(0)
        return {name: loss * float("nan") if len(calls) == 4 else loss for name, loss in losses.items()}

    with monkeypatch.context() as patch:
        patch.setattr(fit, "training_step", spoiled)
        code, _, err = call(*words)
    assert code == 1
    assert one_line_error(err).startswith("clade: error: Step 4: the losses are no longer numbers")
    assert f"The last state in {folder} is from before" in err
    assert call(*words)[0] == 0
    whole = tmp_path / "whole"
    assert call(*words[:3], whole, *words[4:])[0] == 0
    a, b = (load_file(f / "last.safetensors") for f in (folder, whole))
    assert all((a[key] == b[key]).all() for key in b)
