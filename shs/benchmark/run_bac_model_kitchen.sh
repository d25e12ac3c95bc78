#!/usr/bin/env bash
# run_all_benchmarks.sh on the Franka Kitchen.
exec "$(dirname "$0")/run_all_benchmarks.sh" --kitchen_only "$@"
