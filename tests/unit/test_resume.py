"""A training that is killed, interrupted or stopped, and goes on, ends exactly like one that was left alone."""

import contextlib
import itertools
import json
import multiprocessing
import os
import signal
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from clade.cli import main
from clade.io.atomic import atomic_path
from clade.models.checkpoints import read_header
from clade.training.ema import Ema
from clade.training.state import read_facts

pytestmark = pytest.mark.slow

RECIPE = """
name: small
data: {size: [32, 32], options: {count: 8, val_count: 2}}
generator: {name: clade, width: 2}
discriminator: {width: 4, layers: 2}
losses: {perceptual: 0, l1: 1}
training:
  steps: 10
  batch_size: 2
  accelerator: cpu
  threads: 1
  save_every: 3
  calibrate: 2
  validate_every: 1
  samples: 1
"""
VARIANTS = {
    "fp32": [],
    "bf16": ["--generator.name=clade-icpe", "--generator.instance_edges=true", "--training.precision=bf16"],
    "latent": [
        "--generator.z_dim=8",
        "--generator.encoder=true",
        '--generator.options={"encoder_width": 1}',
        "--training.accumulate=2",
        "--data.workers=2",
        '--data.options={"count": 16, "val_count": 2}',
    ],
}
# Stopped once only, to save time.
STYLED = {
    "styled": [
        "--generator.name=sean",
        '--generator.options={"style_dim": 4, "hidden": 4, "encoder_width": 2}',
        "--training.accumulate=2",
        "--training.ema=0.9",
        "--training.validate_every=5",
        '--data.options={"count": 16, "val_count": 2}',
    ],
    "grouped": [
        "--generator.name=groupdnet",
        "--generator.encoder=true",
        '--generator.options={"encoder_width": 13}',
        "--training.ema=0.9",
        "--training.validate_every=5",
    ],
    "augmented": [
        "--discriminator.diff_augment=color,translation,cutout",
        "--data.sampling=balanced",
        "--data.load_size=[40, 48]",
        "--data.fit=crop",
        "--training.accumulate=2",
        "--training.validate_every=5",
        '--data.options={"count": 16, "val_count": 2}',
    ],
    "segmented": [
        "--discriminator={name: segmentation, width: 4, layers: 4, options: {depth: 3}}",
        "--discriminator.diff_augment=translation,cutout",
        "--losses.feature_matching=0",
        "--training.accumulate=2",
        "--training.precision=bf16",
        "--training.validate_every=5",
        '--data.options={"count": 16, "val_count": 2}',
    ],
}
# With time enough for a signal from outside to come before the end.
LONG = ["--training.steps=40", "--training.save_every=1", "--data.workers=2"]
KEPT = ("state.safetensors", "last.safetensors", "best.safetensors")


