"""docs/results.md out of what `python -m benchmarks.real run` left in benchmarks/results/real, and of nothing else."""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Sequence
from pathlib import Path

from benchmarks.common import RESULTS
from benchmarks.real.found import SCORES, Found, spread, table
from benchmarks.real.plan import FOLDER, read_plan
from clade.io.atomic import atomic_path

ROOT = Path(__file__).parents[2]
REAL = RESULTS / "real"
_INTRODUCTION = """# Results on real photos

Does CLADE keep SPADE's quality at a fraction of its cost, and do positions help? This page is made by
`python -m benchmarks.real report` from the files in [benchmarks/results/real](../benchmarks/results/real), which
`python -m benchmarks.real run PLAN --data DIR` leaves; every number on it is in one of them, with the checkpoint's
hash, the recipe, the seed and the versions. Here: {plans}.

These are small trainings with few photos. They rank systems under one budget; none of these numbers can be compared
with the paper's, whose networks, data and judges are others. Small trainings of single systems are in
[results/](results/README.md)."""


def write_report(plans: Sequence[str], target: Path | None = None) -> Path:
    """Write docs/results.md, or another file, of the plans that have results; pictures go into results/ beside it."""
    target = target or ROOT / "docs" / "results.md"
    pictures = target.parent / "results"
    pictures.mkdir(parents=True, exist_ok=True)
    found = [Found(read_plan(name), REAL / name) for name in plans if (REAL / name).is_dir()]
    parts = [_INTRODUCTION.format(plans="; ".join(one.plan.title for one in found))]
    for one in found:
        parts += section(one, pictures)
    with atomic_path(target) as temporary:
        temporary.write_text("\n\n".join(part.strip("\n") for part in parts if part) + "\n", encoding="utf-8")
    return target


def section(found: Found, pictures: Path) -> list[str]:
    """The parts of one plan; empty ones for what was not done."""
    plan = found.plan
    notes = FOLDER / f"{plan.name}.md"
    parts = [f"## {plan.title}", progress(found), summary(found), setting(found)]
    for split, words in plan.splits.items():
        for title, systems in plan.tables.items():
            there = [name for name in systems if found.over_seeds(name, "l1", split)]
            first = title == next(iter(plan.tables))
            # Ablations of the split that rankings go by, once there is something to compare.
            if there and (first or (split == found.split and len(there) > 1)):
                parts += [f"### {title}: {words}", scores(found, there, split)]
                parts.append(ceiling(found, split) if first else "")
    parts += [costs(found), ranking(found), sheets(found, pictures), classes(found), conversion(found)]
    parts.append(analysis(found, pictures))
    if notes.exists():
        parts.append(notes.read_text(encoding="utf-8"))
    return [*parts, repeating(found)]


def progress(found: Found) -> str:
    """What is not there yet; empty where all is."""
    missing = [one.name for one in found.plan.trainings if not found.values(one.name)]
    if not missing:
        return ""
    done = len(found.plan.trainings) - len(missing)
    return f"**Not finished:** {done} of {done + len(missing)} trainings are scored; to come: {', '.join(missing)}."


