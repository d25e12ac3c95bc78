#!/usr/bin/env bash
# The table of docs/results/flow.md: schedules of ten steps of flow matching beside fewer steps, on Push-T. Writes
# results/pusht_lowdim/flow/comparison.md and the times. Interrupted, it goes on where it stopped. SEEDS="0 1" are the noise seeds; extra arguments
# go to every evaluation, e.g. eval.n_test=50.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
folder=results/pusht_lowdim/flow

run() {
  name=$1
  shift
  for seed in ${SEEDS:-0 1}; do
    "$python" scripts/eval.py task=pusht_lowdim checkpoint=checkpoint/pusht_lowdim/flow10 seed="$seed" runtime=compiled threads=1 \
      eval.n_test=100 eval.n_videos=0 benchmark.n_chunks=0 output_dir="$folder/$name-seed$seed" "$@"
  done
}
run full cache=full "$@"
for steps in 7 6 5 3 2; do
  run "flow$steps" cache=full sampler.steps="$steps" "$@"
done
for budget in 5 3; do
  for cache in uniform bac sacs; do
    run "${cache}_s$budget" cache="$cache" cache.budget="$budget" "$@"
  done
done
"$python" scripts/compare.py "$folder"
methods=full,uniform_s5,bac_s5,sacs_s5,uniform_s3,bac_s3,sacs_s3,full@flow7,full@flow6,full@flow5,full@flow3,full@flow2
"$python" scripts/benchmark.py task=pusht_lowdim checkpoint=checkpoint/pusht_lowdim/flow10 device=cpu threads=1 batch=1 n_chunks=40 \
  "runtimes=[compiled]" "methods=[$methods]" output_dir=results/pusht_lowdim/flow_benchmark