def in_child(arguments, log, write=0, update=0, number=signal.SIGKILL):
    """Run the command line; on the way to the n-th file or weight update, send this process a signal."""
    with open(log, "ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)

    def counted(function, last):
        calls = itertools.count(1)

        def wrapped(*args):
            if next(calls) == last:
                os.kill(os.getpid(), number)
            return function(*args)

        return wrapped

    os.replace = counted(os.replace, write)
    Ema.update = counted(Ema.update, update)
    sys.exit(main(arguments))


@pytest.fixture(scope="module")
def context():
    """Processes forked from a small server that has everything imported: they start at once."""
    made = multiprocessing.get_context("forkserver")
    made.set_forkserver_preload(["clade.cli", "clade.training"])
    return made


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    path = tmp_path_factory.mktemp("recipe") / "small.yaml"
    path.write_text(RECIPE, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def run(context, recipe):
    """``run(folder, *overrides, **signal)`` -> (exit code, all output so far in this folder)."""

    def start(folder, *overrides, **signal_at):
        log = folder.with_name(folder.name + ".log")
        arguments = ["train", str(recipe), f"--out={folder}", *overrides]
        process = context.Process(target=in_child, args=(arguments, log), kwargs=signal_at)
        process.start()
        process.join()
        return process.exitcode, log.read_text(encoding="utf-8", errors="replace")

    return start


@pytest.fixture(scope="module")
def left_alone(run, tmp_path_factory):
    """``left_alone(variant)`` -> the folder of an uninterrupted training, done once."""
    base = tmp_path_factory.mktemp("left_alone")

    def folder(variant):
        if not (base / variant).exists():
            code, output = run(base / variant, *{**VARIANTS, **STYLED, "long": LONG}[variant])
            assert code == 0, output
            assert step_of(base / variant) == (40 if variant == "long" else 10)
        return base / variant

    return folder


def assert_same(one, other):
    for name in KEPT:
        a, b = load_file(one / name), load_file(other / name)
        assert a.keys() == b.keys()
        different = [key for key in a if a[key].dtype != b[key].dtype or not torch.equal(a[key], b[key])]
        assert not different, f"{name}: {different[:5]}"
        assert read_header(one / name) == read_header(other / name)
    state = load_file(one / "state.safetensors")
    groups = {key.split("/")[0] for key in state}
    assert groups == {"generator", "discriminator", "ema", "optimizer_g", "optimizer_d", "rng"}
    pictures = [{p.name: p.read_bytes() for p in (folder / "samples").iterdir()} for folder in (one, other)]
    assert pictures[0] == pictures[1]


def leftovers(folder):
    return [path.name for path in folder.rglob("*") if ".tmp" in path.name]


def step_of(folder):
    path = folder / "state.safetensors"
    return read_facts(path)["step"] if path.exists() else 0


@pytest.mark.parametrize("variant", VARIANTS)
def test_killed_at_the_worst_moments_it_ends_like_the_training_left_alone(variant, run, left_alone, tmp_path):
    folder = tmp_path / "killed"
    deaths = [
        ({"write": 1}, 0),  # while the first state is written: it begins anew
        ({"write": 2}, 3),  # while the first generator is written, the state of step 3 being there
        ({"write": 3}, 4),  # while the best generator of step 4 is written, its state being there
        ({"write": 3}, 4),  # while the sheet of the validation that was cut off is written, made up for at once
        ({"update": 4}, 6),  # in the middle of step 8, the state of step 6 being written
    ]
    for moment, kept in deaths:
        # Orphaned loader processes take seconds to notice: let there be some at one death only.
        workers = [] if "update" in moment else ["--data.workers=0"]
        code, output = run(folder, *VARIANTS[variant], *workers, **moment)
        assert code == -signal.SIGKILL, output
        assert step_of(folder) == kept
        if "write" in moment:
            assert leftovers(folder)
    code, output = run(folder, *VARIANTS[variant])
    assert code == 0, output
    assert_same(folder, left_alone(variant))
    assert not leftovers(folder)


@pytest.mark.parametrize("variant", STYLED)
def test_stopped_in_the_middle_of_an_epoch_styles_and_noise_go_on_as_if_left_alone(variant, run, left_alone, tmp_path):
    folder = tmp_path / "stopped"
    code, output = run(folder, *STYLED[variant], update=6, number=signal.SIGINT)
    assert code == 0, output
    assert step_of(folder) == 6  # an epoch has 4 steps
    code, output = run(folder, *STYLED[variant])
    assert code == 0, output
    assert_same(folder, left_alone(variant))


def command(recipe, folder, *overrides):
    return [sys.executable, "-m", "clade", "train", str(recipe), f"--out={folder}", *overrides]


def wait_for_step(process, folder, step):
    while process.poll() is None and step_of(folder) < step:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.005)


def test_killed_from_outside_it_ends_like_the_training_left_alone(recipe, run, left_alone, tmp_path):
    """The same with the real command, killed twice, wherever it is."""
    folder = tmp_path / "killed"
    for step in (2, 7):
        process = subprocess.Popen(command(recipe, folder, *LONG), stderr=subprocess.DEVNULL)
        wait_for_step(process, folder, step)
        process.kill()
        process.wait()
        assert process.returncode == -signal.SIGKILL
        assert step <= step_of(folder) < 40
    code, output = run(folder, *LONG)
    assert code == 0, output
    assert_same(folder, left_alone("long"))


def test_ctrl_c_finishes_the_step_saves_says_so_and_the_same_command_goes_on(recipe, run, left_alone, tmp_path):
    """As a terminal does it: the whole process group gets the signal, the loader's workers too."""
    folder = tmp_path / "stopped"
    process = subprocess.Popen(
        command(recipe, folder, *LONG),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_for_step(process, folder, 1)
    os.killpg(process.pid, signal.SIGINT)
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    step = step_of(folder)
    assert 1 <= step < 40
    assert output.splitlines() == [
        f"Stopped after step {step} of 40. The same command goes on.",
        str(folder / "last.safetensors"),
    ]
    assert "Traceback" not in errors
    code, output = run(folder, *LONG)
    assert code == 0, output
    assert_same(folder, left_alone("long"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_after_the_step_that_it_came_in(run, left_alone, tmp_path, number):
    folder = tmp_path / "stopped"
    code, output = run(folder, update=5, number=number)
    assert code == 0, output
    assert step_of(folder) == 5
    assert "Stopped after step 5 of 10. The same command goes on." in output
    code, output = run(folder)
    assert code == 0, output
    assert_same(folder, left_alone("fp32"))


def test_without_minutes_left_it_does_one_step_at_a_time_to_the_same_end(run, left_alone, tmp_path):
    folder = tmp_path / "stopped"
    for step in range(1, 4):
        code, output = run(folder, "--training.max_minutes=0")
        assert code == 0, output
        assert step_of(folder) == step
        assert f"Stopped after step {step} of 10." in output
    code, output = run(folder)
    assert code == 0, output
    a, b = (load_file(f / "state.safetensors") for f in (folder, left_alone("fp32")))
    assert all(torch.equal(a[key], b[key]) for key in b)


@pytest.fixture
def half(left_alone, run, tmp_path):
    """A training stopped after step 1."""
    folder = tmp_path / "half"
    code, output = run(folder, "--training.max_minutes=0")
    assert code == 0, output
    return folder


def test_another_recipe_is_refused_with_what_changed(half, run):
    before = (half / "state.safetensors").read_bytes()
    code, output = run(half, "--generator.width=3", "--optimizer.beta1=0.5")
    assert code == 1
    message = output.splitlines()[-1]
    assert message.startswith("clade: error: ")
    assert "generator.width (2 -> 3)" in message
    assert "optimizer.beta1 (0.0 -> 0.5)" in message
    assert "--fresh" in message
    assert "Traceback" not in output
    assert (half / "state.safetensors").read_bytes() == before


def test_more_steps_are_refused_with_the_way_to_have_them(half, run):
    code, output = run(half, "--training.steps=12")
    assert code == 1
    message = output.splitlines()[-1]
    assert "training.steps (10 -> 12: " in message
    for way in ("training.init_from with the finished checkpoint", "another --out", "--fresh"):
        assert way in message


def test_another_number_of_pictures_is_refused(half, run, monkeypatch):
    """A folder that has got more pictures would be shuffled otherwise."""
    path = half / "state.safetensors"
    header = read_header(path)
    header["training"]["pictures"] += 1
    save_file(load_file(path), path, metadata={"clade": json.dumps(header)})
    code, output = run(half)
    assert code == 1
    assert "the dataset (9 -> 8 pictures)" in output


def test_what_does_not_change_the_result_may_change(half, run, left_alone):
    free = ["--name=renamed", "--data.workers=1", "--data.cache_mib=0", "--training.samples=2", "--data.on_error=skip"]
    code, output = run(half, *free, "--training.log_every=1", "--training.save_every=4")
    assert code == 0, output
    a, b = (load_file(f / "state.safetensors") for f in (half, left_alone("fp32")))
    assert all(torch.equal(a[key], b[key]) for key in b)


def test_a_training_from_before_a_key_was_there_goes_on(half, run, left_alone):
    """The key's default is what the training did."""
    path = half / "state.safetensors"
    header = read_header(path)
    for section, key in (("data", "sampling"), ("data", "load_size"), ("discriminator", "diff_augment")):
        del header["training"]["recipe"][section][key]
    save_file(load_file(path), path, metadata={"clade": json.dumps(header)})
    code, output = run(half, "--data.sampling=balanced")
    assert code == 1
    assert "data.sampling (uniform -> balanced)" in output
    code, output = run(half)
    assert code == 0, output
    a, b = (load_file(f / "state.safetensors") for f in (half, left_alone("fp32")))
    assert all(torch.equal(a[key], b[key]) for key in b)


def test_fresh_begins_anew(half, run, left_alone):
    code, output = run(half, "--fresh", "--optimizer.beta1=0.5", "--training.max_minutes=0")
    assert code == 0, output
    assert "Stopped after step 1 of 10. The same command without --fresh goes on." in output
    assert read_facts(half / "state.safetensors")["recipe"]["optimizer"]["beta1"] == 0.5
    code, output = run(half, "--fresh")
    assert code == 0, output
    assert_same(half, left_alone("fp32"))


def test_a_fresh_training_killed_before_it_saves_does_not_go_on_with_the_one_before(half, run):
    code, output = run(half, "--fresh", update=2)
    assert code == -signal.SIGKILL, output
    assert step_of(half) == 0


def test_a_finished_training_returns_at_once_and_changes_nothing(run, left_alone):
    folder = left_alone("fp32")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    code, output = run(folder, write=1, update=1)
    assert code == 0, output
    assert "Stopped" not in output
    assert output.splitlines()[-1] == str(folder / "last.safetensors")
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def damaged_halved(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def damaged_empty(path):
    path.write_bytes(b"")


def damaged_text(path):
    path.write_text("not tensors")


def damaged_missing_tensor(path):
    tensors = load_file(path)
    del tensors["rng/cpu"]
    save_file(tensors, path, metadata={"clade": json.dumps(read_header(path))})


def damaged_other_file(path):
    path.write_bytes((path.parent / "last.safetensors").read_bytes())


@pytest.mark.parametrize(
    "damage", [damaged_halved, damaged_empty, damaged_text, damaged_missing_tensor, damaged_other_file]
)
def test_a_damaged_state_is_named_in_one_line(half, run, damage):
    damage(half / "state.safetensors")
    log = half.with_name("half.log")
    log.unlink()
    code, output = run(half)
    assert code == 1
    assert len(output.splitlines()) == 1, output
    assert output.startswith(f"clade: error: {half / 'state.safetensors'}: ")
    assert "unexpected" not in output


def test_files_that_a_kill_left_behind_are_removed(half, run):
    for place in (half, half / "samples"):
        place.mkdir(exist_ok=True)
        (place / ".state.safetensors.1234.tmp").write_bytes(b"half a file")
    (half / "notes.tmp").write_text("the user's own")
    code, output = run(half, "--training.max_minutes=0")
    assert code == 0, output
    assert leftovers(half) == ["notes.tmp"]


def test_a_file_in_the_place_of_the_folder_is_refused(run, tmp_path):
    (tmp_path / "file").write_text("")
    code, output = run(tmp_path / "file")
    assert code == 1
    assert "is a file; a folder is needed for the training" in output


def test_an_atomic_file_is_there_whole_or_not_at_all(tmp_path):
    path = tmp_path / "below" / "file"
    with atomic_path(path) as temporary:
        temporary.write_text("first")
        assert not path.exists()
    assert path.read_text() == "first"
    with contextlib.suppress(RuntimeError), atomic_path(path) as temporary:
        temporary.write_text("second, hal")
        raise RuntimeError
    assert path.read_text() == "first"
    assert list(path.parent.iterdir()) == [path]
