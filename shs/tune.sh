#!/usr/bin/env bash
# The certificates of the bundled policies (assets/<task>/tuned.*), made again. The table of them is in README.md. They are written to
# assets_dir, a folder of their own unless ASSETS=assets is given: with it the bundled ones are replaced. Push-T takes about 30 minutes on two
# cores, image tasks longer. TASKS="pusht_lowdim" picks; extra arguments go to every tuning, e.g. selection.start_seed=310000.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}

for task in ${TASKS:-pusht_lowdim kitchen_scripted_demos block_pushing lift_scripted_demos can_scripted_demos}; do
  options=()
  case $task in  # rollouts of images are slow, and few episodes of these tasks fail
    lift_*) options=("certification.looks=[80,160]") ;;
    can_*) options=("certification.looks=[80,160]" "selection.rounds=[16,32,64]") ;;
    block_*) options=("certification.looks=[100,200]") ;;
  esac
  "$python" scripts/tune.py task="$task" threads=1 assets_dir="${ASSETS:-results/tuned_assets}" "${options[@]}" "$@"
done
