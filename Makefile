# make repro runs the pipeline, make test runs the tests; both install what they need into .venv first.
# make repro EXPERIMENT=name runs a file of conf/experiment/; an own params.yaml is kept there first.
# make repro GPU=1 installs TensorFlow with CUDA as well, GPU=jax installs JAX with CUDA and trains with it.
# dvc repro gives the same, one stage after the other.
PYTHON ?= python3
EXPERIMENT ?=
GPU ?=
PARALLEL = -n auto --dist worksteal
export PATH := $(CURDIR)/.venv/bin:$(PATH)
ifeq ($(GPU),jax)
export KERAS_BACKEND := jax
endif

.PHONY: repro serve predict reports test test-ci test-all test-s3 lint format lock earlier-systems browser postgresql s3 clean
repro: .venv/.installed $(if $(GPU),.venv/.installed-gpu-$(GPU))
	$(if $(EXPERIMENT),pneumo use $(EXPERIMENT))
	pneumo check
	pneumo sweep

# The released model, models/release/model.pneumo, as a page in the browser.
serve: .venv/.installed
	pneumo serve

# make predict IMAGES="scan.jpeg folder": the released model's verdict on each.
predict: .venv/.installed
	pneumo predict $(or $(IMAGES),$(error Expected IMAGES="files and folders". Received: nothing))

# Every packed report, from its inputs.tar.xz, with the code as it is now.
reports: .venv/.installed
	pneumo remake

test: .venv/.installed
	pytest $(PARALLEL)

test-ci: .venv/.installed
	pytest $(PARALLEL) -m "not slow"

test-all: .venv/.installed
	pytest -m "slow or not slow"

lint: .venv/.installed
	ruff check .
	ruff format --check .
	mypy

format: .venv/.installed
	ruff check --fix .
	ruff format .

# The locks of GPUs hold what requirements.lock does not.
COMPILE = uv pip compile --universal --python-version 3.11 --extra dev --generate-hashes \
  --no-emit-index-url --no-header --no-annotate --upgrade pyproject.toml
lock: .venv/.installed
	$(COMPILE) -o requirements.lock
	for extra in gpu gpu-jax; do \
	  $(COMPILE) --extra $$extra --constraint requirements.lock \
	    $$(sed -n 's/^\([a-z0-9._-]*\)==.*/--no-emit-package \1/p' requirements.lock) -o requirements-$$extra.lock || exit 1; \
	done

# The tests that look at the page need Chromium; this installs Debian's and must run as root.
browser:
	command -v chromium || (apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium)

# The test of workers on one PostgreSQL database needs its server; this installs Debian's and must run as root.
postgresql:
	ls -d /usr/lib/postgresql/*/bin || (apt-get update -qq && apt-get install -y -qq --no-install-recommends postgresql)

# What the tests of a storage need. botocore asks for an older python-dateutil than requirements.lock has.
s3: .venv/.installed
	.venv/bin/python -m pip install --quiet --no-build-isolation --editable ".[test-s3]"

test-s3: s3
	pytest -m "slow or not slow" tests/test_storage.py

earlier-systems: .venv/.installed
	python docs/make_earlier_systems.py

clean:
	rm -rf .venv

.venv/.installed: requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --require-hashes --requirement requirements.lock
	.venv/bin/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

# CUDA's packages, beside those of requirements.lock.
.venv/.installed-gpu-1: requirements-gpu.lock .venv/.installed
	.venv/bin/python -m pip install --quiet --require-hashes --no-deps --requirement $<
	touch $@

.venv/.installed-gpu-jax: requirements-gpu-jax.lock .venv/.installed
	.venv/bin/python -m pip install --quiet --require-hashes --no-deps --requirement $<
	touch $@
