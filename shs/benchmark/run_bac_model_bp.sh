#!/usr/bin/env bash
# run_all_benchmarks.sh on Block Pushing.
exec "$(dirname "$0")/run_all_benchmarks.sh" --bp_only "$@"
