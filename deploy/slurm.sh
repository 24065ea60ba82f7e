#!/usr/bin/env bash
# When: a Slurm cluster, with a folder that all nodes see. On a login node:
#
#   sbatch --nodes=4 --gpus-per-node=4 --cpus-per-task=32 --exclusive deploy/slurm.sh \
#     SEARCH.yaml --data-dir /shared/images --output-dir /shared/runs
#
# The arguments are those of `search`; SGFORMER names the folder of its programs (.venv/bin).
# Whole nodes (--exclusive) run `ray symmetric-run`. On nodes that are shared with other jobs, Ray
# gets ports of this job's own, and nothing but this job's processes is ended.
# Before its time is over, or when it is preempted, the search saves its trainings; the job is
# queued again and goes on.
#SBATCH --job-name=sgformer-hpo
#SBATCH --ntasks-per-node=1
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@300
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail

bin=${SGFORMER:-$PWD/.venv/bin}
export PATH="$bin:$PATH"

# One token for each job, which only the job's own processes are told of.
RAY_AUTH_TOKEN=$("$bin/python" -c 'import secrets; print(secrets.token_hex(32))')
export RAY_AUTH_TOKEN RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0

nodes=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes%%$'\n'*}
head_ip=$(srun --nodes=1 --ntasks=1 --nodelist="$head" hostname --ip-address)
head_ip=${head_ip%% *}

# A hundred ports for each job, below those that Linux gives to connections (32768).
first_port=$((10000 + SLURM_JOB_ID % 220 * 100))
address=$head_ip:$first_port
resources=(--num-cpus="${SLURM_CPUS_PER_TASK:-1}" --num-gpus="${SLURM_GPUS_ON_NODE:-0}")
# This script runs on the head's node, too, so it can signal the search by its process id.
pid_file=${TMPDIR:-/tmp}/sgformer-$SLURM_JOB_ID.pid
trap 'rm -f "$pid_file"' EXIT
# shellcheck disable=SC2016  # the inner shell expands them
search=(
  bash -c 'echo $$ >"$0"; exec "$@"' "$pid_file"
  sgformer-hpo search "$@" --ray-address "$address" --resume
)

if scontrol show job "$SLURM_JOB_ID" | grep -q 'OverSubscribe=NO'; then
  srun ray symmetric-run --address "$address" --min-nodes "$SLURM_JOB_NUM_NODES" \
    "${resources[@]}" --include-dashboard=false -- "${search[@]}" &
  steps=($!)
else
  ports=(
    --node-manager-port=$((first_port + 1)) --object-manager-port=$((first_port + 2))
    --runtime-env-agent-port=$((first_port + 3)) --metrics-export-port=$((first_port + 4))
    --dashboard-agent-listen-port=$((first_port + 5))
    --dashboard-agent-grpc-port=$((first_port + 6))
    --min-worker-port=$((first_port + 10)) --max-worker-port=$((first_port + 99))
  )
  srun --overlap --nodes=1 --ntasks=1 --nodelist="$head" \
    ray start --head --block --node-ip-address="$head_ip" --port="$first_port" \
    --temp-dir="/tmp/ray-$SLURM_JOB_ID" --include-dashboard=false \
    --ray-client-server-port=$((first_port + 7)) "${resources[@]}" "${ports[@]}" &
  steps=($!)
  until (: </dev/tcp/"$head_ip"/"$first_port") 2>/dev/null; do
    kill -0 "${steps[0]}" 2>/dev/null || { echo "error: Ray's head did not start" >&2; exit 1; }
    sleep 1
  done
  if ((SLURM_JOB_NUM_NODES > 1)); then
    srun --overlap --nodes=$((SLURM_JOB_NUM_NODES - 1)) --ntasks-per-node=1 --exclude="$head" \
      ray start --block --address="$address" "${resources[@]}" "${ports[@]}" &
    steps+=($!)
  fi
  srun --overlap --nodes=1 --ntasks=1 --nodelist="$head" "${search[@]}" &
  steps=($! "${steps[@]}")
fi

# steps[0] runs the search. Told to end, it saves its trainings; then the job is queued again.
told_to_end=
trap 'told_to_end=yes; kill -TERM "$(<"$pid_file")" 2>/dev/null || true' TERM
code=0
wait "${steps[0]}" || code=$?
if [[ $told_to_end ]]; then
  wait "${steps[0]}" || code=$?  # the first wait ended with the signal
fi
trap - TERM
kill -TERM "${steps[@]:1}" 2>/dev/null || true
wait
if [[ $told_to_end ]]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
