"""The pages of docs/: what they link to, name, count and show is there, is up to date, and runs."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

import clade
from clade.cli import main
from clade.complexity.settings import SETTINGS, build
from clade.data import ScenesDataset
from clade.models import generator_options
from clade.recipes import list_merges, list_splits
from clade.training.judges import list_judge_recipes

ROOT = Path(__file__).parents[2]
SYSTEMS = ROOT / "docs/systems"
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
DATASETS = {
    "ADE20K": "ade20k",
    "COCO-Stuff": "coco-stuff",
    "Cityscapes": "cityscapes",
    "CelebAMask-HQ": "celebamask-hq",
    "DeepFashion": "deepfashion",
}


def load(name: str) -> ModuleType:
    """A script of docs/systems."""
    spec = importlib.util.spec_from_file_location(f"docs_systems_{name}", SYSTEMS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for their module
    spec.loader.exec_module(module)
    return module


tables = load("tables")


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text_of(page), re.DOTALL)


def commands(page: Path) -> list[str]:
    lines = (line.split("  #")[0].strip() for block in blocks(page, "sh") for line in block.splitlines())
    return [line for line in lines if line.startswith("clade ")]


def anchors(page: Path) -> set[str]:
    """Of the headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", text_of(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


# --- Pages, links, names ----------------------------------------------------------------------------------------------


def test_every_generator_has_a_page_that_says_its_name() -> None:
    assert set(tables.PAGES) == set(clade.list_generators()) == set(tables.SYSTEMS)
    for name, page in tables.PAGES.items():
        title = text_of(SYSTEMS / f"{page}.md").splitlines()[0]
        assert name in title.removeprefix("# ").split(", ")
    pages = {path.stem for path in SYSTEMS.glob("*.md")}
    assert pages == {"README", *tables.PAGES.values()}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_and_picture_is_there(page: Path) -> None:
    prose = re.sub(r"```.*?```", "", text_of(page), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if re.match(r"https?:", target):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), target
        assert not anchor or anchor in anchors(found), target


def test_every_picture_is_drawn_by_the_script_and_shown_on_a_page() -> None:
    drawn = {f"{name}.png" for name in load("draw").PICTURES}
    assert drawn == {path.name for path in (SYSTEMS / "img").iterdir()}
    assert drawn == {name for page in SYSTEMS.glob("*.md") for name in re.findall(r"\(img/([\w.-]+)\)", text_of(page))}
    for name in drawn:
        assert (SYSTEMS / "img" / name).stat().st_size < 60_000


def recipes_named(page: Path) -> set[str]:
    """What looks like a recipe's name, or is trained by."""
    prefixes = "|".join(sorted({recipe.split("-")[0] for recipe in clade.list_recipes()}))
    trained = {command.split()[2] for command in commands(page) if command.startswith("clade train ")}
    return trained | set(re.findall(rf"`((?:{prefixes})-[\w-]+)`", text_of(page)))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_recipe_that_is_named_exists(page: Path) -> None:
    plans = {path.stem for path in (ROOT / "benchmarks/real").glob("*.yaml")}
    others = {*clade.data.DATASETS.names(), *list_judge_recipes(), *list_splits(), *list_merges(), *plans}
    assert recipes_named(page) - {*clade.list_recipes(), *others} == set()


def test_every_recipe_is_named_on_a_system_s_page() -> None:
    assert set(clade.list_recipes()) <= set().union(*map(recipes_named, SYSTEMS.glob("*.md")))


@pytest.mark.parametrize("name", clade.list_generators())
def test_every_option_is_explained_on_its_page_or_for_all(name: str) -> None:
    known = set(generator_options(name))
    common, own = explained("README"), explained(tables.PAGES[name])
    sharing = {other for other, page in tables.PAGES.items() if page == tables.PAGES[name]}
    assert own <= set().union(*(generator_options(other) for other in sharing))
    linked = re.findall(r"\]\(([\w-]+)\.md#options\)", text_of(SYSTEMS / f"{tables.PAGES[name]}.md"))
    inherited = set().union(*(explained(page) for page in [*linked, *INHERITED.get(name, ())]))
    assert known <= common | own | inherited


INHERITED = {"spade-light": ("clade", "clade-icpe"), "dagan": ("clade", "clade-icpe"), "spade": ("clade",)}


def explained(page: str) -> set[str]:
    """Options in the first column of a page's table of options."""
    options = re.findall(
        r"\| option \| meaning \|\n\|---\|---\|\n(.*?)\n\n", text_of(SYSTEMS / f"{page}.md"), re.DOTALL
    )
    return {
        name for table in options for row in table.splitlines() for name in re.findall(r"`(\w+)`", row.split("|")[1])
    }


# --- Tables -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("page", ["README", *dict.fromkeys(tables.PAGES.values())])
def test_tables_are_those_that_the_script_makes(page: str) -> None:
    text = text_of(SYSTEMS / f"{page}.md")
    assert text.count("<!-- table: ") == len(tables.tables(page))
    assert tables.updated(page, text) == text, "run `python docs/systems/tables.py`"


def test_a_table_without_markers_is_named() -> None:
    with pytest.raises(ValueError, match=r"sean\.md: no <!-- table: sizes -->"):
        tables.updated("sean", "# sean")


# --- Published weights ------------------------------------------------------------------------------------------------


def imports() -> list[tuple[str, str, str]]:
    """(page, the call, dataset) of every line that imports published weights."""
    found = []
    for page in sorted(SYSTEMS.glob("*.md")):
        for call, comment in re.findall(
            r"^generator = (clade\.import_official\(.*?\))(?:  # (.*))?$", text_of(page), re.M
        ):
            named = [dataset for title, dataset in DATASETS.items() if title in comment]
            found += [(page.stem, call, dataset) for dataset in named or ["ade20k"]]
    return found


