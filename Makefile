# Two commands from a bare clone: make demo, make test. Both build .venv first, once; later calls start at once.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

# Large pages for large tensors: training on a CPU is up to 1.05 times as fast (make bench). Only glibc listens.
export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1
# Notebooks load torch first, so what m2kd_lite sets for it comes too late there: how long waiting threads spin.
export GOMP_SPINCOUNT ?= 1000

# Without a GPU, PyTorch's index of CPU builds saves gigabytes: make TORCH_INDEX=https://download.pytorch.org/whl/cpu test
TORCH_INDEX ?=

.PHONY: demo test unit lab playground student slides book bench clean
demo: $(STAMP)
	$(BIN)/m2kd-lite demo

# A module's tests stay on one core, in order: what they train, they share. One thread a test, as many tests at once as there are cores.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests -n auto --maxprocesses 4 --dist loadscope --no-loadscope-reorder

test: $(STAMP)
	$(PYTEST)

# What needs no kernel, server, browser or long training: most tests, in three to four minutes on two slow cores.
unit: $(STAMP)
	$(PYTEST) -m "not system"

lab: $(STAMP)
	$(BIN)/jupyter lab --notebook-dir=notebooks

# The panels on one page, in your browser; the address that is printed opens it again.
playground: $(STAMP)
	$(BIN)/m2kd-lite playground

# The lessons without solutions and outputs, for handing out; docs/instructors.md says how to go on.
student: $(STAMP)
	$(BIN)/m2kd-lite lessons build/student --student

# A talk before each lesson, with notes for its speaker (press S); nothing is trained, and nothing is asked of a network.
slides: $(STAMP)
	rm -rf build/slides
	$(BIN)/python docs/slides build/slides

# Docs, lessons and docstrings as a static site, which loads nothing from the network: python -m http.server -d build/book
book: $(STAMP)
	rm -rf build/book
	$(BIN)/python docs/book build/book

# Half an hour or more on two idle cores, a third of it fuzz, and 5 GB of a temporary folder. Ratios are taken side by side in one run; a missed
# goal is reported, and is no failure.
bench: $(STAMP)
	$(BIN)/python -m benchmarks

# runs/ and data/ are yours and stay; so does the cache of decoded data sets, which later installs use again.
clean:
	rm -rf .venv build .pytest_cache .hypothesis
	find . -name __pycache__ -type d -not -path './data/*' -prune -exec rm -rf {} +

# The stamp is written last: an install that was cut off is begun again.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; this is $$($(PYTHON) --version). Say which with: make PYTHON=python3.12 ..." >&2; exit 1; }
	@echo "Installing into .venv, once: several gigabytes (torch), some minutes."
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -c constraints.txt -e '.[test]'
	touch $@
