# What a developer types. `./bootstrap test` does it all on a machine that has nothing yet.
PYTHON ?= .venv/bin/python
BIN := $(dir $(PYTHON))
C_SOURCES = $(wildcard cycontainer/*.h cycontainer/init/*.h cycontainer/command/*.[ch] bench/*.[ch] tests/*.[ch])
CYTHON_SOURCES = $(wildcard cycontainer/*.pyx cycontainer/*.pxd cycontainer/init/*.pyx cycontainer/init/*.pxd)
STUBBED = $(subst /,.,$(basename $(wildcard cycontainer/*.pyi)))
CROSS = aarch64-linux-gnu

.PHONY: build test test-vm check bench docs links cross wheels clean

build: # one at a time in a tree: two at once would write the same files
	@mkdir -p build
	@flock build/lock $(PYTHON) -W ignore setup.py -q build_ext --inplace

test: build
	$(PYTHON) -m pytest

test-vm: build # on a machine with systemd and cgroup v2, made when it is missing: docs/machines.md
	$(PYTHON) tests/vm suite

check: build
	$(BIN)ruff check .
	$(BIN)ruff format --check .
	PATH="$(abspath $(BIN)):$$PATH" cython-lint $(CYTHON_SOURCES)
	$(BIN)mypy
	$(PYTHON) -m mypy.stubtest $(STUBBED) --mypy-config-file pyproject.toml --ignore-disjoint-bases \
		--allowlist tests/stubtest-allowed.txt
	$(if $(C_SOURCES),clang-format --dry-run --Werror $(C_SOURCES))
	$(PYTHON) -m pytest -q tests/test_house.py

# The site, in build/docs. A warning is an error, and so is a link within the project that leads nowhere; those to elsewhere
# are not followed, as that takes a network: `make links` does. Both need the extra `docs`.
docs: build
	$(PYTHON) -m sphinx -W --keep-going -q -b html docs build/docs

links: build # each link that leads out of the project, asked for
	$(PYTHON) -m sphinx -q -b linkcheck docs build/links

bench: build
	$(PYTHON) bench/compare.py

cross: # the modules and the init for another machine; there the init carries plans out, under emulation
	@mkdir -p build/$(CROSS)/include
	@# Debian's pyconfig.h includes one of the machine's name; the limited API needs nothing of it that differs.
	@ln -sfn /usr/include/$$($(PYTHON) -c 'import sysconfig; print(sysconfig.get_config_var("MULTIARCH"))') \
		build/$(CROSS)/include/$(CROSS)
	C_INCLUDE_PATH=build/$(CROSS)/include CC=$(CROSS)-gcc flock build/lock $(PYTHON) -W ignore setup.py -q build_ext \
		--build-lib build/$(CROSS)/lib --build-temp build/$(CROSS)/temp build_scripts --build-dir build/$(CROSS)/scripts
	@touch build/$(CROSS)/built
	$(PYTHON) -m pytest -q tests/test_cross.py

wheels: # for PyPI, into dist/; needs gcc-aarch64-linux-gnu, and gcc for x86-64
	$(PYTHON) -m pip install -q abi3audit auditwheel wheel ziglang
	$(PYTHON) packaging/wheels.py

clean:
	rm -rf build dist *.egg-info cycontainer/*.so cycontainer/init/init cycontainer/command/cycontainer