def setting(found: Found) -> str:
    """The budget and the machine, as the first evaluation has them."""
    evaluated = (found.evaluation(one.name) for one in found.plan.trainings)
    one = next((evaluation for evaluation in evaluated if evaluation is not None), None)
    if one is None:
        return ""
    recipe = one.checkpoint["recipe"]
    data, training, losses, rates = recipe["data"], recipe["training"], recipe["losses"], recipe["optimizer"]
    terms = (("feature_matching", "feature matching"), ("perceptual", "VGG"), ("l1", "L1"))
    weights = " + ".join(f"{losses[key]:g} x {word}" for key, word in terms if losses[key])
    augment = recipe["discriminator"]["diff_augment"]
    height, width = data["size"]
    precision = one.checkpoint["info"].get("precision", training["precision"])  # what 'auto' came to
    inception = "FID in Inception's." if "fid" in one.scores else "Inception's weights were not at hand: no FID."
    return (
        f"Every system: recipe `{found.plan.recipe}`, split file `{data['split_file']}`, {height}x{width}, width "
        f"{recipe['generator']['width']}, {training['steps']} steps of batch {training['batch_size']} "
        f"({precision}), {recipe['discriminator']['name']} discriminator of width "
        f"{recipe['discriminator']['width']}, {losses['adversarial']} + {weights}, learning rates "
        f"{rates['lr_generator']:g} and {rates['lr_discriminator']:g}, "
        f"{f'DiffAugment ({augment})' if augment else 'no DiffAugment'}, EMA {training['ema']:g}; the averaged "
        "generator of the last step is what is scored. Systems differ in the generator alone. A mean is over seeds, "
        "± is their standard deviation (n - 1).\n\n"
        f"Machine: {one.machine.get('processor', '?')}; Python {one.versions.get('python', '?')}, torch "
        f"{one.versions.get('torch', '?')}; {one.created[:10]}. Judge: `clade judge train {found.plan.judge}`, trained "
        "on the same training photos; its best epoch was chosen by the photos of the held-out part. FD is the Fréchet "
        "distance in the judge's "
        f"pooled features; {inception} Distances are of {one.pictures} pictures, fewer than there are features, and "
        "biased upwards for all alike."
    )


def scores(found: Found, systems: Sequence[str], split: str) -> str:
    shown = [one for one in SCORES if any(found.over_seeds(name, one[0], split) for name in systems)]
    rows = []
    for name in systems:
        values = [spread(found.over_seeds(name, key, split), digits) for key, _, digits in shown]
        rows.append([found.title(name), str(len(found.over_seeds(name, "l1", split))), *values])
    return table(["system", "seeds", *(title for _, title, _ in shown)], rows)


def ceiling(found: Found, split: str) -> str:
    judge = found.read("judge.json")
    if judge is None:
        return ""
    one, photos = judge["ceilings"][split], found.read("photos.json")
    parts = [
        f"The judge's ceiling: on the {one['pictures']} real photos of these maps it reaches mIoU "
        f"{100 * one['miou']:.2f} % and accuracy {100 * one['accuracy']:.2f} %. Drawn pictures can score higher, which "
        "does not make them more real: we think because a class looks the same in all of them."
    ]
    if photos is not None:
        parts.append(
            f"FD of these real photos to the training photos is {photos['fd'][split]:.1f}: pictures that are nearer to "
            "the training photos than that are no better for it. FD to these maps' photos has its best value at 0."
        )
    return " ".join(parts)


def costs(found: Found) -> str:
    told = found.read("costs.json")
    if told is None:
        return ""
    draw, step = ({name: statistics.median(s) for name, s in told[f"{k}_seconds"].items()} for k in ("draw", "step"))
    rows = []
    for name in draw:
        size = told["sizes"][name]
        rows.append(
            [
                found.title(name),
                f"{size['parameters'] / 1e6:.2f}",
                f"{size['multiply_adds'] / 1e9:.2f}",
                f"{1e3 * draw[name]:.0f}",
                f"{draw['spade'] / draw[name]:.1f}x" if "spade" in draw else "-",
                f"{told['batch'] / step[name]:.1f}",
            ]
        )
    columns = ["system", "parameters (M)", "multiply-adds (G)", "ms a picture", "SPADE's ms / its", "trains, images/s"]
    machine = "; ".join(line.lstrip("- ") for line in told["machine"])
    note = (
        f"Time: medians of {told['rounds']} runs, all systems taking turns on {told['threads']} thread; pictures by "
        "`clade.Synthesizer` (float32, no compilation), training steps whole (both networks, loading). "
        f"{machine}."
    )
    return "\n\n".join(["### Cost", table(columns, rows), note])


def classes(found: Found) -> str:
    """IoU of every class, of the first seed, beside the ceiling."""
    judge = found.read("judge.json")
    there = {name: found.evaluation(found.names(name)[0]) for name in found.plan.sheet}
    judged = {name: one.details["judge"]["iou"] for name, one in there.items() if one is not None}
    if judge is None or not judged:
        return ""
    rows = []
    for k, (name, real) in enumerate(judge["ceilings"][found.split]["iou"].items()):
        values = [None if real is None else 100 * real, *(iou[k] for iou in judged.values())]
        rows.append([name, *("-" if v is None or v != v else f"{v:.1f}" for v in values)])
    heading = f"### IoU by class (%): {found.plan.splits[found.split]}, first seed"
    return "\n\n".join([heading, table(["class", "real photos", *map(found.title, judged)], rows)])


