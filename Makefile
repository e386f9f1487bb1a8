# Two commands do all the set-up: `make demo` runs the main job, `make test` passes the tests.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
# On Linux the default index serves torch with CUDA: gigabytes that a CPU does not need. To take PyTorch's CPU build:
# make install TORCH_INDEX_URL=<its CPU index, named in PyTorch's own installation guide>
TORCH_INDEX := $(if $(TORCH_INDEX_URL),--index-url $(TORCH_INDEX_URL))

.PHONY: install demo test test-all lint image clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(TORCH_INDEX) "$$(grep '^torch==' constraints.txt)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: install
	rm -rf demo
	@echo "Simulating three subjects (about a minute and a half on 4 cores) ..."
	$(BIN)/bids-cmb-train demo demo
	$(BIN)/bids-cmb demo demo/derivatives/bids-cmb participant
	$(BIN)/bids-cmb demo demo/derivatives/bids-cmb group
	@$(BIN)/bids-cmb-train demo demo --compare demo/derivatives/bids-cmb
	@echo "Pages: demo/derivatives/bids-cmb/sub-01.html sub-02.html sub-03.html group_cmb.html"

test: install
	$(BIN)/python -m pytest -q -n 2 -m "not slow"

test-all: install
	$(BIN)/python -m pytest -q -n 2

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

image:
	docker build --build-arg TORCH_INDEX_URL="$(TORCH_INDEX_URL)" -t bids-cmb:cpu .

clean:
	rm -rf .venv demo build dist
