#!/usr/bin/env bash
# run_all_benchmarks.sh on the tasks with demonstrations by proficient humans.
exec "$(dirname "$0")/run_all_benchmarks.sh" --ph_only "$@"
