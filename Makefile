# `make help` lists the targets. Everything is installed into .venv; nothing else is touched.

PYTHON ?= python3
TORCH ?= torch==2.13.0
TORCH_CPU_INDEX ?= https://download.pytorch.org/whl/cpu

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
INSTALLED := $(VENV)/.installed
RUN := runs/quickstart
JOBS ?= 2
COFFEE := from moebius.data.photographs import builtin_paths as p; print(p("validation")[0])

.DEFAULT_GOAL := help
.PHONY: help install demo test slow lint bench clean

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(INSTALLED)  ## Install Moebius and its tools into .venv (done by the others when needed)

demo: $(INSTALLED)  ## Run a small sweep, promote the best student, inpaint a photograph with it
	$(BIN)/python -m moebius.tune ablations/quickstart.yaml
	$(BIN)/python -m moebius.inpaint \
		"$$($(BIN)/python -c '$(COFFEE)')" moebius/assets/demo/coffee_mask.png \
		-o $(RUN)/inpainted.png --model $(RUN)/model

test: $(INSTALLED)  ## Run the tests; choose some with ARGS='-k masks', debug with JOBS=0
	$(BIN)/pytest -n $(JOBS) --dist loadgroup $(ARGS)

slow: $(INSTALLED)  ## Run the tests that take minutes each
	$(BIN)/pytest -m slow $(ARGS)

lint: $(INSTALLED)  ## Check style, types, and dependencies for known vulnerabilities
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python .ci/audit.py

bench: $(INSTALLED)  ## Run every benchmark (10 minutes), write benchmarks/results.json
	$(BIN)/python benchmarks/_all.py

clean:  ## Remove .venv, caches and build outputs; runs/ stays
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find moebius tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# Without a GPU the CPU build of torch comes first, gigabytes of CUDA packages smaller. The default
# index is asked what its torch requires; where that is CUDA (PyPI on Linux), or where it has none
# for this machine, PyTorch's own CPU index serves. The second step then keeps the torch it finds.
$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
		"Python 3.11 or newer is needed, " + sys.executable + " is older: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	@set -e; \
	if nvidia-smi -L >/dev/null 2>&1 || $(PIP) show -qq torch; then exit 0; fi; \
	echo "No GPU found: installing the CPU build of $(TORCH)"; \
	if report=$$($(PIP) install -qq --dry-run --no-deps --report - '$(TORCH)') \
		&& ! printf '%s' "$$report" | grep -Eq '"(nvidia-|cuda-|triton)'; then \
		$(PIP) install -qq --no-deps '$(TORCH)'; \
	else \
		$(PIP) install -qq --no-deps --index-url '$(TORCH_CPU_INDEX)' '$(TORCH)'; \
	fi
	@echo "Installing Moebius into $(VENV), a few minutes the first time"
	@$(PIP) install -qq $$($(PIP) list --format=freeze | grep '^torch==') -e '.[cluster,evaluate,app,serve,export,dev]'
	@touch $@
