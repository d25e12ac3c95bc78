#!/usr/bin/env bash
# The comparison table of the README: every method on the 50 Push-T test seeds, then one interleaved benchmark.
# Interrupted, it goes on where it stopped. Extra arguments go to every evaluation, for example: shs/eval_pusht.sh seed=1
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
common=(task=pusht_lowdim runtime=compiled benchmark.n_chunks=0 "$@")

for cache in full uniform blockwise_acs bac; do
  "$python" scripts/eval.py "${common[@]}" cache="$cache"
done
"$python" scripts/eval.py "${common[@]}" cache=bac cache.budget=7
for sampler in ddim10 ddim16 ddim30; do
  "$python" scripts/eval.py "${common[@]}" cache=full sampler="$sampler"
done
"$python" scripts/compare.py results/pusht_lowdim
"$python" scripts/benchmark.py task=pusht_lowdim device=cpu batch=1
