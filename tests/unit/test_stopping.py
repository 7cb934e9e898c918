"""A training that is to stop does so within seconds, and loses nothing: whatever it is at."""

import os
import signal

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file

from clade.metrics.judges.trained import read_judge
from clade.recipes import Recipe
from clade.training import keeping, signals, train
from clade.training.judges import JudgeRecipe, train_judge
from clade.training.judges.fit import Learner
from clade.training.processes import tells_of_a_lost_process
from clade.training.signals import Hurried, Stop, stop_on_signal
from clade.training.state import read_facts

SMALL = {
    "name": "small",
    "data": {"size": [32, 32], "options": {"count": 4, "val_count": 4}},
    "generator": {"name": "clade", "width": 2},
    "discriminator": {"width": 4, "layers": 2},
    "losses": {"perceptual": 0},
    "training": {
        "steps": 3,
        "batch_size": 2,
        "accelerator": "cpu",
        "precision": "fp32",
        "calibrate": 4,
        "validate_every": 1.5,
        "samples": 1,
    },
}


@pytest.fixture
def recipe():
    return Recipe.from_dict(SMALL)


@pytest.fixture
def no_grace(monkeypatch):
    monkeypatch.setattr(signals, "GRACE", -1.0)


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)


def at_call(monkeypatch, owner, name, number, action):
    """Do something before a function's call of this number."""
    function, calls = getattr(owner, name), []

    def wrapped(*args, **kwargs):
        calls.append(None)
        if len(calls) == number:
            action()
        return function(*args, **kwargs)

    monkeypatch.setattr(owner, name, wrapped)
    return calls


def tensors(folder):
    return {
        f"{name}/{key}": value
        for name in ("state", "last", "best")
        for key, value in load_file(folder / f"{name}.safetensors").items()
    }


def assert_same(one, other):
    a, b = tensors(one), tensors(other)
    assert a.keys() == b.keys()
    assert [key for key in a if not torch.equal(a[key], b[key])] == []


def facts(folder):
    return read_facts(folder / "state.safetensors")


def test_a_stop_while_statistics_are_measured_cuts_that_short_with_the_state_on_disk(
    recipe, tmp_path, monkeypatch, no_grace, capsys
):
    train(recipe, tmp_path / "whole", quiet=True)
    folder, seen = tmp_path / "cut", []

    def stop():
        seen.append(facts(folder)["step"])
        interrupt()

    with monkeypatch.context() as patch:
        calls = at_call(patch, keeping.TrainableGenerator, "forward", 5, stop)
        first = train(recipe, folder)
    assert len(calls) == 5  # after one of each step, the second batch of four was being measured
    assert seen == [3]  # and could have been lost
    assert (first.step, first.finished, first.unvalidated) == (3, False, True)
    assert (folder / "last.safetensors").exists()
    assert not (folder / "best.safetensors").exists()
    assert "few batches" in capsys.readouterr().err
    assert train(recipe, folder, quiet=True).finished
    assert_same(folder, tmp_path / "whole")


def test_a_stop_during_a_validation_leaves_it_to_the_next_call(recipe, tmp_path, monkeypatch, no_grace):
    train(recipe, tmp_path / "whole", quiet=True)
    folder = tmp_path / "cut"
    with monkeypatch.context() as patch:
        calls = at_call(patch, keeping, "draw_mean", 1, interrupt)
        first = train(recipe, folder, quiet=True)
    assert len(calls) == 1  # of two batches
    assert (first.finished, first.unvalidated, first.best) == (False, True, None)
    with monkeypatch.context() as patch:  # nor does the next one finish it
        at_call(patch, keeping, "draw_mean", 1, interrupt)
        assert not train(recipe, folder, quiet=True).finished
    assert facts(folder)["unvalidated"]
    assert train(recipe, folder, quiet=True).finished
    assert_same(folder, tmp_path / "whole")


def test_time_that_is_up_does_not_keep_a_validation_from_ever_being_done(recipe, tmp_path, no_grace):
    made = Recipe.from_dict(SMALL, ["--training.max_minutes", "0"])
    steps = []
    while not steps or not steps[-1].finished:
        steps.append(train(made, tmp_path / "parts", quiet=True))
        assert len(steps) < 9
    assert [result.step for result in steps] == [1, 2, 3, 3]  # the last call does the validation of step 3
    train(recipe, tmp_path / "whole", quiet=True)
    a, b = load_file(tmp_path / "parts/last.safetensors"), load_file(tmp_path / "whole/last.safetensors")
    assert all(torch.equal(value, b[key]) for key, value in a.items())


