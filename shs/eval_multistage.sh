#!/usr/bin/env bash
# Block Pushing and Kitchen as the paper evaluates them: full, Uniform and BAC on the same 50 test seeds, beside DDIM. The tables of
# docs/results have more methods and seeds: shs/frontier.sh.
# Interrupted, it goes on where it stopped. TASKS="kitchen_scripted_demos" picks; extra arguments go to every evaluation,
# e.g. seed=1 or launcher=joblib.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}

reference=full-compiled   # of the comparison; its folder ends so for another noise seed
for argument in "$@"; do
  case $argument in seed=0) ;; seed=*) reference="full-compiled-seed${argument#seed=}" ;; esac
done

for task in ${TASKS:-block_pushing kitchen_scripted_demos}; do
  common=(task="$task" runtime=compiled benchmark.n_chunks=0 "$@")
  "$python" scripts/eval.py -m "${common[@]}" cache=full,uniform,bac
  "$python" scripts/eval.py -m "${common[@]}" cache=full sampler=ddim16,ddim30
  "$python" scripts/compare.py "results/$task" "$reference"
done
