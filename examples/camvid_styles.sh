#!/usr/bin/env bash
# Multi-modal CLADE on CamVid at a reduced size: about 15 minutes on 2 CPU cores, then samples of the prior, and steps from
# the style of one photo to that of another. Makes the pictures of docs/multi-modal.md. Usage: examples/camvid_styles.sh DATA [OUT]
set -euo pipefail
data=${1:?folder of CamVid, with train/, val/ and classes.json}
out=${2:-runs/camvid-styles}
clade=${CLADE:-.venv/bin/clade}

"$clade" train camvid-clade-multimodal --out "$out" --data.root "$data" --data.size "[128,128]" --data.workers 0 \
  --generator.width 20 --generator.z_dim 64 --generator.options '{"encoder_width": 16}' --discriminator.width 24 \
  --training.steps 700 --training.validate_every 1000
labels=("$data"/val/labels/*.png)
photos=("$data"/train/images/*.jpg)
"$clade" generate "$out/last.safetensors" "${labels[0]}" "${labels[49]}" --out "$out/samples" --size trained \
  --samples 4 --seed 1 --grid
"$clade" generate "$out/last.safetensors" "${labels[0]}" --out "$out/steps" --size trained --samples 5 \
  --style "${photos[0]}" --to "${photos[-1]}" --grid
