#!/usr/bin/env bash
# Schedules of every task whose checkpoints are here, in the released project's folders:
#   ./shs/get_steps/get_optimal_steps.sh --device cuda:0 --num_caches 5 [--ph_only|--mh_only|--lowdim_only|--task can_ph]
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python)}
exec "$python" scripts/released.py steps_batch "$@"
