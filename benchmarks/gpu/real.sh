#!/usr/bin/env bash
# A plan of benchmarks/real on a GPU, for at most MINUTES (9): PLAN DATA [MINUTES]. What is done stays in runs/real, and the
# same command goes on there; evaluations, sheets and logs are also copied to $OUT where it is set.
set -uo pipefail
cd "$(dirname "$0")/../.."
plan=${1:?a plan, as camvid-256}
data=${2:?folder of the dataset}
minutes=${3:-9}
export PYTHONUNBUFFERED=1
python=${PYTHON:-python3}
if ! "$python" -c 'import clade, segmentation_models_pytorch' 2>/dev/null; then
    [ -x .venv/bin/python ] || "$python" -m venv .venv || exit
    python=.venv/bin/python
    "$python" -m pip install --quiet --editable '.[dev]' || exit
fi
"$python" -m benchmarks.real run "$plan" --data "$data" --threads 4 --minutes "$minutes"
code=$?
"$python" -m benchmarks.real list "$plan"
if [ -n "${OUT:-}" ]; then
    mkdir -p "$OUT/results"
    [ -d "benchmarks/results/real/$plan" ] && cp -r "benchmarks/results/real/$plan" "$OUT/results/"
    for log in "runs/real/$plan"/*/log.txt; do
        [ -e "$log" ] && cp "$log" "$OUT/$(basename "$(dirname "$log")").txt"
    done
    find "runs/real/$plan" -name 'best.safetensors' -path '*judge*' -size -16M -exec cp {} "$OUT/judge.safetensors" \;
fi
exit $code
