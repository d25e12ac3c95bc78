#!/usr/bin/env bash
# The frontier tables of docs/results and the claims of claims.md: the fastest methods beside the full policy, 100 test seeds with each noise seed, and the time of
# each in one interleaved run.
# Interrupted, it goes on where it stopped. TASKS="pusht_lowdim" picks; SEEDS="0 1" are the noise seeds; extra arguments go to every
# evaluation, e.g. launcher=joblib. A task whose assets hold a certificate of bac tune is evaluated with it, too.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
extra=("$@")

for task in ${TASKS:-pusht_lowdim block_pushing kitchen_scripted_demos lift_scripted_demos can_scripted_demos}; do
  samplers="ddim16 ddim10 ancestral5"
  case $task in
    pusht_*) seeds=${SEEDS:-0 1 2 3} samplers+=" ancestral10 ancestral3 ddim5" ;;
    *) seeds=${SEEDS:-0 1} ;;
  esac
  run() {
    name=$1
    shift
    "$python" scripts/eval.py -m task="$task" seed="${seeds// /,}" runtime=compiled threads=1 eval.n_test=100 eval.n_envs=20 eval.n_videos=0 \
      benchmark.n_chunks=0 "output_dir=results/$task/frontier/$name-seed\${seed}" "$@" "${extra[@]}"
  }
  run full cache=full
  for sampler in $samplers; do
    run "$sampler" cache=full sampler="$sampler"
  done
  for cache in uniform unified_acs blockwise_acs bac sacs; do
    run "${cache}_s10" cache="$cache" cache.budget=10
  done
  if [ -e "assets/$task/tuned.json" ]; then
    run tuned cache=tuned
  fi
  "$python" scripts/compare.py "results/$task/frontier"
  methods=full,uniform_s10,unified_acs_s10,blockwise_acs_s10,bac_s10,sacs_s10
  for sampler in $samplers; do
    methods+=,full@$sampler
  done
  if [ -e "assets/$task/tuned.json" ]; then
    methods+=,tuned
  fi
  "$python" scripts/benchmark.py task="$task" device=cpu threads=1 batch=1 n_chunks=20 runtimes=[compiled] methods="[$methods]" \
    output_dir="results/$task/frontier_benchmark"
done
