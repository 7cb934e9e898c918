"""The Triton kernels against the plain version: under Triton's interpreter, and on a GPU where there is one.

Whether kernels are interpreted is decided when Triton is imported, so this file also is the script of a process of its
own that interprets them and prints what went wrong by case.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from clade.errors import CladeError
from clade.nn import modulation
from clade.nn.modulation import PLAIN

SLOPE = 0.2


@dataclass(frozen=True)
class Case:
    pixels: int
    channels: int
    rows: int
    run: int = 9
    """Pixels in a row of one class."""
    dtype: torch.dtype = torch.float32
    scaled: bool = False
    slope: float | None = SLOPE
    ids: torch.dtype = torch.int32
    strided: bool = False


CASES = {
    "runs of a class": Case(200, 64, 35),
    "no activation": Case(100, 64, 5, slope=None),
    "scales": Case(100, 64, 5, scaled=True),
    "scales and no activation": Case(90, 40, 5, scaled=True, slope=None),
    "bfloat16": Case(100, 64, 5, dtype=torch.bfloat16),
    "float16 and scales": Case(100, 64, 5, dtype=torch.float16, scaled=True),
    "another class at every pixel": Case(150, 16, 20, run=1),
    "one class": Case(1100, 16, 3, run=2000),
    "many programs": Case(1300, 16, 6, run=70),
    "256 classes, 7 channels": Case(60, 7, 256, run=3),
    "several blocks of channels": Case(70, 130, 4, scaled=True),
    "1000 channels": Case(16, 1000, 3, dtype=torch.bfloat16),
    "ReLU, one class, one channel": Case(40, 1, 1, slope=0.0),
    "one pixel": Case(1, 32, 2),
    "no pixel": Case(0, 32, 4, scaled=True),
    "64-bit ids": Case(60, 16, 5, ids=torch.int64),
    "not contiguous": Case(90, 24, 5, scaled=True, strided=True),
}


def inputs(case: Case, device: str) -> tuple[Tensor, tuple[Tensor | None, ...]]:
    """Gradient of y, and (x, ids, gamma, beta, mean, rstd, scales)."""
    torch.manual_seed(0)
    shape = (case.pixels, case.channels)
    classes = torch.randint(case.rows, (case.pixels // case.run + 1,), device=device)
    ids = classes.repeat_interleave(case.run)[: case.pixels].to(case.ids)
    x, grad = (torch.randn(shape, device=device).to(case.dtype) for _ in range(2))
    gamma, beta = (torch.randn(case.rows, case.channels, device=device) for _ in range(2))
    mean, rstd = torch.randn(case.channels, device=device), torch.rand(case.channels, device=device) + 0.5
    scales = torch.randn(2, case.pixels, device=device) if case.scaled else None
    if case.slope is not None:
        # Rounding may put a value so close to 0 on the other side, where its gradient is another.
        pre = PLAIN.apply(x.float(), ids, gamma, beta, mean, rstd, scales, None)
        grad = grad * (pre.abs() > 1e-4)
    if case.strided:
        x, grad, gamma = (tensor.t().contiguous().t() for tensor in (x, grad, gamma))
        scales = None if scales is None else scales.t().contiguous().t()
    return grad, (x, ids, gamma, beta, mean, rstd, scales)


def check(case: Case, device: str) -> None:
    """Raises AssertionError where the kernels' results are not those of the plain version in float64."""
    kernels = importlib.import_module("clade.nn.triton.modulation")
    grad, given = inputs(case, device)
    x = given[0]
    assert x is not None
    wide = [t.double() if t is not None and t.is_floating_point() else t for t in given]
    y = kernels.apply(*given, case.slope)
    sums = kernels.reduce(grad, *given, case.slope)
    expected = PLAIN.reduce(grad.double(), *wide, case.slope)
    inner_mean = expected[2] / max(1, case.pixels)
    dx = kernels.input_gradient(grad, *given, case.slope, inner_mean.float())
    pairs = {
        "y": (y, PLAIN.apply(*wide, case.slope), case.dtype),
        "dgamma": (sums[0], expected[0], torch.float32),
        "dbeta": (sums[1], expected[1], torch.float32),
        "inner": (sums[2], expected[2], torch.float32),
        "dscales": (sums[3], expected[3], torch.float32),
        "dx": (dx, PLAIN.input(grad.double(), *wide, case.slope, inner_mean), case.dtype),
    }
    for name, (mine, reference, dtype) in pairs.items():
        if reference is None:
            assert mine is None, name
            continue
        assert mine.dtype == dtype, name
        assert mine.shape == reference.shape, name
        # Of the largest number, because a sum that cancels keeps its terms' error. A whole unit of the last place: the
        # interpreter cuts bfloat16 off instead of rounding it.
        largest = float(reference.abs().max()) if reference.numel() else 0.0
        unit = {torch.float32: 0.0, torch.bfloat16: 2**-7, torch.float16: 2**-10}[dtype]
        torch.testing.assert_close(
            mine.double(), reference, rtol=unit, atol=1e-5 * largest, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.fixture(scope="module")
def interpreted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What went wrong in each case, in a process that interprets the kernels; empty where nothing did."""
    pytest.importorskip("triton", reason="Triton is not made for this system")
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, __file__], capture_output=True, text=True, env=environment, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_interpreted_kernels_are_the_plain_version(interpreted: dict[str, str], name: str):
    assert interpreted[name] == ""


def test_the_operation_finds_the_kernels(monkeypatch):
    pytest.importorskip("triton", reason="Triton is not made for this system")
    kernels = importlib.import_module("clade.nn.triton.modulation")
    monkeypatch.setattr(kernels, "try_out", lambda: None)
    found = modulation._triton.__wrapped__()
    assert found == (kernels.apply, kernels.reduce, kernels.input_gradient)


def test_where_triton_makes_no_kernels_the_plain_version_is_used_and_it_says_so(monkeypatch):
    pytest.importorskip("triton", reason="Triton is not made for this system")

    def fails():
        raise RuntimeError("Failed to find C compiler\nlong story")

    monkeypatch.setattr(importlib.import_module("clade.nn.triton.modulation"), "try_out", fails)
    with pytest.warns(RuntimeWarning, match=r"\(Failed to find C compiler\).*gcc"):
        assert modulation._triton.__wrapped__() is None


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"x": torch.zeros(6, 16, dtype=torch.float64)}, "needed is .P, C. of float32"),
        ({"x": torch.zeros(6, 4, 4)}, r"\(6, 4, 4\)"),
        ({"ids": torch.zeros(5, dtype=torch.int32)}, r"ids is \(5,\).*has to be \(6,\)"),
        ({"ids": torch.zeros(6)}, "int32"),
        ({"beta": torch.zeros(2, 16)}, r"beta is \(2, 16\).*has to be \(3, 16\)"),
        ({"scales": torch.zeros(6, 2)}, r"scales is \(6, 2\).*has to be \(2, 6\)"),
    ],
)
def test_what_does_not_fit_is_refused(changed: dict[str, Tensor], message: str):
    pytest.importorskip("triton", reason="Triton is not made for this system")
    kernels = importlib.import_module("clade.nn.triton.modulation")
    names = ("x", "ids", "gamma", "beta", "mean", "rstd", "scales")
    given = {**dict(zip(names, inputs(Case(6, 16, 3), "cpu")[1], strict=True)), **changed}
    with pytest.raises(CladeError, match=message):
        kernels.apply(**given, slope=None)
    with pytest.raises(CladeError, match="gradient is"):
        kernels.reduce(torch.zeros(7, 16), *inputs(Case(6, 16, 3), "cpu")[1], None)


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("scaled", [False, True])
def test_the_kernels_compile_for_a_gpu(capability: int, scaled: bool):
    triton = pytest.importorskip("triton", reason="Triton is not made for this system")
    kernels = importlib.import_module("clade.nn.triton.kernels")
    bases = {"x": "*bf16", "y": "*bf16", "grad": "*bf16", "dx": "*bf16", "ids": "*i32", "met": "*i8", "slope": "fp32"}
    numbers = ("pixels", "channels", "rows", "programs", "span")
    for kernel, blocks, warps in (
        (kernels.apply_kernel, {"BLOCK_P": 32, "BLOCK_C": 64}, 4),
        (kernels.input_kernel, {"BLOCK_P": 32, "BLOCK_C": 64}, 4),
        (kernels.reduce_kernel, {"BLOCK_P": 16, "BLOCK_C": 64, "BLOCK_K": 64}, 1),
    ):
        fixed = {"SCALED": scaled, "LEAKY": True, **blocks}
        names = kernel.arg_names
        types = {name: bases.get(name, "i32" if name in numbers else "*fp32") for name in names if name not in fixed}
        compiled = _compiled(triton, kernel, types, fixed, capability, warps)
        assert f".target sm_{capability}" in compiled.asm["ptx"]
        assert compiled.asm["cubin"]


def _compiled(triton, kernel, types, fixed, capability, warps):
    """The kernel as a GPU with that compute capability would get it, without having one."""
    target = importlib.import_module("triton.backends.compiler").GPUTarget("cuda", capability, 32)
    source = importlib.import_module("triton.compiler").ASTSource
    options = {"num_warps": warps, "enable_fp_fusion": True}
    try:
        signature = {name: types.get(name, "constexpr") for name in kernel.arg_names}
        made = source(fn=kernel, signature=signature, constexprs=fixed)
        return triton.compile(made, target=target, options=options)
    except TypeError:  # before Triton 3.3
        made = source(fn=kernel, signature=types, constants=fixed)
        return triton.compile(made, target=target, options=options)


on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.gpu
@on_gpu
@pytest.mark.parametrize(
    "name",
    [  # few, because each one compiles its kernels
        "runs of a class",
        "no activation",
        "float16 and scales",
        "another class at every pixel",
        "256 classes, 7 channels",
    ],
)
def test_kernels_on_the_gpu_are_the_plain_version(name: str):
    check(CASES[name], "cuda")


@pytest.mark.gpu
@on_gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize(("channels", "side"), [(64, 256), (128, 128), (1024, 16)])
def test_training_sizes_on_the_gpu_are_the_plain_version(
    channels: int, side: int, scaled: bool, dtype: torch.dtype
) -> None:
    check(Case(16 * side * side, channels, 36, run=37, dtype=dtype, scaled=scaled), "cuda")


@pytest.mark.gpu
@on_gpu
def test_more_than_2_to_the_31_numbers_reach_their_places():
    if torch.cuda.get_device_properties(0).total_memory < 24 * 2**30:
        pytest.skip("needs 24 GB on the device")
    kernels = importlib.import_module("clade.nn.triton.modulation")
    pixels, channels = 2**25 + 5, 64
    x = torch.zeros(pixels, channels, dtype=torch.bfloat16, device="cuda")
    ids = torch.zeros(pixels, dtype=torch.int32, device="cuda")
    x[-5:], ids[-5:] = 3, 1
    gamma, beta = torch.ones(2, channels, device="cuda"), torch.zeros(2, channels, device="cuda")
    zeros, ones = torch.zeros(channels, device="cuda"), torch.ones(channels, device="cuda")
    given = (x, ids, gamma, beta, zeros, ones, None, SLOPE)
    assert torch.equal(kernels.apply(*given), x)
    dgamma, dbeta, _, _ = kernels.reduce(x, *given)
    assert torch.equal(dgamma, torch.tensor([[0.0], [45.0]], device="cuda").expand(2, channels))
    assert torch.equal(dbeta, torch.tensor([[0.0], [15.0]], device="cuda").expand(2, channels))
    assert torch.equal(kernels.input_gradient(x, *given, torch.zeros(2, channels, device="cuda")), x)


@pytest.mark.gpu
@on_gpu
def test_sums_on_the_gpu_are_the_same_bits_every_time():
    kernels = importlib.import_module("clade.nn.triton.modulation")
    grad, given = inputs(Case(4 * 128 * 128, 128, 36, run=23, dtype=torch.bfloat16, scaled=True), "cuda")
    first = kernels.reduce(grad, *given, SLOPE)
    for _ in range(5):
        for one, other in zip(first, kernels.reduce(grad, *given, SLOPE), strict=True):
            assert torch.equal(one, other)


@pytest.mark.gpu
@on_gpu
def test_a_cuda_graph_records_forward_and_backward():
    kernels = importlib.import_module("clade.nn.triton.modulation")
    grad, given = inputs(Case(2 * 64 * 64, 64, 36, dtype=torch.bfloat16), "cuda")

    def step() -> tuple[Tensor, ...]:
        y = kernels.apply(*given, SLOPE)
        dgamma, dbeta, inner, _ = kernels.reduce(grad, *given, SLOPE)
        return y, dgamma, dbeta, kernels.input_gradient(grad, *given, SLOPE, inner / len(grad))

    eager = [part.clone() for part in step()]
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        recorded = step()
    for part in recorded:
        part.fill_(float("nan"))
    graph.replay()
    for one, other in zip(eager, recorded, strict=True):
        assert torch.equal(one, other)


def main() -> None:
    """Every case under the interpreter: {name: what went wrong} as JSON."""
    torch.set_num_threads(1)
    wrong = {}
    for name, case in CASES.items():
        try:
            check(case, "cpu")
            wrong[name] = ""
        except Exception as error:  # whatever it is, the test of the case shows it
            wrong[name] = f"{type(error).__name__}: {error}"
    print(json.dumps(wrong))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    main()
