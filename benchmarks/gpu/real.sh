#!/usr/bin/env bash
# A plan of benchmarks/real on a GPU, for MINUTES (7) of training and two more of scoring: PLAN DATA
# [MINUTES]. What is done stays in runs/real, and the
# same command goes on there; evaluations, sheets and logs are also copied to $OUT where it is set.
set -uo pipefail
cd "$(dirname "$0")/../.."
plan=${1:?a plan, as camvid-256}
data=${2:?folder of the dataset}
minutes=${3:-7}
export PYTHONUNBUFFERED=1
python=${PYTHON:-python3}
if ! "$python" -c 'import clade, segmentation_models_pytorch' 2>/dev/null; then
    [ -x .venv/bin/python ] || "$python" -m venv .venv || exit
    python=.venv/bin/python
    "$python" -m pip install --quiet --editable '.[dev]' || exit
fi
keep() {  # also when the time is up
    [ -n "${OUT:-}" ] || return
    mkdir -p "$OUT/results"
    [ -d "benchmarks/results/real/$plan" ] && cp -r "benchmarks/results/real/$plan" "$OUT/results/"
    for log in "runs/real/$plan"/*/log.txt; do
        [ -e "$log" ] && cp "$log" "$OUT/$(basename "$(dirname "$log")").txt"
    done
}
trap keep EXIT
"$python" -m benchmarks.real list "$plan"
timeout -k 20 $((60 * minutes + 120)) "$python" -m benchmarks.real run "$plan" --data "$data" --threads 4 --minutes "$minutes"
code=$?
"$python" -m benchmarks.real list "$plan"
exit $code
