# Two commands from a bare clone: make demo, make test. Both build .venv first, once; later calls start at once.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

# Large pages for large tensors: training on a CPU is up to 1.05 times as fast (make bench). Only glibc listens.
export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1

.PHONY: demo test unit lab playground student bench clean
demo: $(STAMP)
	$(BIN)/m2kd-lite demo

test: $(STAMP)
	$(BIN)/python -m pytest tests

# What needs no kernel, server, browser or long training: most tests, in three minutes on two cores.
unit: $(STAMP)
	$(BIN)/python -m pytest tests -m "not system"

lab: $(STAMP)
	$(BIN)/jupyter lab --notebook-dir=notebooks

# All panels on one page, in your browser; the address that is printed opens it again.
playground: $(STAMP)
	$(BIN)/python -m m2kd_lite.playground

# The lessons without solutions and outputs, for handing out; docs/instructors.md says how to go on.
student: $(STAMP)
	$(BIN)/python -m m2kd_lite.course build/student

# A quarter of an hour or more on two idle cores. Ratios are taken side by side in one run; a goal that was missed is said, and no failure.
bench: $(STAMP)
	$(BIN)/python -m benchmarks

# runs/ and data/ are yours and stay; so does the cache of decoded data sets, which later installs use again.
clean:
	rm -rf .venv build .pytest_cache .hypothesis
	find . -name __pycache__ -type d -not -path './data/*' -prune -exec rm -rf {} +

# The stamp is written last: an install that was cut off is begun again.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; this is $$($(PYTHON) --version). Say which with: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	touch $@
