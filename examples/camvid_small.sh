#!/usr/bin/env bash
# CLADE-ICPE on CamVid at a reduced size: about ten minutes on 2 CPU cores with AVX512-BF16, killed once on the way and resumed, then the
# validation label maps drawn. Makes the pictures of docs/results. Usage: examples/camvid_small.sh DATA [OUT]
set -euo pipefail
data=${1:?folder of CamVid, with train/, val/ and classes.json}
out=${2:-runs/camvid-small}
clade=${CLADE:-.venv/bin/clade}

train() {
  "$clade" train camvid-clade-icpe --out "$out" --data.root "$data" \
    --data.size "[128,128]" --data.workers 0 --generator.width 24 --discriminator.width 32 \
    --optimizer.lr_generator 4e-4 --training.steps 1200 --training.ema 0.995 --training.save_every 100 "$@"
}

started=$SECONDS
if [ ! -e "$out/state.safetensors" ]; then
  train --training.max_minutes 60 &
  until [ -e "$out/state.safetensors" ]; do
    kill -0 $! || exit 1
    sleep 1
  done
  sleep 120  # some steps past the first saved state
  pkill -KILL -P $! || true  # the python under this shell's job, where there is one
  kill -KILL $! || true
  wait $! || echo "Killed after $((SECONDS - started)) s; the same command goes on:"
fi
train
echo "Trained in $((SECONDS - started)) s."
"$clade" generate "$out/last.safetensors" "$data/val" --out "$out/pictures" --size trained --grid
"$(dirname "$clade")/python" -m benchmarks.curves "$out" --out "$out/curve.png"
