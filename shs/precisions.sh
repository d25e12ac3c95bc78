#!/usr/bin/env bash
# What a precision costs in score: five ancestral evaluations in fp32, bf16 and int8, paired with the full policy in fp32, over two noise
# seeds. Writes results/<task>/precision/comparison.md. Interrupted, it goes on where it stopped. TASKS="pusht_lowdim" picks; extra
# arguments go to every evaluation.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}

for task in ${TASKS:-pusht_lowdim kitchen_scripted_demos}; do
  folder=results/$task/precision
  for seed in ${SEEDS:-0 1}; do
    run() {
      name=$1
      shift
      "$python" scripts/eval.py task="$task" seed="$seed" runtime=compiled threads=1 cache=full eval.n_test=100 eval.n_videos=0 \
        benchmark.n_chunks=0 output_dir="$folder/$name-seed$seed" "$@"
    }
    run full "$@"
    for precision in ${PRECISIONS:-fp32 bf16 int8}; do
      run "ancestral5-$precision" sampler=ancestral5 precision="$precision" "$@"
    done
  done
  "$python" scripts/compare.py "$folder"
done
