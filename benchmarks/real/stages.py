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
from benchmarks.real.plan import Plan, Training
from clade.atomic import atomic_path
from clade.checkpoints import read_checkpoint, read_header
from clade.complexity import count
from clade.data import plain_resize
from clade.evaluation.sheets import comparison_sheet
from clade.hashing import file_hash
from clade.images import save_png
from clade.judging.scoring import score
from clade.labels import LabelMap
from clade.measure import alternate, machine_lines, use_cores
from clade.metrics.judges.opened import open_judge
from clade.scoring import Protocol
from clade.synthesizer import Synthesizer
from clade.training.builders import build_dataset, build_generator
from clade.training.fit import stepper

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
    """The segmenter of the plan; whether it is ready."""
    marker = job.out / "judge" / "finished"
    if marker.exists():
        return True
    words = ["judge", "train", job.plan.judge, "--data.root", job.data, "--training.threads", str(job.threads)]
    codes = run_all(job, {"judge": [*words, "--out", str(job.out / "judge")]})
    if codes["judge"] or _out_of_time(job):
        return False
    marker.touch()
    judge = open_judge(job.judge)
    recipe = Training(system="", seed=0, recipe=job.plan.recipe, overrides={}).resolved(job.data)
    found = {split: score(judge, recipe.data, split).to_dict() for split in job.plan.splits}
    write_json(job.results / "judge.json", {"key": judge.key, "sha256": file_hash(job.judge), "ceilings": found})
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
    waiting, running, codes = list(commands), {}, dict.fromkeys(commands, 1)
    environment = {**os.environ, "OMP_NUM_THREADS": str(job.threads), "OMP_WAIT_POLICY": "PASSIVE"}
    try:
        while running or (waiting and not _out_of_time(job)):
            while waiting and len(running) < job.jobs and not _out_of_time(job):
                name = waiting.pop(0)
                (job.out / name).mkdir(parents=True, exist_ok=True)
                print(f"{name}: begins ({len(waiting)} waiting)", flush=True)
                with (job.out / name / "log.txt").open("a") as log:
                    running[name] = subprocess.Popen(
                        [sys.executable, "-m", "clade", *commands[name]], stdout=log, stderr=log, env=environment
                    )
            if _out_of_time(job):
                for process in running.values():
                    process.send_signal(signal.SIGTERM)
            for name, process in list(running.items()):
                try:
                    codes[name] = process.wait(timeout=1.0)
                except subprocess.TimeoutExpired:
                    continue
                del running[name]
                told = (job.out / name / "log.txt").read_text(encoding="utf-8").split("\n")
                last = next((line for line in reversed(told) if line.strip()), "")
                print(f"{name}: ended with {codes[name]}: {last}", flush=True)
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.wait()
    return codes


def _out_of_time(job: Job) -> bool:
    return job.deadline is not None and time.monotonic() > job.deadline


def evaluate(job: Job, name: str, checkpoint: Path) -> None:
    """Scores of a checkpoint on every split, with photos of both references -> results/NAME/SPLIT-REFERENCE.json."""
    for split in job.plan.splits:
        for reference in REFERENCES:
            target = job.results / name / f"{split}-{reference}.json"
            if target.exists() and json.loads(target.read_text())["checkpoint"]["sha256"] == file_hash(checkpoint):
                continue
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


def convert(job: Job) -> bool:
    """SPADE -> CLADE by the rows of the patches, and by fitted tables; both fine-tuned; all evaluated."""
    plan, done = job.plan, True
    if plan.convert is None:
        return True
    for seed in plan.systems[plan.convert].seeds:
        source = f"{plan.convert}-{seed}"
        if not finished(job.out / source):
            return False
        commands = {}
        kinds = {"converted": [], **({"fitted": ["--fit", str(plan.fit)]} if plan.fit else {})}
        for kind, options in kinds.items():
            name = f"{source}-{kind}"
            recipe = job.out / name / "finetune.yaml"
            if not recipe.exists():
                (job.out / name).mkdir(parents=True, exist_ok=True)
                words = ["convert", "--to", "clade", str(job.checkpoint(source)), "--data", job.data, *options]
                words += ["--out", str(job.checkpoint(name)), "--recipe-out", str(recipe), "--json"]
                told = subprocess.run(
                    [sys.executable, "-m", "clade", *words], check=True, stdout=subprocess.PIPE, text=True
                ).stdout
                write_json(job.results / name / "convert.json", json.loads(told))
            if not finished(job.out / f"{name}-finetuned"):
                words = ["train", str(recipe), "--data.root", job.data, "--training.threads", str(job.threads)]
                commands[f"{name}-finetuned"] = [*words, "--out", str(job.out / f"{name}-finetuned")]
        run_all(job, commands)
        for kind in kinds:
            name = f"{source}-{kind}"
            evaluate(job, name, job.checkpoint(name))
            if finished(job.out / f"{name}-finetuned"):
                evaluate(job, f"{name}-finetuned", job.checkpoint(f"{name}-finetuned"))
            else:
                done = False
    return done


def costs(job: Job) -> None:
    """Seconds per training step and per drawn picture, all systems taking turns -> results/costs.json."""
    target = job.results / "costs.json"
    if target.exists():
        return
    use_cores(job.threads)
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


def analyze(job: Job) -> None:
    """Section 3.1 of the trained SPADE -> results/analysis/."""
    plan = job.plan
    if plan.analyze is None or (job.results / "analysis" / "analysis.json").exists():
        return
    source = f"{plan.analyze}-{plan.systems[plan.analyze].seeds[0]}"
    scratch = job.out / "analysis"
    words = ["analyze", str(job.checkpoint(source)), "--data", job.data, "--out", str(scratch), "--pictures", "1"]
    subprocess.run([sys.executable, "-m", "clade", *words], check=True)
    (job.results / "analysis").mkdir(parents=True, exist_ok=True)
    for path in sorted(scratch.iterdir()):
        if path.suffix == ".png" or path.name in ("analysis.json", "resolutions.csv"):
            shutil.copyfile(path, job.results / "analysis" / path.name)


def sheets(job: Job) -> None:
    """Label map, photo and every system's picture of the same label maps -> results/sheet-SPLIT.png."""
    plan = job.plan
    chosen = {plan.systems[name].title: job.checkpoint(f"{name}-{plan.systems[name].seeds[0]}") for name in plan.sheet}
    for split in plan.splits:
        pictures = comparison_sheet(chosen, job.data, split=split, seed=plan.sheet_seed, maps=plan.maps)
        save_png(pictures, job.results / f"sheet-{split}.png")


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
