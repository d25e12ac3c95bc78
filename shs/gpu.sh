#!/usr/bin/env bash
# What only a GPU can show, in about ten minutes: the vision encoder's graph, fused kernels, the persistent kernel, and the tests that
# need one. The argument is the folder for the numbers. All parts run, whatever one of them finds.
set -uo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
folder=${1:-results/gpu}
failed=0

"$python" -c "import sys, torch; sys.exit(not torch.cuda.is_available())" || { echo "PyTorch sees no GPU here" >&2; exit 1; }
for part in gpu_encoder gpu_fused gpu; do
  "$python" -m "stress.$part" output="$folder" || failed=1
done
"$python" -m pytest -q -p no:cacheprovider -m gpu tests || failed=1
exit "$failed"
