#!/usr/bin/env bash
# robomimic's tasks with the policies trained here, likewise: full, Uniform, BAC and DDIM on the same 50 test seeds, then the time of a
# chunk, split into vision encoder and denoiser. The tables of docs/results: shs/frontier.sh. Interrupted, it goes on where it stopped. Extra arguments go to every evaluation.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
methods="[full,uniform_s10,bac_s10,full@ddim30,full@ddim16]"

for task in ${TASKS:-lift_scripted_demos can_scripted_demos}; do
  TASKS=$task shs/eval_multistage.sh "$@"
  "$python" scripts/benchmark.py task="$task" device=cpu methods="$methods" runtimes="[reference,compiled]" n_chunks=10
done
