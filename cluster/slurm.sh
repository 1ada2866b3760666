#!/bin/bash
# The paper's run on two nodes with eight L40S each: sbatch cluster/slurm.sh
# Before: Moebius in .venv of the folder that this is submitted from, on storage that all nodes see.
# Any other command goes on the line: sbatch cluster/slurm.sh python -m moebius.tune ablations/...
#SBATCH --job-name=moebius
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=72
#SBATCH --mem=512G
#SBATCH --exclusive
#SBATCH --time=10-00:00:00
#SBATCH --requeue
set -euo pipefail
cd "$SLURM_SUBMIT_DIR"
# shellcheck source=/dev/null
source .venv/bin/activate
export MOEBIUS_STORAGE="${MOEBIUS_STORAGE:-$SLURM_SUBMIT_DIR/runs}"

if [ $# -eq 0 ]; then
    set -- python -m moebius.train --recipe paper --data photos.jsonl \
        --teacher hustvl/PixelHacker/pretrained --codec hustvl/PixelHacker/vae \
        --perceptual elatentlpips.safetensors \
        --workers 16 --cpus-per-worker 8 --gpus-per-worker 1
fi

first="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)"
address="$(getent ahostsv4 "$first" | awk 'NR == 1 { print $1 }'):6379"
export RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=300 # seconds; nodes do not start all at once

# Every node runs the same; the first becomes the head and runs the command, with Ray's address:
# without it, Moebius would start a Ray of its own there.
srun --kill-on-bad-exit=1 ray symmetric-run --address "$address" --min-nodes "$SLURM_NNODES" \
    --num-cpus "$SLURM_CPUS_PER_TASK" --num-gpus 8 --disable-usage-stats -- \
    env RAY_ADDRESS="$address" "$@"