def summary(found: Found) -> str:
    """The first pair in words, what it costs, and which of the paper's differences are here, too."""
    compared = found.comparisons()
    if not compared:
        return ""
    one, other = compared[0].one, compared[0].other
    words = {key: (title.rstrip(" ↑↓"), digits) for key, title, digits in SCORES}
    parts = []
    for pair in (c for c in compared if (c.one, c.other) == (one, other)):
        title, digits = words[pair.key]
        means = " and ".join(f"{statistics.mean(values):.{digits}f}" for values in (pair.ones, pair.others))
        parts.append(f"{title} {means} (difference {pair.shown(digits)})")
    heads = " and ".join(found.title(name) for name in (one, other))
    lines = [f"- **{heads}**: {'; '.join(parts)}."]
    told = found.read("costs.json")
    if told is not None:
        sizes = [told["sizes"][name] for name in (one, other)]
        draw, step = (
            [statistics.median(told[f"{kind}_seconds"][name]) for name in (one, other)] for kind in ("draw", "step")
        )
        lines.append(
            f"- **Cost of {found.title(one)}** over that of {found.title(other)}: "
            f"parameters {sizes[0]['parameters'] / sizes[1]['parameters']:.2f}, "
            f"multiply-adds {sizes[0]['multiply_adds'] / sizes[1]['multiply_adds']:.2f}, "
            f"time of a picture {draw[0] / draw[1]:.2f}, time of a training step {step[0] / step[1]:.2f}."
        )
    for agrees, kind in {True: "as in the paper", False: "**not** as in the paper"}.items():
        listed = [
            f"{found.title(c.one)} against {found.title(c.other)} ({words[c.key][0].removesuffix(' (%)')})"
            for c in compared
            if c.agrees is agrees
        ]
        lines.append(f"- Differences that are {kind}: {'; '.join(listed) or 'none'}.")
    undecided = sum(c.agrees is None for c in compared)
    lines.append(f"- Of {len(compared)} differences these seeds leave {undecided} undecided (the table of rankings).")
    return "\n\n".join([f"### In short: {found.plan.splits[found.split]}", "\n".join(lines)])


def ranking(found: Found) -> str:
    """Where differences point as the paper's do."""
    titles = {key: title for key, title, _ in SCORES}
    rows = [
        [f"{found.title(c.one)} against {found.title(c.other)}", titles[c.key], f"{c.paper:+.2f}", c.shown(), c.verdict]
        for c in found.comparisons()
    ]
    if not rows:
        return ""
    paper, freedom = found.plan.paper, max(c.freedom for c in found.comparisons())
    note = (
        "± is half of the 95 % interval of a difference of means, by Student's t: the spread of one seed is that of "
        f"all systems with several seeds, pooled ({freedom} degrees of freedom), and a difference counts where the "
        "interval leaves 0 out. Of systems with one seed it is as wide as the others' spread says. Seeds: how many of "
        "each system it would take for a difference of this size to count, if the spread stays what it is. FD to the "
        "training photos is the paper's protocol; what it says here depends on how far real photos are from these. "
        f"{paper.get('note', '')}"
    )
    heading = f"### Our ranking and the paper's ({paper['source']})"
    return "\n\n".join([heading, table(["pair", "score", "paper", "here", "verdict"], rows), note])


