#!/usr/bin/env bash
# The GPU tests, then `python -m benchmarks.gpu`, within ten minutes in all. Tables are also copied to $OUT where it is
# set. A machine without torch gets a virtual environment; one with torch only gets what else is missing, without a
# network from the wheels in the folder $WHEELS.
set -uo pipefail
cd "$(dirname "$0")/../.."
export PYTHONUNBUFFERED=1 COLUMNS=${COLUMNS:-150} CUBLAS_WORKSPACE_CONFIG=${CUBLAS_WORKSPACE_CONFIG:-:4096:8}
python=${PYTHON:-python3}
needed='import torch, numpy, cc3d, jsonargparse, lightning_fabric, safetensors, rich, hypothesis, pytest'

if ! "$python" -c 'import torch' 2>/dev/null; then
    "$python" -m venv .venv || exit
    python=.venv/bin/python
    "$python" -m pip install --quiet --editable '.[dev]' || exit
elif ! "$python" -c "$needed" 2>/dev/null; then
    if [ -n "${WHEELS:-}" ]; then
        site=$(mktemp -d)
        "$python" -m pip install --quiet --no-index --no-deps --target "$site" "$WHEELS"/*.whl || exit
        export PYTHONPATH="$site${PYTHONPATH:+:$PYTHONPATH}"
    else
        "$python" -m pip install --quiet --editable . hypothesis pytest pytest-timeout || exit
    fi
fi
"$python" -c "$needed" || exit

log=/dev/null
if [ -n "${OUT:-}" ]; then
    mkdir -p "$OUT"
    log=$OUT/pytest.txt
fi
timeout -k 10 170 "$python" -m pytest tests -m gpu -q --tb=short --no-header -p no:cacheprovider 2>&1 | tee "$log" | tail -40
tested=${PIPESTATUS[0]}

left=$((585 - SECONDS))
minutes=$("$python" -c "print(min(9.0, $left / 60))")
timeout -k 10 "$left" "$python" -m benchmarks.gpu --minutes "$minutes" ${OUT:+--out "$OUT"}
measured=$?
echo "pytest: $tested, benchmarks.gpu: $measured"
exit $((tested > measured ? tested : measured))
