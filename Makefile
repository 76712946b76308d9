# make labs: everything from a fresh clone; the other goals stand in `make help`.
#
# An active environment that already has torch (Kaggle, Colab, conda) is used as it is: only missing packages are added,
# and no installed one is changed. Otherwise an environment is made in .venv, with the CPU build of torch.
#   make labs PYTHON=python3.12                 another Python (3.11 to 3.13)
#   make labs TORCH="torch==2.13.0"             another build of torch: whatever `pip install` takes

PYTHON ?= python3
TORCH ?=
JOBS ?= 2
VENV := .venv
TORCH_VERSION := 2.13.0
CPU_INDEX := https://download.pytorch.org/whl/cpu
PIP = $(PY) -m pip --disable-pip-version-check

# "yes" if the active Python has torch, and a mark of its environment
ACTIVE := $(shell $(PYTHON) -c "import importlib.util as u, sys, zlib; print('yes' if u.find_spec('torch') else 'no', zlib.crc32(sys.prefix.encode()))" 2>/dev/null)
ifeq ($(firstword $(ACTIVE)),yes)
PY := $(PYTHON)
STAMP := .labs-$(lastword $(ACTIVE))
else
PY := $(VENV)/bin/python
STAMP := $(VENV)/.labs
endif

.DEFAULT_GOAL := help
.PHONY: help labs test test-machines fuzz browser-test notebooks handout nbgrader bundle-check bench matrix clean

help:
	@echo "make labs        set up, make the default data, run the ten notebooks, show the results"
	@echo "make test        style, unit tests and notebook tests"
	@echo "make test-machines  the ten notebooks on other processors, imitated: every compared output must be the same"
	@echo "make fuzz        10,000 broken inputs and 50 deaths of each command (hours)"
	@echo "make browser-test JupyterLab and the pages of results in a real browser; screenshots in runs/browser/"
	@echo "make notebooks   run the notebooks on the default data and keep the outputs in notebooks/"
	@echo "make bundle-check  run single-file notebooks as on Kaggle: their own environment, no network (minutes)"
	@echo "make handout     student copies, teacher copies, and a book of each, in runs/handout"
	@echo "make nbgrader    install nbgrader and have it validate these copies"
	@echo "make bench       what it costs, against plain baselines"
	@echo "make matrix      the tests on Python 3.11 to 3.13, librosa 0.10 to 1.0 and the lowest versions allowed (gigabytes)"
	@echo "make clean       remove all that was made: .venv, runs, generated data, caches"

labs: $(STAMP)
	$(PY) -m labutils data demo
	-$(PY) -m labutils pretrained --jobs $(JOBS)
	$(PY) -m labutils run --jobs $(JOBS) --out runs/demo

test: $(STAMP)
	$(PY) -m ruff check .
	$(PY) -m pytest -q -n $(JOBS) --dist loadfile tests/unit tests/faults
	$(PY) -m labutils data demo
	LABUTILS_OUTPUT=$(CURDIR)/runs/test $(PY) -m pytest -q -n $(JOBS) --dist loadfile --durations 12 --nbval-lax \
	    tests/notebooks notebooks

# Default data, models and outputs are made anew on each; MACHINES="sse" takes one. tests/machines.py says how.
test-machines: $(STAMP)
	@set -e; for name in $${MACHINES:-$$($(PY) tests/machines.py)}; do \
	    export LABUTILS_HOME=$(CURDIR)/runs/machines/$$name LABUTILS_OUTPUT=$(CURDIR)/runs/machines/$$name/runs; \
	    $(PY) tests/machines.py $$name $(PY) -m labutils data demo; \
	    $(PY) tests/machines.py $$name $(PY) -m pytest -q -n $(JOBS) --dist loadfile --nbval-lax notebooks; \
	done

fuzz: $(STAMP)
	FAULTS_CASES=10000 FAULTS_KILLS=50 $(PY) -m pytest -q tests/faults

