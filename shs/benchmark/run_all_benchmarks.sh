#!/usr/bin/env bash
# Full precision, Uniform and BAC on every task whose checkpoints are here, with the paper's Table 1 at the end:
#   ./shs/benchmark/run_all_benchmarks.sh --device cuda:0 --skip_video [--steps 10 --seeds 0,1,2 --checkpoint_type all]
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python)}
exec "$python" scripts/released.py benchmark_command "$@"
