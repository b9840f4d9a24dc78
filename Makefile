# SPDX-License-Identifier: GPL-2.0
#
# Everything but a module for one's own kernel runs in a build root that setup/setup makes once (see there).
# What Kbuild reads is in the file Kbuild.

# Targets, as `make` shows them:
#: make demo                 the whole story in a virtual machine: files on persistent memory survive a power cut
#: make demo-errors          machine checks at random addresses: what each costs, and how it heals
#:      ERRORS=12 SEED=1     how many (100 take about four minutes), and which
#: make picture              what pmemctl prints, drawn for the README: Documentation/pmemctl*.svg
#: make check                format, lints, host tests, the module, selftests in virtual machines
#:      TESTS='dax-*'        only the selftests of these names
#:      DRIVER=nd_pmem       the same selftests, of the stock C driver
#:      LIST=1               their names, titles, tags and machines
#: make parity               the two drivers side by side: every selftest under both, compared in build/parity.md
#:      TESTS='block-*'       only these, into build/parity-partial.md
#: make mutants              plants faults into copies of the driver: each must be found by its selftest; build/mutants.md
#:      MUTANTS='no-*'       only these
#: make suites               others' test suites under both drivers; the table is build/suites.md
#: make suite-kselftest      the kernel's own of memory and mounts, on DAX file systems, in about half an hour
#: make suite-ndctl          that of ndctl, on the kernel's emulated DIMMs, in about half an hour
#: make suite-apps          libraries and programs on DAX: PMDK, fio, stress-ng, SQLite, PostgreSQL
#:      TESTS='clear.sh'     only these of its tests
#:      DRIVER=rust_pmem     only under this driver
#:      RESUME=1             not those again that have been run on the same driver
#: make xfstests             the xfstests that are installed in a folder of yours, in three ways to mount
#:      XFSTESTS=DIR         that folder; FSTYP=xfs GROUP=dax, or TESTS='generic/4*'; FRESH=1 runs all of them again
#: make bench                instructions for each operation, beside nd_pmem and others, into build/bench
#:      OPS='read-4k fsync'  only these operations
#: make bench-cpus           fio on two processors, in time: noise, but neither driver should stand still
#: make bench-native         in nanoseconds, on this machine's own memory; asks before it overwrites
#:      DISKS='/dev/pmem0'   which; after --help, what else can be said
#: make bench-files          how long "pmemctl bad" takes, and its memory, by the number of files
#:      FILES=1000000        how many (otherwise 20000, in minutes)
#: make bench-errors         what isolated errors cost: to add them, in memory, to I/O, to bind, to repair
#:      ERRORS=100000        how many (otherwise 20000)
#: make vm                   a shell in a virtual machine that has the module at hand
#:      RUN='command'        one command there; a status other than 0 is in make's last line
#:      VM='options'         another machine: see make vm VM=--help (RUST_PMEM_BIND=DIR lends it files of yours)
#: make module               rust_pmem.ko for the stock kernel of the virtual machine
#:      KDIR=DIR             for the kernel whose build directory this is, with this machine's own tools
#:                           (also ARCH= CC= HOSTCC= LLVM= KERNELRELEASE= V= CLIPPY=1)
#: make tools                the host tools, into build/tools/release; pmemctl's man pages and completions, into build/man
#:                           and build/completions
#: make lint, make fmt       only the lints; put the code in the form that they want
#: make setup                the build root and the images alone
#: make clean                remove what was built here
#: make distclean            remove the build root and the images as well
help:
	@sed -n 's/^#: //p' Makefile

# A command for the guest's shell is its own: its $ are not for make.
override RUN := $(value RUN)
export RUN

# The build root is entered once: its tools may call these targets from inside.
enter := $(if $(RUST_PMEM_IMAGES),,setup/enter)
release := $(CURDIR)/build/tools/release
given = $(foreach name,$1,$(if $(findstring command,$(origin $(name))),$(name)='$($(name))'))
kbuild_variables := ARCH CC HOSTCC LLVM KERNELRELEASE V W CLIPPY

# The folder that the module is built in, of the sources that are there.
M := $(CURDIR)

setup:
	@$(if $(enter),setup/setup)

ifeq ($(if $(enter),$(KDIR)),)
module: setup
	@$(enter) make -C /usr/src/kernel-build M='$(M)' --no-print-directory \
		ARCH=x86 CC=x86_64-linux-gnu-gcc-14 $(call given,$(kbuild_variables)) modules
else
module:
	@$(call given,$(kbuild_variables) RUSTC BINDGEN) setup/check-kdir '$(KDIR)'
	$(MAKE) -C '$(KDIR)' M='$(M)' modules
endif

# What selftests load into the guest besides: a provider of memory that fails on demand.
provider: setup
	@$(enter) make -C /usr/src/kernel-build M=$(CURDIR)/tests/provider --no-print-directory \
		ARCH=x86 CC=x86_64-linux-gnu-gcc-14 modules

# The guests of others' test suites.
setup-ndctl setup-suites setup-apps: setup-%: setup
	@$(if $(enter),setup/setup $*)