# Needs Chromium or Chrome; as root on Debian and its kin it is installed, elsewhere the message says what to do.
browser-test: $(STAMP)
	@test -n "$(CHROMIUM)" || command -v chromium chromium-browser google-chrome > /dev/null || \
	    { test "$$(id -u)" = 0 && command -v apt-get > /dev/null && apt-get update -qq && \
	      DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends chromium > /dev/null; } || \
	    { echo "A browser is needed. Install Chromium (Debian: sudo apt install chromium) or Chrome, or name one:"; \
	      echo "make browser-test CHROMIUM=/path/to/chrome"; exit 1; }
	$(PIP) install -q -r tests/browser/requirements.txt
	$(PY) -m labutils data demo --size tiny
	CHROMIUM="$(CHROMIUM)" $(PY) -m pytest -q -n $(JOBS) --dist loadfile --durations 6 tests/browser

notebooks: $(STAMP)
	-$(PY) -m labutils pretrained --jobs $(JOBS)
	$(PY) -m labutils run --in-place --fresh --jobs $(JOBS) --out runs/notebooks
	cp runs/notebooks/results.png docs/results.png

bundle-check: $(STAMP)
	$(PY) tests/isolation/closed.py

handout: $(STAMP)
	$(PY) -m labutils publish handout

nbgrader: $(STAMP)
	$(PIP) install -q nbgrader -c constraints.txt
	$(PY) -m pytest -q tests/notebooks/nbgrader_accepts.py

bench: $(STAMP)
	$(PY) benchmarks/run.py

# nox finds Python 3.11 to 3.13 on the PATH; pyenv shows all that it has when told so. `make matrix SESSIONS=lowest`
SESSIONS ?= tested librosa_0_10 lowest
matrix:
	$(PYTHON) -m venv $(VENV)-nox
	$(VENV)-nox/bin/pip install -q "nox[uv]"
	@mkdir -p runs
	PYENV_VERSION=$$(pyenv versions --bare 2>/dev/null | paste -sd: -) \
	    $(VENV)-nox/bin/nox -s $(SESSIONS) --report runs/matrix.json

clean:
	rm -rf $(VENV) $(VENV)-nox .nox .labs-* runs build *.egg-info .pytest_cache .ruff_cache
	rm -rf data/demo data/demo-tiny data/stores data/models data/bench
	find labutils tests notebooks -name __pycache__ -prune -exec rm -rf {} +

# The environment in .venv, with the tested versions
$(VENV)/.labs: requirements.txt constraints.txt pyproject.toml
	@$(PYTHON) -c "import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))" || \
	    { echo "Python 3.11 to 3.13 is needed; name one: make labs PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@echo "Installing torch and the other packages (some minutes)"
ifeq ($(strip $(TORCH)),)
	@$(PIP) install -q "torch==$(TORCH_VERSION)+cpu" 2>/dev/null || \
	    $(PIP) install "torch==$(TORCH_VERSION)" --extra-index-url $(CPU_INDEX)
else
	$(PIP) install $(TORCH)
endif
	@grep -v "^torch==" constraints.txt > $(VENV)/constraints.txt
	@$(PY) -c "import importlib.metadata as m; print('torch==' + m.version('torch'))" >> $(VENV)/constraints.txt
	$(PIP) install -q -r requirements.txt -c $(VENV)/constraints.txt
	$(PIP) install -q --no-deps -e .
	@touch $@

# The active environment: what is installed stays; if that cannot be, at least torch and numpy do
.labs-%: requirements.txt pyproject.toml
	@$(PY) -c "import sys; sys.exit(sys.version_info < (3, 11))" || { echo "Python 3.11 or later is needed"; exit 1; }
	@echo "Using the active environment, which has torch; adding what is missing"
	@$(PY) -c "import importlib.metadata as m; print(*sorted({f'{d.name}=={d.version}' for d in m.distributions() if d.name}), sep='\n')" > $@.installed
	@grep -E -i "^(torch|numpy)==" $@.installed > $@.kept
	$(PIP) install -q -r requirements.txt -c $@.installed || $(PIP) install -q -r requirements.txt -c $@.kept
	$(PIP) install -q --no-deps -e .
	@mv $@.installed $@ && rm $@.kept
