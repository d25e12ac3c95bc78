# Set up, demonstrate and test on a machine with Python 3.11 to 3.13 and nothing else. `make help` says what there is.
SHELL := bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test stress setup wheels check-pins clean

VENV := .venv
EXTRAS ?= pusht,dev
PYTEST_ARGS ?=
TEST_WORKERS ?= 2
STRESS_ARGS ?=
# The client that tests of `bac serve` drive it with. It asks for numpy below 2, and works with the one that is pinned.
OPENPI_CLIENT := openpi-client==0.1.2

comma := ,
# `pusht,dev` is installed once .venv/.installed-pusht+dev is newer than both pyproject.toml.
installed = $(VENV)/.installed-$(subst $(comma),+,$(1))
supported = import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))

help:
	@echo "make demo    evaluate the bundled Push-T policy with and without caching; prints a table (installs core + pusht)"
	@echo "make test    run the tests (installs core + pusht + dev); PYTEST_ARGS='-k schedule -x' picks some,"
	@echo "             TEST_WORKERS=4 runs them in more processes than two"
	@echo "make docs    build the documentation as a site in build/site; fails on a broken link"
	@echo "make lint    check style (ruff), types (mypy) and which package may import which (import-linter)"
	@echo "make stress  attack this project: damaged and hostile files, kills, races, full disks, clients (about 12 minutes; see"
	@echo "             docs/reliability.md); STRESS_ARGS='seed=1 parts=fuzz inputs=5000' chooses, STRESS_ARGS=help lists"
	@echo "make setup   install only; EXTRAS=pusht,wandb chooses (pusht, blockpush, kitchen, robomimic, robomimic-reference,"
	@echo "             lerobot, hub, wandb, report, serve, sweeps, ray, docs, dev, all)"
	@echo "make wheels  the library and the workbench as wheels to hand on, in dist/"
	@echo "make peers   time denoiser and vision encoder in Inductor, ONNX Runtime and OpenVINO beside ours; in an environment"
	@echo "             of its own in build/ (about 2 GB)"
	@echo "make check-pins   ask pip whether the pinned versions can be installed together on every supported Python"
	@echo "make check-lerobot   collect Push-T episodes and read them with the lerobot package, and cache the blocks of its"
	@echo "             multi_task_dit, timed; in an environment of its own (several GB; Python 3.12 or 3.13 with LEROBOT_PYTHON=...)"
	@echo "make clean   remove $(VENV), caches and build output; data, checkpoints and results stay"
	@echo
	@echo "Packages go into $(VENV), with the versions pinned in pyproject.toml, from wherever pip is configured to look."
	@echo "PYTHON=python3.12 chooses the interpreter that creates $(VENV) (3.11 to 3.13)."
	@echo
	@echo "On Linux the default index serves PyTorch built for CUDA (about 3 GB). Without a GPU the CPU build (about 0.2 GB)"
	@echo "does: name its wheel, TORCH=path/to/torch-2.13.0+cpu-...whl, or let pip find it by pip's own configuration"
	@echo "(a folder with the wheel in PIP_FIND_LINKS, an index with CPU builds in PIP_EXTRA_INDEX_URL)."

demo: $(call installed,pusht)
	@$(VENV)/bin/bac demo

test: $(call installed,pusht$(comma)dev)
	@# One thread: rollouts in the tests are processes, and threads that fight with them over two cores are slower.
	@OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(VENV)/bin/python -m pytest -q -n $(TEST_WORKERS) --dist worksteal $(PYTEST_ARGS)

.PHONY: lint
lint: $(call installed,pusht$(comma)dev)
	@$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check . && $(VENV)/bin/mypy && $(VENV)/bin/lint-imports

# The pages that are made from data and schemas must be the committed ones; --strict fails on a broken link or anchor.
.PHONY: docs
docs: $(call installed,docs)
	@PYTHONPATH=experiments $(VENV)/bin/python -m docs.generate --check
	@NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict
	@echo "open build/site/index.html"

stress: $(call installed,pusht$(comma)dev)
	@$(VENV)/bin/python -m stress $(STRESS_ARGS)

setup: $(call installed,$(EXTRAS))
	@echo "ready: $(VENV) has extras $(EXTRAS)"

# Each names the other by its version: a folder with both serves pip install --find-links.
wheels: $(VENV)/.created
	rm -rf build dist
	BAC_LIBRARY_BY_VERSION=1 $(VENV)/bin/python -m pip --disable-pip-version-check wheel --no-deps -w dist ./bac .

