# Everything below needs Python 3.11 or newer and make; `make setup` builds the rest in .venv.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: setup demo test test-tinker tinker-server gpu soak check proof-base proof-small proof-quick proof-reach proof-words proof-qwen bench lock docs site

setup: $(STAMP)

$(STAMP): requirements.lock requirements-nodeps.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "rloop needs Python 3.11 or newer; name one: make PYTHON=..." >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps -r requirements-nodeps.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

# A name that is free: runs/demo, then runs/demo-2, ...
demo: setup
	@out=runs/demo; n=2; while test -e $$out; do out=runs/demo-$$n; n=$$((n + 1)); done; \
	$(BIN)/rloop run recipes/demo.yaml --out $$out && echo "The report is $$out/report.html"

# One process a core, one thread each: two torch programs of two threads slow each other down. What
# measures time comes last, with nothing beside it.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q --durations=10

test: setup
	$(PYTEST) -m "not soak and not alone" -n auto --dist loadfile
	$(PYTEST) -m alone

# Parity and speed on a GPU, under nine minutes; prints JSON. make gpu GPU="--device cpu --tiny"
gpu: setup
	@mkdir -p runs && $(BIN)/python tests/gpu/check.py --json runs/gpu.json $(GPU)

# SkyRL's Tinker server for tests and first tries, in an environment of its own: it pins another
# transformers. Built once, in three minutes and 2 GB, more where torch drags CUDA along.
SERVER := .venv-skyrl/.installed
MODEL ?= random:qwen3-2x64
PORT ?= 8000

# On Python 3.11 pydantic wants another TypedDict than the one SkyRL 0.3.0 imports.
$(SERVER):
	test -x .venv-skyrl/bin/python || $(PYTHON) -m venv .venv-skyrl
	.venv-skyrl/bin/python -m pip install --quiet torch==2.13.0 "skyrl[tinker,jax]==0.3.0"
	sed -i.orig 's/^from typing import Annotated, Any, Literal, TypedDict/from typing_extensions import Annotated, Any, Literal, TypedDict/' \
		.venv-skyrl/lib/python3.*/site-packages/skyrl/tinker/types.py
	@touch $@

# Serves MODEL, a directory or a tiny random model: make tinker-server MODEL=DIR PORT=8000
tinker-server: setup $(SERVER)
	$(BIN)/python tests/doubles_tinker.py $(MODEL) runs/tinker/server $(PORT)

test-tinker: setup $(SERVER)
	$(PYTEST) -m tinker --timeout=3600

# Long tests, minutes each; docs/explanation/reliability.md has their results.
soak: setup
	$(BIN)/python -m pytest -q -m soak --durations=0 --timeout=3600

check: setup
	$(BIN)/ruff format --check src tests examples proof
	$(BIN)/ruff check src tests examples proof
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(MAKE) test

# The base policy of the small proving ground (docs/results/experiments.md), minutes on two cores.
proof-base: setup
	test -d runs/proof/ground || $(BIN)/python proof/ground.py runs/proof/ground
	test -d runs/proof/base || $(BIN)/rloop run proof/base.yaml --out runs/proof/base

# Every method with five seeds from that base, two runs at a time, and the pictures of
# docs/results/small.md; then plain RL and RLoop at a third and three times the learning rate. About two
# hours on two cores. What is complete is skipped, so it can be stopped.
METHODS := rl,rloop,keep_weights,no_hardness,from_base,raft,rest_em,replay,coverage,accumulated
proof-small: proof-base
	$(BIN)/rloop sweep proof/small.yaml --methods $(METHODS) --seeds 5 --jobs 2 --out runs/proof/small
	$(BIN)/rloop sweep proof/small.yaml --methods rl,rloop --seeds 5 --jobs 2 --out runs/proof/rate-3e-5 \
		--set explore.optimizer.learning_rate=3e-5
	$(BIN)/rloop sweep proof/small.yaml --methods rl,rloop --seeds 5 --jobs 2 --out runs/proof/rate-3e-4 \
		--set explore.optimizer.learning_rate=3e-4
	$(BIN)/python proof/pictures.py runs/proof/small runs/proof/pictures \
		--rates runs/proof/rate-3e-5 runs/proof/rate-3e-4
	$(BIN)/rloop compare runs/proof/small/rloop-seed-? runs/proof/small/raft-seed-? runs/proof/small/accumulated-seed-? \
		runs/proof/rate-3e-5/rl-seed-? --out runs/proof/small-curves.html