def conversion(found: Found) -> str:
    plan, rows = found.plan, []
    if plan.convert is None:
        return ""
    shown = [one for one in SCORES if one[0] != "fid"]
    kinds = {
        "": found.title(plan.convert),
        "-converted": "converted, rows of the patches",
        "-converted-finetuned": "... and fine-tuned",
        "-fitted": f"converted, fitted to {plan.fit} label maps",
        "-fitted-finetuned": "... and fine-tuned",
    }
    steps = 0
    for source in found.names(plan.convert):
        for suffix, title in kinds.items():
            one, values = found.evaluation(source + suffix), found.values(source + suffix)
            told = found.read(f"{source}{suffix}/convert.json")
            if one is not None:
                energy = "" if told is None else f"{100 * told['energy']:.1f} %"
                seed = source.rsplit("-", 1)[1]
                rows.append([title, seed, energy, *(f"{values[key]:.{digits}f}" for key, _, digits in shown)])
                if suffix.endswith("finetuned"):
                    steps = one.checkpoint["recipe"]["training"]["steps"]
    if len(rows) <= len(found.names(plan.convert)):
        return ""
    columns = ["network", "seed", "energy kept", *(title for _, title, _ in shown)]
    note = "`clade convert` ([how](convert.md)); energy kept: 1 - |I' - I|² / |I - mean(I)|² over pictures."
    if steps:
        note += f" A fine-tune takes {steps} steps (5 %), with a fresh discriminator, under the same losses."
    heading = f"### SPADE to CLADE without training: {plan.splits[found.split]}"
    return "\n\n".join([heading, table(columns, rows), note])


def sheets(found: Found, pictures: Path) -> str:
    parts, plan = [], found.plan
    for split, words in plan.splits.items():
        source = found.folder / f"sheet-{split}.png"
        if source.exists():
            name = f"{plan.name}-{split}.png"
            shutil.copyfile(source, pictures / name)
            parts.append(f"![Label map, photo and each system's picture](results/{name})")
            parts.append(
                f"*{words[0].upper()}{words[1:]}: label map, photo, and each system's picture (first seed) of "
                f"{plan.maps} maps that seed {plan.sheet_seed} chose.*"
            )
    return "\n\n".join(["### Pictures", *parts]) if parts else ""


def analysis(found: Found, pictures: Path) -> str:
    """Section 3.1 on the SPADE that was trained here."""
    told = found.read("analysis/analysis.json")
    if told is None:
        return ""
    rows = []
    for one in told["resolutions"]:
        etas = [one[key][part]["eta"] for key in ("gamma", "beta") for part in ("everything", "border")]
        inside = one["gamma"]["inside"]["pixels"] / one["gamma"]["everything"]["pixels"]
        shares = ["-" if eta is None else f"{100 * eta:.1f} %" for eta in (inside, *etas)]
        rows.append(["x".join(map(str, one["size"])), *shares])
    columns = ["features", "pixels inside", "eta of gamma", "at borders", "eta of beta", "at borders"]
    note = (
        "eta = E[Var(gamma | class)] / Var(gamma): 0 where the class decides everything ([how](analysis.md)); inside "
        "regions it is 0 by construction. " + " ".join(told["summary"])
    )
    parts = ["### How constant are gamma and beta? (section 3.1, Figures 2 and 3)", table(columns, rows), note]
    maps = sorted(path.name for path in (found.folder / "analysis").glob("maps-*.png"))
    figures = {
        **dict.fromkeys(maps[:1], "Figure 2: gamma and beta of one label map, one layer for each resolution"),
        "histograms.png": "Figure 3: distributions of gamma and beta inside the most frequent classes",
    }
    for source, words in figures.items():
        if (found.folder / "analysis" / source).exists():
            name = f"{found.plan.name}-{source.split('-')[0].removesuffix('.png')}.png"
            shutil.copyfile(found.folder / "analysis" / source, pictures / name)
            parts += [f"![{words}](results/{name})", f"*{words}.*"]
    return "\n\n".join(parts)


def repeating(found: Found) -> str:
    told = found.read("trainings.json") or {}
    command = f"python -m benchmarks.real run {found.plan.name} --data DIR"
    parts = [
        "### To repeat it",
        f"```sh\n{command}                 # all of it; the same command goes on where it stopped\n"
        f"{command} --only clade-0  # one training\n"
        "python -m benchmarks.real report   # this page\n```",
    ]
    if told:
        rows = [[f"`{name}`", f"`{one['sha256']}`"] for name, one in told.items()]
        parts += ["The checkpoints, which are not in the repository:", table(["training", "SHA-256"], rows)]
    return "\n\n".join(parts)
