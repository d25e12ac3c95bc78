#!/usr/bin/env bash
# The Push-T tables of docs/results: every method on the 100 Push-T test seeds, then the interleaved benchmarks.
# Interrupted, it goes on where it stopped. Extra arguments go to every evaluation, for example:
# shs/eval_pusht.sh seed=1 launcher=joblib
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
common=(task=pusht_lowdim runtime=compiled eval.n_test=100 benchmark.n_chunks=0 "$@")

reference=full-compiled   # of the comparison; its folder ends so for another noise seed
for argument in "$@"; do
  case $argument in seed=0) ;; seed=*) reference="full-compiled-seed${argument#seed=}" ;; esac
done

run() { "$python" scripts/eval.py -m "${common[@]}" "$@"; }

run cache=full,uniform,blockwise_acs,bac
run cache=uniform cache.budget=15,27  # as many block updates as BAC S=10 and S=20
run cache=bac cache.budget=7,20
run cache=bac cache.top_k=12 cache.budget=5,10
run cache=bac 'cache.forced_refresh=[99]'
run cache=full sampler=ddim10,ddim16,ddim30
run cache=bac sampler=ddim16 cache.budget=4,8
"$python" scripts/compare.py results/pusht_lowdim "$reference"
methods=full,uniform_s10,bac_s10,bac_s7,bac_s20,full@ddim10,full@ddim16,full@ddim30,bac_s4@ddim16
"$python" scripts/benchmark.py task=pusht_lowdim device=cpu batch=1 "methods=[$methods]"
"$python" scripts/benchmark.py task=pusht_lowdim device=cpu batch=28 n_chunks=4 "methods=[full,uniform_s10,bac_s10,bac_s7,full@ddim10]" \
  output_dir=results/pusht_lowdim/batch28
