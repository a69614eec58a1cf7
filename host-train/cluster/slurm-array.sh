#!/usr/bin/env bash
# A study as a SLURM job array: task I of N does every N-th run, from the I-th, into one shared folder.
#
#   sbatch --array=0-7 slurm-array.sh studies/phantom-small.toml /shared/study
#
# The first argument is the study, the second the shared folder. GANTRY_XTASK and GANTRY_TRAIN name the two programs;
# without them, `xtask` and `gantry-train` are taken from the PATH. A task that ends early goes on where it was when it is
# submitted again, on the same or on another node.
#SBATCH --job-name=gantry-study
#SBATCH --cpus-per-task=8
#SBATCH --mem=16G
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --output=gantry-study-%A-%a.log
set -euo pipefail

study=${1:?expected a study: slurm-array.sh STUDY.toml SHARED_FOLDER}
out=${2:?expected a shared folder: slurm-array.sh STUDY.toml SHARED_FOLDER}
index=${SLURM_ARRAY_TASK_ID:?not in a job array: submit with sbatch --array=0-7}
first=${SLURM_ARRAY_TASK_MIN:-0}
count=${SLURM_ARRAY_TASK_COUNT:?not in a job array: submit with sbatch --array=0-7}
if ((first != 0 || index >= count)); then
    echo "array starts at $first and has $count tasks: expected --array=0-N without gaps, this is task $index" >&2
    exit 2
fi

exec "${GANTRY_XTASK:-xtask}" study --config "$study" --out "$out" --shard "$index/$count" \
    --program "${GANTRY_TRAIN:-$(command -v gantry-train)}"
