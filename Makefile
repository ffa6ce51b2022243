# make run: a video from the embedded model. make test: everything that is checked. Both install what they need.
PYTHON ?= python3
PROMPT ?= a blue circle moving horizontally quickly on a white background
SEED ?= 5
export PYTHON

.PHONY: run test test-thorough lint clean

run: .venv/.run
	.venv/bin/python -m sf_core generate --prompt "$(PROMPT)" --seed $(SEED) --seconds 5 --out video.mp4

test: .venv/.test lint
	.venv/bin/python -m pytest -q -n 2 tests

# the property tests with 16 times the examples, drawn anew each time
test-thorough: .venv/.test
	SF_TEST_PROFILE=thorough .venv/bin/python -m pytest -q -n 2 tests

lint: .venv/.test
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

.venv/.run: tools/venv.sh requirements.txt constraints.txt
	tools/venv.sh
	@touch $@

.venv/.test: tools/venv.sh requirements.txt requirements-test.txt constraints.txt
	tools/venv.sh test
	@touch $@

clean:
	rm -rf .venv .pytest_cache .hypothesis .mypy_cache .ruff_cache
