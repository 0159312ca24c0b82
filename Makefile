# Every target does its own set-up. The stamp's name is the hash of all that the set-up depends on, so a second start
# runs nothing, and a change of a lock file, of the packages or of this folder's place makes .venv anew.
KEY   := $(shell { pwd; cat requirements/dev.txt .ci/system-packages; } | sha256sum | cut -c1-16)
READY := .venv/ready-$(KEY)
PY    := .venv/bin/python
# Tests, pictures and measurements never open a window on the desktop of whoever runs them.
HEADLESS := QT_QPA_PLATFORM=offscreen

# What makes the bundle has an environment of its own: what is not in it cannot get into the bundle.
PARTS   := requirements/bundle.txt .ci/system-packages .ci/packaging-packages
BUNDLER := build/bundler/ready-$(shell { pwd; cat $(PARTS); } | sha256sum | cut -c1-16)
BUNDLE  := build/bundle/walkscope/walkscope
MADE_OF := $(shell find main.py gui engine storage resources LICENSE -type f -not -name '*.pyc')

.PHONY: setup run display test test-slow lint bench docs thumbnails shots bundle install uninstall deb lock clean

setup: $(READY)

$(READY):
	@.ci/setup $@ requirements/dev.txt .ci/system-packages

run: $(READY) display
	@$(PY) main.py

display:
	@test -n "$$DISPLAY$$WAYLAND_DISPLAY$$QT_QPA_PLATFORM" || { echo "There is no display here (DISPLAY and \
	WAYLAND_DISPLAY are unset): run it on a desktop, or on a virtual display with xvfb-run make run." >&2; exit 1; }

test: lint
	@$(HEADLESS) $(PY) -m pytest

test-slow: $(READY)
	@WALKSCOPE_SLOW=1 $(HEADLESS) $(PY) -m pytest

lint: $(READY)
	@$(PY) -m ruff check --quiet --output-format=concise .
	@$(PY) -m mypy engine storage gui $(wildcard main.py)
	@.venv/bin/lint-imports

bench: $(READY)
	@$(HEADLESS) $(PY) -m tests.bench

docs: $(READY)
	@$(PY) -m tests.docs

thumbnails: $(READY)
	@$(HEADLESS) $(PY) -m tests.thumbnails

shots: $(READY)
	@$(HEADLESS) $(PY) -m tests.shots

bundle: $(BUNDLE)
	@build/bundler/bin/python -m resources.packaging.bundle archive

$(BUNDLER):
	@.ci/setup $@ $(PARTS)

$(BUNDLE): $(BUNDLER) $(MADE_OF)
	@build/bundler/bin/python -m resources.packaging.bundle folder

install: $(BUNDLE)
	@build/bundle/walkscope/install

uninstall:
	@resources/packaging/install uninstall

deb: $(BUNDLE)
	@build/bundler/bin/python -m resources.packaging.deb

lock:
	@.ci/lock

clean:
	rm -rf .venv build .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find engine storage gui tests -name __pycache__ -prune -exec rm -rf {} +