@pytest.mark.parametrize(("page", "call", "dataset"), imports())
def test_published_weights_come_in_by_the_lines_of_the_pages(page: str, call: str, dataset: str) -> None:
    name = re.search(r'"([\w-]+)"', call)
    assert name is not None
    setting = SETTINGS[dataset]
    with_encoder = {"encoder": True, "z_dim": 256} if "encoder=" in call else {}
    options = {key: value for key, value in with_encoder.items() if key in generator_options(name[1])}
    original = build(name[1], {**setting.options(name[1]), **options}, values=False)
    names = {"clade": clade, "state": clade.export_official(original)}
    if original.encoder is not None and not original.encoder_is_part:
        names["encoder_state"] = clade.export_official(original.encoder)
    with torch.device("meta"):
        generator = eval(call, names)
    assert shapes(generator) == shapes(original)
    assert generator.multiple == original.multiple
    assert (generator.num_classes, generator.num_rows) == (setting.num_classes, original.num_rows)
    assert generator.uses_instances == original.uses_instances


def shapes(module: torch.nn.Module) -> dict[str, torch.Size]:
    return {key: value.shape for key, value in module.state_dict().items()}


# --- Commands and Python ----------------------------------------------------------------------------------------------


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what docs/multi-modal.md works on: two checkpoints, a dataset, photos."""
    monkeypatch.chdir(tmp_path)
    for split in ("train", "val"):
        scenes = ScenesDataset(split=split, count=2, val_count=2, height=64, width=64)
        for index in range(len(scenes)):
            sample = scenes.read(index)
            raw = np.where(sample.ids == scenes.label_space.num_classes, 255, sample.ids).astype(np.uint8)
            for kind, pixels in (("images", sample.image), ("labels", raw)):
                Path(f"dataset/{split}/{kind}").mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(f"dataset/{split}/{kind}/{index}.png")
    for index, name in enumerate(("dusk", "noon")):
        Image.open(f"dataset/train/images/{index}.png").save(f"{name}.jpg")
        Image.open(f"dataset/train/labels/{index}.png").save(f"{name}.png")
    space = scenes.label_space
    kept = {"num_classes": space.num_classes, "unknown_class": space.unknown_class, "width": 2}
    torch.manual_seed(0)
    generators = {
        "mine": clade.create_generator("clade", **kept, z_dim=4, size=(64, 64), encoder=True, encoder_width=2),
        "regions": clade.create_generator("sean", **kept, style_dim=4, hidden=4, encoder_width=2),
    }
    for name, generator in generators.items():
        with torch.no_grad():
            for parameter in generator.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.2)
        Path(f"runs/{name}").mkdir(parents=True)
        clade.save(generator, f"runs/{name}/last.safetensors", label_space=space)
    return tmp_path


@pytest.mark.slow
def test_commands_of_the_multi_modal_page_write_the_files_that_it_names(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = commands(ROOT / "docs/multi-modal.md")
    assert len(lines) >= 10
    for line in lines:
        assert main(shlex.split(line)[1:]) == 0, (line, capsys.readouterr().err)
    written = {folder: sorted(path.name for path in Path(folder).iterdir()) for folder in ("one", "four", "way", "c")}
    several = {count: [f"{name}-{k}.png" for name in "01" for k in range(1, count + 1)] for count in (4, 5)}
    assert written == {
        "one": ["0.png", "1.png"],
        "four": [*several[4], "grid.png"],
        "way": several[5],
        "c": ["0.png", "1.png"],
    }


def test_python_of_the_multi_modal_page_does_what_it_says(workplace: Path) -> None:
    names: dict[str, object] = {}
    for block in blocks(ROOT / "docs/multi-modal.md", "python"):
        exec(block, names)
    image, same = names["image"], names["same"]
    assert isinstance(image, torch.Tensor)
    assert isinstance(same, torch.Tensor)
    assert image.shape == (1, 3, 64, 64)
    assert torch.equal(image, same)
    for several, count in (("samples", 4), ("around", 4), ("steps", 5)):
        assert len(names[several]) == count  # pyright: ignore[reportArgumentType]
    assert Image.open("sheet.png").size == (5 * 64 + 6 * 4, 64 + 2 * 4)


@pytest.mark.slow
def test_the_demo_page_draws_what_it_paints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    painting, drawing = blocks(ROOT / "docs/demo.md", "python")
    names: dict[str, object] = {}
    exec(painting, names)
    clade.save(clade.create_generator("clade", num_classes=3, width=8), "demo32.safetensors")
    lines = commands(ROOT / "docs/demo.md")
    assert len(lines) >= 5
    for line in lines:
        assert main(shlex.split(line)[1:]) == 0, line
    exec(drawing, names)
    assert len(list(Path("pictures").iterdir())) == 6
    assert Path("sheet/grid.png").exists()
    assert Image.open("mine/street.png").size == (171, 128)
    assert Image.open("picture.png").size == (171, 128)
    assert Path("demo32-half.safetensors").stat().st_size < Path("demo32.safetensors").stat().st_size * 0.6


@pytest.mark.slow
def test_commands_of_the_systems_page_run(capsys: pytest.CaptureFixture[str]) -> None:
    lines = [line for line in commands(SYSTEMS / "README.md") if line.startswith("clade profile")]
    assert lines
    for line in lines:
        words = [*shlex.split(line)[1:], "--size", "64x64", "--format", "json"]
        assert main(words) == 0, (line, capsys.readouterr().err)
        assert json.loads(capsys.readouterr().out)[0]["rows"]
