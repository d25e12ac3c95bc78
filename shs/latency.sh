#!/usr/bin/env bash
# What speed is worth in score: every method at the time that its chunk takes, in a world that goes on meanwhile, and five evaluations at
# a range of latencies in every mode. Writes results/<task>/latency/comparison.md and latency.png. Interrupted, it goes on where it stopped.
# TASKS="pusht_lowdim" picks; SEEDS="0 1" are the noise seeds; THINKING="async rtc" the modes of the table; LATENCIES="50 100" those of the
# curve, ms; GPU=<benchmark.json of bac benchmark on a GPU> adds its times; extra arguments go to every evaluation, e.g. eval.n_test=100.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
methods="full full@ddim16 uniform_s10 bac_s10 sacs_s10 full@ancestral5"   # and what bac tune has proven, where assets/ hold it

# The median time of a method in a runtime, ms, of a benchmark; nothing if it was not measured.
time_of() {
  "$python" - "$@" <<'PYTHON'
import json, sys
path, method, runtime, certificate = sys.argv[1:]
if method == "tuned":
    method = json.load(open(certificate))["method"]
label, _, sampler = method.partition("@")
rows = [row for row in json.load(open(path)) if row["batch"] == 1 and (row["method"], row["runtime"]) == (label, runtime)]
own = [row for row in rows if row["sampler"] == (sampler or "ddpm100")]
print(own[0]["ms_p50"] if own else "")
PYTHON
}

for task in ${TASKS:-pusht_lowdim kitchen_scripted_demos block_pushing lift_scripted_demos can_scripted_demos}; do
  folder=results/$task/latency
  tuned=$([ -e "assets/$task/tuned.json" ] && echo tuned || true)
  run() {
    name=$1
    shift
    for seed in ${SEEDS:-0}; do
      "$python" scripts/eval.py task="$task" seed="$seed" runtime=compiled threads=1 eval.n_videos=0 benchmark.n_chunks=0 \
        output_dir="$folder/$name-seed$seed" "$@"
    done
  }
  cpu=results/$task/latency_benchmark/benchmark.json
  if [ ! -e "$cpu" ]; then
    "$python" scripts/benchmark.py task="$task" device=cpu threads=1 batch=1 n_chunks=20 "runtimes=[reference,compiled]" horizon=full \
      "methods=[${methods// /,}${tuned:+,tuned}]" output_dir="results/$task/latency_benchmark"
  fi
  run full cache=full "$@"
  for method in $methods $tuned; do
    label=${method%@*}
    options=(cache="${label%_s10}")
    case $label in *_s10) options+=(cache.budget=10) ;; esac
    case $method in *@*) options+=(sampler="${method#*@}") ;; esac
    for machine in "plain_cpu $cpu reference" "compiled_cpu $cpu compiled" ${GPU:+"gpu $GPU compiled"}; do
      read -r place file runtime <<<"$machine"
      ms=$(time_of "$file" "$method" "$runtime" "assets/$task/tuned.json")
      if [ -z "$ms" ]; then
        echo "left out: $method is not in $file in runtime $runtime"
        continue
      fi
      for thinking in ${THINKING:-async}; do
        run "$method-$thinking-$place" "${options[@]}" eval.clock=real eval.thinking="$thinking" eval.latency_ms="$ms" "$@"
      done
    done
  done
  for thinking in hold async rtc; do
    for ms in ${LATENCIES:-100 200 400 800}; do
      run "ancestral5-$thinking-${ms}ms" cache=full sampler=ancestral5 eval.clock=real eval.thinking="$thinking" eval.latency_ms="$ms" "$@"
    done
  done
  "$python" scripts/compare.py "$folder"
done