# Whether LeRobot's own package reads what `bac collect` writes. It cannot be installed beside this project.
.PHONY: check-lerobot
LEROBOT_PYTHON ?= python3.12
LEROBOT_VENV := build/venv-lerobot
check-lerobot: $(call installed,pusht$(comma)lerobot)
	@test -x $(LEROBOT_VENV)/bin/python || $(LEROBOT_PYTHON) -m venv $(LEROBOT_VENV)
	@$(LEROBOT_VENV)/bin/python -m pip --disable-pip-version-check install --quiet 'lerobot[dataset]==0.6.1'
	@$(VENV)/bin/python scripts/check_lerobot.py $(LEROBOT_VENV)/bin/python
	@$(LEROBOT_VENV)/bin/python tests/lerobot/multi_task_dit.py
	@$(LEROBOT_VENV)/bin/python -m pip --disable-pip-version-check install --quiet ./bac
	@$(LEROBOT_VENV)/bin/python tests/lerobot/journey.py

# The Push-T denoiser in other inference engines, beside this project's runtimes. Nothing else should run.
.PHONY: peers
PEERS_VENV := build/venv-peers
PEERS_ARGS ?=
peers: $(VENV)/.created
	@test -x $(PEERS_VENV)/bin/python || $(VENV)/bin/python -m venv $(PEERS_VENV)
	@BAC_LIBRARY_BY_VERSION=1 $(PEERS_VENV)/bin/python -m pip --disable-pip-version-check install --quiet -e . -e ./bac \
	  onnx==1.23.2 onnxscript==0.7.2 onnxruntime==1.32.0 openvino==2026.4.1
	@$(PEERS_VENV)/bin/python -m speed.peers $(PEERS_ARGS)
	@$(PEERS_VENV)/bin/python -m speed.encoders $(PEERS_ARGS)

check-pins: $(call installed,pusht$(comma)dev)
	@$(VENV)/bin/python scripts/check_pins.py

# One script per recipe: it ends at the first error, and the stamp is written only at the end, so that an interrupted
# installation is taken up again. The first extra alone counts as installed too.
$(VENV)/.installed-%: pyproject.toml bac/pyproject.toml setup.py $(VENV)/.created
	@set -euo pipefail; pip="$(VENV)/bin/python -m pip --disable-pip-version-check --no-input"; \
	echo "installing dependencies: core + $(subst +,$(comma) ,$*)"; \
	echo "  the first time about 0.2 GB, plus PyTorch: 0.2 GB (CPU build) or 3 GB (CUDA build; see make help)"; \
	export BAC_LIBRARY_BY_VERSION=1; requirements=(-e ".[$(subst +,$(comma),$*)]" -e ./bac); \
	if [ -n "$(TORCH)" ]; then requirements+=("$(TORCH)"); fi; \
	$$pip install --progress-bar off "$${requirements[@]}" 2>&1 | tee $(VENV)/install.log \
	| while IFS= read -r line; do case "$$line" in \
	    *Downloading*" MB)"|*"Building wheel for"*) echo "  $${line#"$${line%%[![:space:]]*}"}" ;; \
	    "Installing collected packages"*) echo "  unpacking (can take a minute)" ;; \
	  esac; done \
	|| { echo "installing failed; the last lines of $(VENV)/install.log:" >&2; tail -n 25 $(VENV)/install.log >&2; exit 1; }; \
	case ",$(subst +,$(comma),$*)," in *,dev,*|*,all,*) \
	  $$pip install --quiet --no-deps $(OPENPI_CLIENT) ;; esac; \
	touch $@ $(VENV)/.installed-$(firstword $(subst +, ,$*))

# `python -m venv` completes a half-made folder and leaves the packages of an existing one alone.
$(VENV)/.created:
	@set -eu; python="$(PYTHON)"; \
	if [ -z "$$python" ]; then \
	  for name in python3.11 python3.12 python3.13 python3 python; do \
	    if $$name -c '$(supported)' >/dev/null 2>&1; then python=$$name; break; fi; \
	  done; \
	fi; \
	if [ -z "$$python" ]; then \
	  echo "No usable Python 3.11 to 3.13 among python3.11, python3.12, python3.13, python3 (with its venv module; on" >&2; \
	  echo "Debian and Ubuntu that is the package python3-venv). Install one, or name one: make PYTHON=/path/to/python3.11 ..." >&2; \
	  exit 1; \
	fi; \
	if ! "$$python" -c '$(supported)' >/dev/null 2>&1; then \
	  echo "PYTHON=$$python is not a Python 3.11 to 3.13 with the venv module; choose another." >&2; exit 1; \
	fi; \
	echo "creating $(VENV) with $$("$$python" --version) ($$python)"; \
	"$$python" -m venv $(VENV); \
	touch $@

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .mypy_cache .import_linter_cache .hypothesis *.egg-info bac/*.egg-info
	find bac diffusion_policy experiments scripts speed stress tests -name __pycache__ -type d -prune -exec rm -rf {} +