# Which way it goes, in a fraction of that time: a base that learned less, plain RL and RLoop, two seeds.
proof-quick: setup
	test -d runs/proof/ground || $(BIN)/python proof/ground.py runs/proof/ground
	test -d runs/proof/quick-base || $(BIN)/rloop run proof/base.yaml --out runs/proof/quick-base \
		--set coldstart.epochs=2 --set evaluate.samples=8 --set evaluate.k=[1,8]
	$(BIN)/rloop sweep proof/small.yaml --methods rl,rloop --seeds 2 --jobs 2 --out runs/proof/quick \
		--set policy.path=runs/proof/quick-base/policies/coldstart --set explore.steps=25
	$(BIN)/python proof/pictures.py runs/proof/quick runs/proof/quick-pictures

# The ground with reach: the base can do 2 % of what it is asked, so that RL has to find it. Plain RL at the rate that
# is best for it, the others at 1e-4, and every method's curve over temperatures. Hours on two cores; it can be stopped.
REACH := runs/proof/reach
REACH_TASKS := --set tasks.train.0.source=file:$(REACH)/train.jsonl \
	--set tasks.evaluate.0.source=file:$(REACH)/held-out.jsonl --set tasks.evaluate.1.source=file:$(REACH)/shifted.jsonl
REACH_RUN := $(REACH_TASKS) --set policy.path=$(REACH)-base/policies/coldstart --set iterations=6 \
	--set evaluate.every=0 --set evaluate.temperature_samples=64
proof-reach: setup
	test -d $(REACH) || $(BIN)/python proof/ground.py $(REACH) --reach
	test -d $(REACH)-base || $(BIN)/rloop run proof/base.yaml --out $(REACH)-base $(REACH_TASKS) \
		--set coldstart.epochs=8 --set coldstart.task.source=file:$(REACH)/solved.jsonl
	$(BIN)/rloop sweep proof/small.yaml --methods rloop,accumulated,raft --seeds 3 --jobs 2 --out $(REACH)-sweep $(REACH_RUN)
	$(BIN)/rloop sweep proof/small.yaml --methods rl --seeds 3 --jobs 2 --out $(REACH)-rl $(REACH_RUN) \
		--set explore.optimizer.learning_rate=3e-5
	$(BIN)/rloop compare $(REACH)-sweep $(REACH)-rl --out $(REACH)-compare.html
	$(BIN)/python proof/curves.py $(REACH)-curves.png "with reach=$(REACH)-sweep,$(REACH)-rl"

# The second ground: SmolLM2-135M on word problems, hours on two cores; it can be stopped and goes on.
# The problems come from RLOOP_DATA where that is set, else from the hub.
proof-words: setup
	test -f runs/proof/words/equations.jsonl || $(BIN)/python proof/words.py runs/proof/words/equations.jsonl
	test -d runs/proof/words/base || $(BIN)/rloop run proof/words-base.yaml --out runs/proof/words/base
	$(BIN)/rloop sweep proof/words.yaml --methods rl,rloop --seeds 3 --jobs 2 --out runs/proof/words/sweep
	$(BIN)/python proof/pictures.py runs/proof/words/sweep runs/proof/words/pictures
	$(BIN)/python proof/guessing.py runs/proof/words/sweep

# A model of the paper's family on word problems; meant for a GPU, and not yet run to its end.
proof-qwen: setup
	$(BIN)/rloop sweep proof/qwen.yaml --methods rl,rloop,raft --seeds 3 --out runs/proof/qwen

# On a machine where nothing else runs; options in BENCH: make bench BENCH="S1 --full"
bench: setup
	@$(BIN)/python benchmarks/run.py $(BENCH) --json runs/bench.json

# Pins everything in the dev extra. torch's CUDA packages differ by machine and come with torch.
lock: setup
	$(BIN)/uv pip compile pyproject.toml --extra dev --python-version 3.11 --upgrade --quiet \
		--no-annotate --no-header --no-emit-index-url --no-emit-find-links \
		| sed -E -e '/^(nvidia|cuda|triton)/d' -e 's/^(torch==[0-9.]+)\+.*/\1/' > requirements.lock.new
	mv requirements.lock.new requirements.lock

# Writes the reference pages that come from the code.
docs: setup
	$(BIN)/python docs/reference/generate.py

# The documentation as a site: runs/site/index.html.
site: setup
	$(BIN)/python -m pip install --quiet --no-build-isolation -e '.[docs]'
	$(BIN)/python -m mkdocs build --strict --quiet
