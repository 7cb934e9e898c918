"""Real trainings on real photos, scored and reported.

python -m benchmarks.real run camvid-128 --data DIR     train the judge and every system, score, convert, analyze, draw
python -m benchmarks.real report                        docs/results.md out of benchmarks/results/real
python -m benchmarks.real list camvid-128               what a plan trains, and what of it is done

Everything goes on where it stopped: after Ctrl-C, a kill, or the time given by --minutes.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from pathlib import Path

from benchmarks.real.plan import FOLDER, read_plan
from benchmarks.real.report import REAL, write_report
from benchmarks.real.stages import (
    Job,
    analyze,
    convert,
    costs,
    evaluate_all,
    facts,
    finished,
    photos,
    sheets,
    train,
    train_judge,
)
from clade import CladeError


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.real", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="carry a plan out")
    run.add_argument("plan", help="one of benchmarks/real/*.yaml, or a file")
    run.add_argument("--data", required=True, metavar="DIR", help="folder of the dataset")
    run.add_argument("--out", type=Path, metavar="DIR", help="folder of the trainings (runs/real/PLAN)")
    run.add_argument("--results", type=Path, metavar="DIR", help="evaluations (benchmarks/results/real/PLAN)")
    run.add_argument("--only", nargs="+", default=[], metavar="NAME", help="train only these: clade, clade-0, ...")
    run.add_argument("--jobs", type=int, default=1, metavar="N", help="trainings at once (1)")
    run.add_argument("--threads", type=int, default=1, metavar="N", help="CPU threads of each (1)")
    run.add_argument("--minutes", type=float, metavar="M", help="tell trainings to save and stop after so long")
    run.add_argument("--rounds", type=int, default=15, metavar="N", help="runs of which a time is the median (15)")
    run.add_argument("--inception", metavar="FILE", help="Inception's weights, for FID as well")
    report = commands.add_parser("report", help="write docs/results.md")
    report.add_argument("--out", type=Path, metavar="FILE")
    listing = commands.add_parser("list", help="what a plan trains")
    listing.add_argument("plan")
    listing.add_argument("--out", type=Path, metavar="DIR")
    args = parser.parse_args(argv)

    if args.command == "report":
        print(write_report(sorted(path.stem for path in FOLDER.glob("*.yaml")), args.out))
        return 0
    plan = read_plan(args.plan)
    out = args.out or Path("runs/real") / plan.name
    if args.command == "list":
        for one in plan.trainings:
            print("done   " if finished(out / one.name) else "to do  ", one.name, " ".join(one.arguments()))
        return 0
    if min(args.jobs, args.threads, args.rounds) < 1:
        raise CladeError("--jobs, --threads and --rounds need to be at least 1.")
    job = Job(
        plan=plan,
        data=os.fspath(args.data),
        out=out,
        results=args.results or REAL / plan.name,
        jobs=args.jobs,
        threads=args.threads,
        deadline=None if args.minutes is None else time.monotonic() + 60 * args.minutes,
        rounds=args.rounds,
        inception=args.inception,
    )
    judged = train_judge(job)
    complete = judged and train(job, args.only)
    if judged:
        complete = evaluate_all(job) and complete
        facts(job)
        photos(job)
    if judged and not args.only:  # of what is trained so far
        for stage in (convert, costs, analyze, sheets):
            complete = stage(job) and complete
    print(f"{job.results}: {'complete' if complete else 'not all is done; the same command goes on'}.")
    return 0 if complete else 3


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # which ends the trainings, too: they save first
    try:
        sys.exit(main())
    except CladeError as error:
        sys.exit(f"benchmarks.real: {error}")