# The driver for the kernel's emulated DIMMs.
emulated: module setup-ndctl
	@$(enter) make -C /usr/src/kernel-build M=$(CURDIR)/tests/external/ndctl --no-print-directory \
		ARCH=x86 CC=x86_64-linux-gnu-gcc-14 \
		KBUILD_EXTRA_SYMBOLS=$(dir $(realpath build/images/ndctl.img))Module.symvers modules

tools: setup
	@[ -d build/tools/release ] || echo 'Building the host tools, once (about 90 s).'
	@$(enter) cargo build --release --locked --offline --manifest-path tools/Cargo.toml
	@$(enter) $(release)/pmemctl generate build

demo: module tools
	@$(enter) $(release)/pmem-demo

demo-errors: module tools
	@$(enter) $(release)/pmem-demo --errors $(ERRORS) $(if $(SEED),--seed '$(SEED)')

picture: module tools
	@$(enter) $(release)/pmem-demo --picture Documentation

check: tools $(if $(TESTS)$(LIST),,setup-ndctl)
	@set -f; $(enter) $(release)/pmem-check $(if $(DRIVER),--driver '$(DRIVER)') $(if $(LIST),--list) $$TESTS

parity: tools
	@set -f; $(enter) $(release)/pmem-check --parity $$TESTS

suites: suite-ndctl suite-kselftest suite-apps

suite-ndctl: setup-ndctl
suite-kselftest: setup-suites
suite-apps: setup-apps
suite-ndctl suite-kselftest suite-apps: suite-%: tools
	@set -f; $(enter) $(release)/pmem-check --suite $* $(if $(DRIVER),--driver '$(DRIVER)') $(if $(RESUME),--resume) $$TESTS

ifneq ($(XFSTESTS),)
xfstests: tools $(if $(wildcard $(XFSTESTS)/suite.toml),,setup-suites)
	@set -f; RUST_PMEM_BIND='$(abspath $(XFSTESTS))' $(enter) $(release)/pmem-check --xfstests '$(abspath $(XFSTESTS))' \
		$(if $(FSTYP),--fstyp '$(FSTYP)') $(if $(GROUP),--group '$(GROUP)') $(if $(DRIVER),--driver '$(DRIVER)') \
		$(if $(FRESH),,--resume) $$TESTS
else
xfstests:
	@echo 'xfstests are not packaged: build and install them on Debian $(shell grep -v "^\#" setup/kernel | cut -d" " -f1) (their README says how), then'
	@echo '  make xfstests XFSTESTS=/var/lib/xfstests FSTYP=xfs GROUP=dax'
	@exit 2
endif

mutants: tools
	@set -f; $(enter) $(release)/pmem-check --mutants $$MUTANTS

bench: module tools
	@$(enter) $(release)/pmem-bench $(OPS)

bench-cpus: module tools
	@$(enter) $(release)/pmem-bench cpus

# Room for the inodes, and a block for some. A nanosecond is an instruction: the same figures on any machine.
bench-files: FILES := 20000
bench-files: module tools
	@$(enter) $(release)/pmem-vm --memory 2G --cpus 1 --icount --bare --nvdimm size=$$((512 + $(FILES) / 700))M \
		--run '/rust_pmem/tests/bench/files.sh $(FILES)'

bench-errors: ERRORS := 20000
bench-errors: module tools
	@$(enter) $(release)/pmem-vm --memory 2G --cpus 1 --icount --bare --e820 $$((($(ERRORS) / 128 + 2) / 2 * 2))M@1G \
		--run '/rust_pmem/tests/bench/errors.sh $(ERRORS)'

# Statically linked: it runs outside of the build root, whatever is there.
bench-native: setup
	@$(enter) env RUSTFLAGS='-C target-feature=+crt-static' cargo build --release --locked --offline --quiet \
		--manifest-path tools/Cargo.toml --package bench --bin pmem-bench \
		--target x86_64-unknown-linux-gnu --target-dir build/tools-static
	@build/tools-static/x86_64-unknown-linux-gnu/release/pmem-bench native --output build/bench $(DISKS)

vm: module tools
	@$(enter) $(release)/pmem-vm $(VM) $${RUN:+--run "$$RUN"}

lint: tools
	@$(enter) $(release)/pmem-check --lint

fmt: setup
	$(enter) sh -c 'rustfmt --edition 2021 rust_pmem.rs && cargo fmt --all --manifest-path tools/Cargo.toml'

clean:
	rm -rf build abstractions/bindings_generated.rs
	find . abstractions abstractions/block abstractions/nd tests/provider tests/external/ndctl -maxdepth 1 -type f \( -name '*.ko' -o -name '*.o' -o -name '*.mod' \
		-o -name '*.mod.c' -o -name '.*.cmd' -o -name '.*.d' -o -name Module.symvers -o -name modules.order \) -exec rm {} +

distclean: clean
	setup/remove

.PHONY: help setup setup-ndctl setup-suites setup-apps module provider emulated tools demo demo-errors picture check \
	parity mutants suites suite-ndctl suite-kselftest suite-apps xfstests bench bench-cpus bench-native bench-files bench-errors vm \
	lint fmt clean distclean
