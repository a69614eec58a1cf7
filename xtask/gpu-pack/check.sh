#!/usr/bin/env bash
# What a CUDA machine must show, one after the other; results go to the folder that is named (default: results).
#   ./check.sh [results] [cuda]
# The second word is the device; `cpu` tries the script where there is no GPU.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
out=${1:-results}
device=${2:-cuda}
python=${PYTHON:-python3}
small=("$here/run.sh" gantry-train)
mkdir -p "$out"

step() { printf '\n===== %s\n' "$1"; }

step "the same losses as the processor over 20 steps in f32"
for net in "--net compact" "--net dilated2d --width 4 --size 128 --batch 4"; do
    # shellcheck disable=SC2086 # options, split on purpose
    "${small[@]}" bench --compare --steps 20 -- --device "$device" $net
done | tee "$out/equality.txt"

step "from phantoms to an int8 label map"
data="$out/data"
"${small[@]}" phantom --out "$data" --train 8 --test 2
"${small[@]}" train --ct "$data/Dataset001_PhantomCT" --mr "$data/Dataset002_PhantomMR" --out "$out/run" --device "$device" \
    --steps "${STEPS:-600}"
"${small[@]}" eval --checkpoint "$out/run/best.safetensors" --ct "$data/Dataset001_PhantomCT" --mr "$data/Dataset002_PhantomMR" \
    --device "$device" | tee "$out/scores.txt"
"$here/gantry-export" onnx "$out/run/best.safetensors" --ct "$data/Dataset001_PhantomCT" --mr "$data/Dataset002_PhantomMR" \
    --out "$out/model.onnx"
"$here/gantry-edge" selftest --model "$out/model.onnx"

step "throughput of the paper's networks beside PyTorch"
formats=(off tf32 bf16)
nets=(--net "--net dilated2d --size 256 --batch 8" --net "--net unet3d --size 256 --depth 8 --batch 2" --net "--net compact --batch 8")
if [ "$device" = cpu ]; then
    formats=(off)
    nets=(--net "--net compact --width 4 --batch 2")
fi
for amp in "${formats[@]}"; do
    OMP_WAIT_POLICY=passive "$python" "$here/peers/train.py" --gantry "$here/run.sh gantry-train" --device "$device" --amp "$amp" \
        "${nets[@]}" --out "$out/throughput-$amp.json" | tee "$out/throughput-$amp.txt"
done
