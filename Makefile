# Two commands do all the set-up on a fresh Debian 12, as root: make deploy, make test.
SHELL := /bin/bash
VENV ?= .venv
PY := $(VENV)/bin/python
RUN := $(VENV)/bin/pyinfra -y inventory.py
ARGS ?=

LEVELS = $(VENV)/.levels
LEVEL = ./bin/level $(LEVELS)
ASIDE = $(PY) -m tests.side_by_side

.PHONY: deploy dry verify destroy test unit e2e lint venv test-tools test-machine test-vm bench-converge clean

deploy: $(VENV)/.ready
	@$(RUN) deploy.py $(ARGS)

dry: $(VENV)/.ready
	@$(VENV)/bin/pyinfra --dry inventory.py deploy.py $(ARGS)

verify: $(VENV)/.ready
	@$(RUN) tasks/verify.py $(ARGS)

destroy: $(VENV)/.ready
	@$(RUN) tasks/destroy.py $(ARGS)

# The levels go one after the other, each begins only where the one before it passed.
test: $(VENV)/.test-ready
	@rm -f $(LEVELS)
	@for name in lint unit e2e test-machine test-vm; do $(LEVEL) $$name $(MAKE) -s --no-print-directory $$name || break; done
	@$(LEVEL)
	@echo "umlaan: all tests passed"

lint: $(VENV)/.test-ready
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy --strict umlaan

unit: $(VENV)/.test-ready
	@$(ASIDE) --groups 10 --at-once 10 tests/unit tests/operations

e2e: $(VENV)/.test-ready
	@$(ASIDE) --at-once 3 tests/e2e

venv: $(VENV)/.ready

# python3 of Debian 12 lacks venv until its package is there; any other python3 >= 3.11 serves too.
$(VENV)/.ready: pyproject.toml
	@./bin/make-venv $(VENV)
	@touch $@

$(VENV)/.test-ready: $(VENV)/.ready pyproject.toml
	@./bin/test-tools
	@$(VENV)/bin/pip install -q --no-input -e '.[test]'
	@touch $@

# Against the bare commands and against Ansible; ARGS="--ready" is over in minutes.
bench-converge: $(VENV)/.test-ready
	@$(PY) -m bench $(ARGS)

clean:
	rm -rf $(VENV)

# Lab hosts as machines by systemd-nspawn: systemd, units, reboots, a partition as a root.
test-machine: $(VENV)/.test-ready
	@./bin/test-tools
	@$(ASIDE) --at-once 2 tests/machine

# A machine in QEMU, without acceleration: a kernel of its own through grub, its modules.
test-vm: $(VENV)/.test-ready
	@./bin/test-tools qemu-system-x86 qemu-utils fdisk grub-pc-bin grub-common ccache bc bison flex \
	    libelf-dev libssl-dev kmod cpio rsync perl xz-utils
	@$(PY) -m pytest -q --durations=10 tests/vm
