"""The stages of a plan, each of which does what is not yet done."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import clade
from benchmarks.real.plan import Plan
from clade.complexity import count
from clade.data import plain_resize
from clade.engine import keep_pages
from clade.evaluation.sheets import comparison_sheet
from clade.io.atomic import atomic_path
from clade.io.hashing import file_hash
from clade.io.images import save_png
from clade.labels import LabelMap
from clade.metrics.extractors import create_extractor
from clade.metrics.frechet import frechet_distance
from clade.metrics.judges.opened import open_judge
from clade.metrics.scores import Protocol
from clade.metrics.statistics import Statistics, real_statistics
from clade.models.checkpoints import read_checkpoint, read_header
from clade.synthesis.synthesizer import Synthesizer
from clade.system.measure import alternate, machine_lines, use_cores
from clade.training.builders import build_dataset, build_generator
from clade.training.fit import stepper
from clade.training.judges.scoring import score

METRICS = ("miou", "accuracy", "fd", "l1")
REFERENCES = ("train", "val")
"""Photos that the Fréchet distance compares with: those trained on, and those of the label maps that are drawn."""


@dataclass(frozen=True)
class Job:
    """Where a plan is carried out.

    Attributes:
        data: folder of the dataset.
        out: folder of the trainings.
        results: folder that is committed: evaluations, costs, analysis; the report is made of these alone.
        jobs: trainings at once.
        threads: CPU threads of each.
        deadline: time.monotonic() after which trainings are told to save and stop.
        rounds: runs of which a time is the median.
        inception: weights file of Inception, where there is one.
    """

    plan: Plan
    data: str
    out: Path
    results: Path
    jobs: int = 1
    threads: int = 1
    deadline: float | None = None
    rounds: int = 15
    inception: str | None = None

    @property
    def judge(self) -> Path:
        return self.out / "judge" / "best.safetensors"

    def checkpoint(self, name: str) -> Path:
        return self.out / name / "last.safetensors"


def finished(folder: Path, steps: int | None = None) -> bool:
    """Whether a training's last checkpoint is from its last step."""
    path = folder / "last.safetensors"
    if not path.exists():
        return False
    header = read_header(path)
    recipe = header.get("recipe") or {}
    return header["info"].get("step") == (steps or recipe.get("training", {}).get("steps"))


def train_judge(job: Job) -> bool:
    """The segmenter of the plan, and its scores on real photos -> results/judge.json; whether it is ready."""
    marker, told = job.out / "judge" / "finished", job.results / "judge.json"
    if not marker.exists():
        words = ["judge", "train", job.plan.judge, "--data.root", job.data, "--training.threads", str(job.threads)]
        codes = run_all(job, {"judge": [*words, "--out", str(job.out / "judge")]})
        if codes["judge"] or out_of_time(job):
            return False
        marker.touch()
    if told.exists() and json.loads(told.read_text())["sha256"] == file_hash(job.judge):
        return True
    judge = open_judge(job.judge)
    data = job.plan.trainings[0].resolved(job.data).data
    found = {split: score(judge, data, split).to_dict() for split in job.plan.splits}
    write_json(told, {"key": judge.key, "sha256": file_hash(job.judge), "ceilings": found})
    return True


def train(job: Job, names: Sequence[str] = ()) -> bool:
    """All trainings, ``jobs`` at once, each going on where it stopped; whether all are done."""
    chosen = [one for one in job.plan.trainings if not names or one.system in names or one.name in names]
    commands = {
        one.name: [
            *("train", one.recipe, *one.arguments(), "--out", str(job.out / one.name)),
            *("--data.root", job.data, "--training.threads", str(job.threads)),
        ]
        for one in chosen
        if not finished(job.out / one.name)
    }
    run_all(job, commands)
    return all(finished(job.out / one.name) for one in chosen)


