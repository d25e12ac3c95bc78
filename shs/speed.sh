#!/usr/bin/env bash
# The tables of docs/results/speed.md on the machine at hand: every runtime at batch 1 and 28 on its CPU and, if PyTorch sees one, on its
# GPU. The page has those of a processor with AVX-512, one with AVX2 and a GPU: each came from such a machine. Nothing else should run.
# Extra arguments go to every benchmark.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
methods="[full,uniform_s10,bac_s10,bac_s7,full@ddim10]"

benchmark() {
  name=$1
  shift
  "$python" scripts/benchmark.py task=pusht_lowdim "methods=$methods" output_dir="results/pusht_lowdim/speed/$name" "$@"
}
benchmark cpu device=cpu batch=1 n_chunks=20 "$@"
benchmark cpu_batch28 device=cpu batch=28 n_chunks=4 "$@"
if "$python" -c "import sys, torch; sys.exit(not torch.cuda.is_available())"; then
  benchmark gpu device=cuda batch=1 n_chunks=20 "runtimes=[reference,compiled]" "$@"
fi
