"""What one has to install for what: drawing needs little; what is missing is named with the extra that brings it."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import clade
from clade.extras import DISTRIBUTION, EXTRAS, how_to_install

ROOT = Path(__file__).parents[2]
BASE = {"PIL", "cc3d", "filelock", "fsspec", "numpy", "rich", "safetensors", "torch"}
ELSEWHERE = {"pydantic", "starlette", "triton"}  # with FastAPI; with torch, where there is CUDA
PIP = {"cc3d": "connected-components-3d", "PIL": "pillow", "yaml": "pyyaml"}
# Runs a command in a process in which packages are not there.
WITHOUT = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
from clade.cli import main
sys.exit(main({arguments!r}))
"""


def without(blocked, *arguments):
    code = WITHOUT.format(blocked=set(blocked), arguments=list(arguments))
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def declared():
    """Extra -> names of packages, as pyproject.toml has them; "" for what is always installed."""
    tomllib = pytest.importorskip("tomllib")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    tables = {"": project["dependencies"], **project["optional-dependencies"]}
    names = {key: {re.split(r"[\[>=]", line)[0] for line in lines} for key, lines in tables.items()}
    assert project["name"] == DISTRIBUTION
    return names


def package_of(module):
    return PIP.get(module, module.replace("_", "-"))


def test_the_table_of_extras_is_that_of_the_project():
    names = declared()
    assert names[""] == {package_of(module) for module in BASE}
    for module, extra in EXTRAS.items():
        assert package_of(module) in names[extra], f"{module}: not in the extra '{extra}'"


def test_every_import_comes_with_the_package_or_an_extra():
    known = BASE | ELSEWHERE | EXTRAS.keys() | set(sys.stdlib_module_names) | {"clade"}
    for path in Path(clade.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                modules = [node.module or ""]
            assert {module.split(".")[0] for module in modules} <= known, f"{path}: {modules}"


def test_drawing_needs_no_extra(tmp_path):
    done = without(EXTRAS, "generate", "demo", "--out", str(tmp_path), "--grid", "--precision", "fp32")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "grid.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [(("train", "scenes-tiny"), "recipes"), (("study", "serve", "."), "study"), (("train", "scenes-tiny"), "train")],
)
def test_what_is_missing_is_named_with_its_extra(tmp_path, arguments, extra):
    done = without([module for module, one in EXTRAS.items() if one == extra], *arguments)
    assert done.returncode == 1
    assert f'pip install "{DISTRIBUTION}[{extra}]"' in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


def test_in_python_too():
    blocked = [module for module, extra in EXTRAS.items() if extra == "train"]
    code = WITHOUT.format(blocked=set(blocked), arguments=[]).split("from clade.cli")[0] + "import clade; clade.train"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (
        "ModuleNotFoundError: This needs lightning_fabric, which is not installed. It comes with the extra"
        in done.stderr
    )


def test_another_module_is_no_extra_of_ours():
    assert how_to_install(ModuleNotFoundError("x", name="surely_not_there")) is None
    assert how_to_install(ImportError("x")) is None


@pytest.mark.slow
def test_training_needs_its_own_extra_alone(tmp_path):
    names = declared()
    has = names[""] | names["train"] | names["recipes"]
    # Not those of torchmetrics, which imports more where that is listed as installed, and here it is.
    blocked = ["fastapi", "pycocotools", "segmentation_models_pytorch", "uvicorn"]
    assert not {package_of(module) for module in blocked} & has
    line = "train scenes-tiny --data.size [32,32] --training.steps 1 --training.batch_size 2 --training.calibrate 1"
    done = without(blocked, *line.split(), "--quiet", "--data.options", "{count: 2}", "--out", str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_wheel_draws_and_knows_its_recipes(tmp_path):
    """Built, unpacked elsewhere, and run from there: an editable install has files that a wheel may lack."""
    pip = [sys.executable, "-m", "pip"]
    source = tmp_path / "source"
    keep = shutil.ignore_patterns(".*", "runs", "__pycache__", "benchmarks", "tests")
    shutil.copytree(ROOT, source, ignore=keep)
    build = [*pip, "wheel", str(source), "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path / "wheel")]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = (tmp_path / "wheel").glob("clade_synthesis-*.whl")
    unpack = [*pip, "install", "--no-deps", "--target", str(tmp_path / "site"), str(wheel)]
    subprocess.run(unpack, check=True, capture_output=True)
    code = (
        "import clade, sys; from clade.cli import main; print(clade.__file__, len(clade.list_recipes()));"
        "sys.exit(main(['generate', 'demo', '--out', 'out']))"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    where, recipes = done.stdout.split()[:2]
    assert Path(where).is_relative_to(tmp_path)
    assert int(recipes) == len(clade.list_recipes())
    assert len(list((tmp_path / "out").glob("*.png"))) == 6