def run_all(job: Job, commands: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """Run `clade ...` commands, a few at once; name -> exit code. After the deadline they are told to save and stop."""
    waiting, running, told, codes = list(commands), {}, set(), dict.fromkeys(commands, 1)
    environment = {**os.environ, "OMP_NUM_THREADS": str(job.threads), "OMP_WAIT_POLICY": "PASSIVE"}
    try:
        while running or (waiting and not out_of_time(job)):
            while waiting and len(running) < job.jobs and not out_of_time(job):
                name = waiting.pop(0)
                (job.out / name).mkdir(parents=True, exist_ok=True)
                print(f"{name}: begins ({len(waiting)} waiting)", flush=True)
                with (job.out / name / "log.txt").open("a") as log:
                    running[name] = subprocess.Popen(
                        [sys.executable, "-m", "clade", *commands[name]], stdout=log, stderr=log, env=environment
                    )
            if out_of_time(job):
                for name in running.keys() - told:
                    running[name].send_signal(signal.SIGTERM)  # once: a second one would end it before it has saved
                    told.add(name)
            for name, process in list(running.items()):
                try:
                    codes[name] = process.wait(timeout=1.0)
                except subprocess.TimeoutExpired:
                    continue
                del running[name]
                log = (job.out / name / "log.txt").read_text(encoding="utf-8").split("\n")
                last = next((line for line in reversed(log) if line.strip()), "")
                print(f"{name}: ended with {codes[name]}: {last}", flush=True)
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.wait()
    return codes


def out_of_time(job: Job) -> bool:
    return job.deadline is not None and time.monotonic() > job.deadline


def evaluate_all(job: Job) -> bool:
    """Scores of all finished trainings; whether all of them are there."""
    names = (one.name for one in job.plan.trainings if finished(job.out / one.name))
    return all(evaluate(job, name, job.checkpoint(name)) for name in names)


def evaluate(job: Job, name: str, checkpoint: Path) -> bool:
    """Scores of a checkpoint on every split, with photos of both references -> results/NAME/SPLIT-REFERENCE.json.

    False where the time was up before all were there.
    """
    wanted = (file_hash(checkpoint), json.loads((job.results / "judge.json").read_text())["key"])
    for split in job.plan.splits:
        for reference in REFERENCES:
            target = job.results / name / f"{split}-{reference}.json"
            if target.exists():
                there = json.loads(target.read_text())
                enough = "fid" in there["scores"] or not job.inception
                if enough and (there["checkpoint"]["sha256"], there["weights"].get("judge")) == wanted:
                    continue
            if out_of_time(job):
                return False
            found = clade.evaluate(
                checkpoint,
                job.data,
                Protocol(name=f"real-{reference}", reference=reference),
                split=split,
                metrics=(*METRICS, *(("fid",) if job.inception else ())),
                judge=str(job.judge),
                extractor=f"judge:{job.judge}",
                weights={"inception": job.inception} if job.inception else None,
            )
            target.parent.mkdir(parents=True, exist_ok=True)
            found.save(target)
            scores = ", ".join(f"{key} {value:.4g}" for key, value in found.scores.items())
            print(f"{name} on {split}, photos of {reference}: {scores}", flush=True)
    return True


def photos(job: Job) -> None:
    """Fréchet distance of every split's photos to the training ones, as pictures are scored -> results/photos.json."""
    data, extractor = job.plan.trainings[0].resolved(job.data).data, create_extractor(f"judge:{job.judge}")

    def statistics(split: str) -> Statistics:
        dataset = build_dataset(data, split)
        return real_statistics(dataset, extractor, data.size, data.fit)  # pyright: ignore[reportArgumentType]  # checked there

    trained = statistics(data.train_split)
    found = {split: frechet_distance(statistics(split), trained) for split in job.plan.splits}
    write_json(job.results / "photos.json", {"extractor": extractor.key, "fd": found})


def convert(job: Job) -> bool:
    """SPADE -> CLADE by rows of patches and by fitted tables, all fine-tuned and evaluated; whether it is."""
    plan, done = job.plan, True
    if plan.convert is None:
        return True
    kinds = {"converted": [], **({"fitted": ["--fit", str(plan.fit)]} if plan.fit else {})}
    for source in (f"{plan.convert}-{seed}" for seed in plan.systems[plan.convert].seeds):
        if not finished(job.out / source) or out_of_time(job):
            done = False
            continue
        recipes = {kind: _converted(job, source, f"{source}-{kind}", options) for kind, options in kinds.items()}
        commands = {
            f"{source}-{kind}-finetuned": [
                *("train", str(recipe), "--out", str(job.out / f"{source}-{kind}-finetuned")),
                *("--data.root", job.data, "--training.threads", str(job.threads)),
            ]
            for kind, recipe in recipes.items()
            if not finished(job.out / f"{source}-{kind}-finetuned")
        }
        run_all(job, commands)
        for name in (f"{source}-{kind}{suffix}" for kind in kinds for suffix in ("", "-finetuned")):
            there = not name.endswith("-finetuned") or finished(job.out / name)
            done = there and evaluate(job, name, job.checkpoint(name)) and done
    return done


def _converted(job: Job, source: str, name: str, options: Sequence[str]) -> Path:
    """Convert a checkpoint, unless that is done; the recipe of the fine-tune."""
    recipe, told = job.out / name / "finetune.yaml", job.results / name / "convert.json"
    of = json.loads(told.read_text())["info"]["converted_from_sha256"] if told.exists() else None
    if not recipe.exists() or of != file_hash(job.checkpoint(source)):
        (job.out / name).mkdir(parents=True, exist_ok=True)
        words = ["convert", "--to", "clade", str(job.checkpoint(source)), "--data", job.data, *options]
        words += ["--out", str(job.checkpoint(name)), "--recipe-out", str(recipe), "--json"]
        clade = [sys.executable, "-m", "clade", *words]
        write_json(told, json.loads(subprocess.run(clade, check=True, stdout=subprocess.PIPE, text=True).stdout))
        shutil.rmtree(job.out / f"{name}-finetuned", ignore_errors=True)  # of another SPADE, or none
    return recipe


def costs(job: Job) -> bool:
    """Seconds per training step and drawn picture, all systems taking turns -> results/costs.json; whether it is."""
    target = job.results / "costs.json"
    if target.exists():
        return True
    if out_of_time(job):
        return False
    use_cores(job.threads)
    keep_pages()  # as `clade train` and `clade generate` do
    rounds = job.rounds
    first = {one.system: one for one in reversed(job.plan.trainings)}
    recipes = {name: first[name].resolved(job.data) for name in job.plan.systems}
    scratch = job.out / "costs"
    steps = alternate({name: stepper(recipe, scratch / name) for name, recipe in recipes.items()}, rounds, warmup=2)
    shutil.rmtree(scratch, ignore_errors=True)
    some = recipes[next(iter(recipes))]
    dataset = build_dataset(some.data, some.data.val_split)
    label = LabelMap(plain_resize(dataset.read(0), some.data.size).ids)
    drawn, sizes = {}, {}
    for name, recipe in recipes.items():
        generator = build_generator(recipe.generator, dataset.label_space, recipe.data.size)
        counted = count(generator, recipe.data.size, "paper")
        sizes[name] = {"parameters": counted.params, "multiply_adds": counted.macs}
        synthesizer = Synthesizer(generator, dataset.label_space)
        drawn[name] = lambda synthesizer=synthesizer: synthesizer(label)
    draws = alternate(drawn, rounds, warmup=2)
    found = {
        "threads": job.threads,
        "batch": some.training.batch_size,
        "rounds": rounds,
        "machine": machine_lines(),
        "sizes": sizes,
        "step_seconds": steps,
        "draw_seconds": draws,
    }
    write_json(target, found)
    return True


def analyze(job: Job) -> bool:
    """Section 3.1 of the trained SPADE -> results/analysis/; whether it is there."""
    plan = job.plan
    if plan.analyze is None or (job.results / "analysis" / "analysis.json").exists():
        return True
    source = f"{plan.analyze}-{plan.systems[plan.analyze].seeds[0]}"
    if not finished(job.out / source) or out_of_time(job):
        return False
    scratch = job.out / "analysis"
    words = ["analyze", str(job.checkpoint(source)), "--data", job.data, "--out", str(scratch), "--pictures", "1"]
    subprocess.run([sys.executable, "-m", "clade", *words], check=True)
    (job.results / "analysis").mkdir(parents=True, exist_ok=True)
    for path in sorted(scratch.iterdir()):
        if path.suffix == ".png" or path.name in ("analysis.json", "resolutions.csv"):
            shutil.copyfile(path, job.results / "analysis" / path.name)
    return True


def sheets(job: Job) -> bool:
    """Label map, photo and every system's picture of the same label maps -> results/sheet-SPLIT.png; whether it is."""
    plan = job.plan
    names = [f"{name}-{plan.systems[name].seeds[0]}" for name in plan.sheet]
    if not names or out_of_time(job) or not all(finished(job.out / name) for name in names):
        return not names
    chosen = {plan.systems[name].title: job.checkpoint(f"{name}-{plan.systems[name].seeds[0]}") for name in plan.sheet}
    for split in plan.splits:
        pictures = comparison_sheet(chosen, job.data, split=split, seed=plan.sheet_seed, maps=plan.maps)
        save_png(pictures, job.results / f"sheet-{split}.png")
    return True


def facts(job: Job) -> None:
    """What a report needs of each training beside its evaluations -> results/trainings.json."""
    found = {}
    for one in job.plan.trainings:
        path = job.checkpoint(one.name)
        if finished(job.out / one.name):
            info = read_checkpoint(path).info
            found[one.name] = {"sha256": file_hash(path), "bytes": path.stat().st_size, "info": info}
    write_json(job.results / "trainings.json", found)


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1) + "\n")