def test_a_stop_with_time_enough_measures_and_validates_in_full(recipe, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        at_call(patch, keeping, "calibrated", 1, interrupt)
        assert train(recipe, tmp_path / "stopped", quiet=True).finished
    train(recipe, tmp_path / "whole", quiet=True)
    assert_same(tmp_path / "stopped", tmp_path / "whole")


JUDGE = {
    "data": {"size": [32, 32], "options": {"count": 4, "val_count": 4}},
    "network": {"architecture": "fpn", "encoder": "resnet18"},
    "training": {"steps": 2, "batch_size": 2, "accelerator": "cpu", "precision": "fp32", "validate_every": 1},
}


@pytest.mark.slow
def test_a_judge_too_leaves_its_validation_to_the_next_call(tmp_path, monkeypatch, no_grace):
    made = JudgeRecipe.from_dict(JUDGE)
    train_judge(made, tmp_path / "whole", quiet=True)
    folder = tmp_path / "cut"

    def stop():
        assert facts(folder)["step"] == 2
        interrupt()

    with monkeypatch.context() as patch:  # two steps, then the validation's first batch of two
        calls = at_call(patch, Learner, "forward", 3, lambda: None)
        at_call(patch, read_judge.__globals__["TrainedJudge"], "predict", 1, stop)
        first = train_judge(made, folder, quiet=True)
    assert len(calls) == 2
    assert (first.step, first.finished, first.unvalidated, first.best) == (2, False, True, None)
    assert read_judge(folder / "last.safetensors").info["ceiling"] is None
    assert train_judge(made, folder, quiet=True).finished
    assert_same(folder, tmp_path / "whole")
    assert read_judge(folder / "last.safetensors").info["ceiling"] is not None


@pytest.mark.parametrize("ignored", [False, True])
def test_a_second_signal_of_another_kind_ends_at_once(ignored):
    """Also where SIGINT was ignored, as shells do for background jobs."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN if ignored else signal.default_int_handler)
    try:
        with stop_on_signal() as stop:
            os.kill(os.getpid(), signal.SIGTERM)
            assert stop.asked
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) == (signal.SIG_IGN if ignored else signal.default_int_handler)
    finally:
        signal.signal(signal.SIGINT, before)


def test_the_grace_begins_when_the_stop_is_noticed(monkeypatch):
    now = [50.0]
    monkeypatch.setattr(signals.time, "monotonic", lambda: now[0])
    stop = Stop()
    stop.limit(0.0, 1.0)
    assert (stop.asked, stop.overdue) == (False, False)
    now[0] = 61.0
    assert (stop.asked, stop.overdue) == (True, False)
    now[0] = 61.0 + signals.GRACE
    assert not stop.overdue
    now[0] += 0.1
    assert stop.overdue
    stop.limit(0.0, None)
    assert (stop.asked, stop.overdue) == (False, False)


def test_processes_with_fewer_batches_ask_as_often_as_the_others():
    for own in range(4):
        asked = []
        batches = Hurried(range(own), 3, lambda asked=asked: bool(asked.append(None)))
        assert list(batches) == list(range(min(own, 3)))
        assert len(asked) == 2
        assert not batches.cut


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (RuntimeError("[../third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer [::1]:15"), True),
        (RuntimeError("[third_party/gloo/gloo/transport/tcp/pair.cc:545] Read error: Connection reset by peer."), True),
        (dist.DistBackendError("ncclRemoteError: A call failed possibly due to a network error"), True),
        (dist.DistBackendError("ncclInvalidUsage: this reflects invalid usage of the library"), False),
        (RuntimeError("CUDA error: peer access is not supported between these two devices"), False),
        (RuntimeError("The size of tensor a (3) must match that of the peer b (4)"), False),
    ],
)
def test_only_what_tells_of_a_lost_process_is_taken_for_that(error, lost):
    assert tells_of_a_lost_process(error) == lost


# --- Threads ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def free(monkeypatch):
    """How many cores are free, as a test says."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before, cores = torch.get_num_threads(), [2]
    torch.set_num_threads(4)
    monkeypatch.setattr("clade.system.threads.free_cores", lambda: cores[0])
    yield cores
    torch.set_num_threads(before)


@pytest.mark.parametrize("kind", ["generator", pytest.param("judge", marks=pytest.mark.slow)])
def test_a_training_goes_on_with_the_threads_that_it_began_with_and_says_so(kind, tmp_path, capsys, free):
    def go(*options):
        if kind == "judge":
            return train_judge(JudgeRecipe.from_dict(JUDGE, ["--training.steps=3", *options]), tmp_path)
        return train(Recipe.from_dict(SMALL, options), tmp_path)

    go("--training.max_minutes=0")
    assert "2 threads" in capsys.readouterr().err.splitlines()[0]
    assert facts(tmp_path)["threads"] == 2
    free[0] = 1
    go("--training.max_minutes=0")
    out, err = capsys.readouterr()
    assert out == ""
    assert "goes on with 2 CPU threads as before" in err.splitlines()[0]
    assert facts(tmp_path)["threads"] == 2
    go("--training.threads=3")
    assert "this training ran with 2 CPU threads, now 3" in capsys.readouterr().err
    assert facts(tmp_path)["threads"] == 3
    assert torch.get_num_threads() == 4  # that of the program, which is none of our business
