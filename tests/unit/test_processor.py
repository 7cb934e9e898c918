"""What the processor can do, what a precision comes to on it, and what is said where bf16 is emulated."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import types
import warnings

import pytest
import torch

from clade import CladeError
from clade.system import measure, processor
from clade.system.processor import (
    convolves_in_bf16,
    emulation_cost,
    instruction_set,
    multiplies_in_bf16,
    resolve_precision,
)

pytestmark = pytest.mark.processor


def play(monkeypatch, instructions):
    monkeypatch.setattr("clade.system.processor.instruction_set", lambda: instructions)
    processor._warn_of_emulation.cache_clear()


@pytest.mark.parametrize(
    ("variable", "limit", "expected"),
    [
        ("ONEDNN_MAX_CPU_ISA", None, "amx"),
        ("ONEDNN_MAX_CPU_ISA", "AVX2", "avx2"),
        ("ONEDNN_MAX_CPU_ISA", "avx512_core", "avx512"),
        ("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16", "avx512-bf16"),
        ("ONEDNN_MAX_CPU_ISA", "SSE41", "other"),
        ("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_AMX", "amx"),
        ("DNNL_MAX_CPU_ISA", "AVX2", "avx2"),
    ],
)
def test_the_limit_of_onednn_is_honoured(monkeypatch, variable, limit, expected):
    for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"):
        monkeypatch.delenv(name, raising=False)
    if limit is not None:
        monkeypatch.setenv(variable, limit)
    monkeypatch.setattr(processor, "_of_the_processor", lambda: "amx")
    assert instruction_set() == expected
    monkeypatch.setattr(processor, "_of_the_processor", lambda: "other")
    assert instruction_set() == "other"  # a limit gives nothing


def test_onednn_has_what_is_said_of_it():
    assert not convolves_in_bf16() or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    assert not multiplies_in_bf16() or convolves_in_bf16()


@pytest.mark.parametrize("instructions", processor.INSTRUCTION_SETS)
@pytest.mark.parametrize("precision", ["auto", "fp32", "bf16"])
def test_a_precision_that_is_named_stays_and_auto_is_what_the_processor_multiplies_in(
    monkeypatch, instructions, precision
):
    play(monkeypatch, instructions)
    monkeypatch.setattr(processor, "emulation_cost", lambda kind: 1.0)
    native = "bf16" if instructions in ("avx512-bf16", "amx") else "fp32"
    assert resolve_precision(precision) == (native if precision == "auto" else precision)


def test_an_unknown_precision_is_refused():
    with pytest.raises(CladeError, match=r"no precision 'bf61'.*Did you mean 'bf16'.*auto, fp32, bf16"):
        resolve_precision("bf61")


@pytest.mark.parametrize(("cost", "said"), [(23.4, "about 23 times"), (1.52, "about 1.5 times")])
def test_emulated_bf16_says_once_what_it_costs(monkeypatch, cost, said):
    play(monkeypatch, "avx2")
    monkeypatch.setattr(processor, "emulation_cost", lambda kind: cost)
    with pytest.warns(RuntimeWarning, match=f"emulated by this processor.*{said}"):
        assert resolve_precision("bf16") == "bf16"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert resolve_precision("bf16") == "bf16"


@pytest.mark.parametrize(
    ("instructions", "precision"), [("avx2", "fp32"), ("avx2", "auto"), ("amx", "bf16"), ("avx512-bf16", "bf16")]
)
def test_nothing_is_said_where_nothing_is_emulated(monkeypatch, instructions, precision):
    play(monkeypatch, instructions)
    monkeypatch.setattr(processor, "emulation_cost", lambda kind: pytest.fail("measured"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        resolve_precision(precision)


def test_nothing_is_said_where_bf16_is_as_fast_all_the_same(monkeypatch):
    play(monkeypatch, "other")
    monkeypatch.setattr(processor, "emulation_cost", lambda kind: 0.6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert resolve_precision("bf16") == "bf16"


def test_the_cost_is_the_time_of_a_convolution_in_both_types(monkeypatch):
    clock = types.SimpleNamespace(now=0.0)
    convolve = torch.nn.functional.conv2d

    def timed(x, weight, **options):
        clock.now += 12.0 if x.dtype == torch.bfloat16 else 1.5
        return convolve(x, weight, **options)

    monkeypatch.setattr(torch.nn.functional, "conv2d", timed)
    monkeypatch.setattr(measure.time, "perf_counter", lambda: clock.now)
    with torch.autocast("cpu", torch.bfloat16):  # which would make both of one type
        assert emulation_cost() == 8


@pytest.mark.slow
@pytest.mark.skipif(instruction_set() == "other", reason="oneDNN's limit is of x86")
def test_the_command_line_says_it_in_one_line():
    command = ["profile", "clade", "--size=32x32", "--width=1", "--time", "--rounds=1", "--precision=bf16"]
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}
    done = subprocess.run(
        [sys.executable, "-m", "clade", *command], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0
    assert re.fullmatch(r"clade: warning: bf16 is emulated by this processor: .* about [\d.]+ times .*\n", done.stderr)


def test_recipes_and_protocols_are_checked_without_torch():
    modules = "clade.recipes, clade.metrics.scores.protocols"
    code = f"import sys, {modules}; assert 'torch' not in sys.modules, 'torch was loaded'"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False).stderr == ""
