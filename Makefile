# make run: ComfyUI makes a video with the embedded model. make comfyui: its editor, to try it. make check: lint and the
# unit tests, under two minutes. make test: everything that is checked. Each installs what it needs into .venv.
PYTHON ?= python3
WORKFLOW ?= workflows/tiny_text_to_video.json
PROMPT ?= a blue circle moving left quickly on a white background
SEED ?= 5
RECIPE ?= tiny-world
MINUTES ?= 10
export PYTHON

.PHONY: run comfyui demo train study soak check test test-thorough lint lint-types lint-rules lint-js clean

run: .venv/.comfyui
	.venv/bin/python -m tools.make.run $(WORKFLOW)

comfyui: WORKFLOW = workflows/tiny_live.json
comfyui: .venv/.comfyui
	.venv/bin/python -m tools.make.open $(WORKFLOW)

# without ComfyUI, from the command line
demo: .venv/.run
	.venv/bin/python -m sf_core generate --prompt "$(PROMPT)" --seed $(SEED) --seconds 5 --out video.mp4

# by a recipe, in runs/<its name>; goes on with what is there
train: .venv/.train
	.venv/bin/python -m sf_core train --recipe $(RECIPE) $(if $(wildcard runs/$(RECIPE)/state.safetensors),--resume)

# docs/exposure-bias.md: the paper's claim, out of what `make train` made; goes on with what is there
study: .venv/.train
	.venv/bin/python -m benchmarks.exposure_bias

# a live run in a real editor, for MINUTES: does memory stay flat, is the file complete
soak: .venv/.comfyui
	.venv/bin/python -m benchmarks.soak_live --minutes $(MINUTES)

# what a developer runs all the time: no server, no browser, nothing slow (tests/conftest.py says which tests these are),
# and few examples for each property
check: .venv/.check lint
	SF_TEST_PROFILE=quick .venv/bin/python -m pytest -q -n 2 -m unit tests

# one worker for each server and its browser, and one for the rest, which fills the time that those wait
test: .venv/.test lint
	.venv/bin/python -m pytest -q -n 3 -m "not alone" --durations 15 tests
	.venv/bin/python -m pytest -q -m alone tests/browser

# the property tests with 16 times the examples, drawn anew each time
test-thorough: .venv/.test
	SF_TEST_PROFILE=thorough .venv/bin/python -m pytest -q -n 2 tests

lint: .venv/.check
	@$(MAKE) --no-print-directory -j 2 lint-types lint-rules lint-js

# the nodes import the core as ComfyUI has them do it: as parts of one package, which the folder is
lint-types:
	.venv/bin/mypy
	@mkdir -p .mypy_cache/pack && ln -sfn ../.. .mypy_cache/pack/self_forcing
	MYPYPATH=.mypy_cache/pack .venv/bin/mypy -p self_forcing.nodes
	PYTHONPATH=.mypy_cache/pack .venv/bin/lint-imports --cache-dir .mypy_cache/imports

lint-rules:
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/python -m tools.lint_project

# types and style of js/; needs npm
lint-js:
	@if command -v npm >/dev/null; then \
	  $(MAKE) --no-print-directory node_modules/.package-lock.json && node_modules/.bin/tsc && node_modules/.bin/eslint .; \
	else \
	  echo "SKIPPED: js/ is not checked, since npm is not installed"; \
	fi

node_modules/.package-lock.json: package.json package-lock.json
	npm ci --no-audit --no-fund --ignore-scripts
	@touch $@

INSTALLS = tools/venv.sh tools/requirements.py pyproject.toml requirements.txt constraints.txt

.venv/.run: $(INSTALLS)
	tools/venv.sh
	@touch $@

.venv/.comfyui: $(INSTALLS)
	tools/venv.sh comfyui browser
	@touch $@

.venv/.train: $(INSTALLS)
	tools/venv.sh train
	@touch $@

.venv/.check: $(INSTALLS)
	tools/venv.sh check
	@touch $@

.venv/.test: $(INSTALLS)
	tools/venv.sh test
	@touch $@ .venv/.check

clean:
	rm -rf .venv .comfyui node_modules .pytest_cache .hypothesis .mypy_cache .ruff_cache
