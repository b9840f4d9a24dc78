# SPDX-License-Identifier: GPL-2.0
#
# Targets run in a build root that setup/setup makes once (see there), except module with KDIR=, install, uninstall and those
# that only remove files.
# Kbuild reads the file Kbuild.

# The targets that people type, as `make` shows them:
#: See it work
#:   make demo      the driver in a virtual machine: files survive a power cut; a media error is found and repaired
#:   make vm        a shell in a virtual machine with the module loaded
#: Change it
#:   make module    rust_pmem.ko for the stock kernel of the guest; KDIR=DIR for another one
#:   make quick     before each commit: lints and host tests of what has changed, the quick selftests; minutes
#:   make check     format, lints, host tests, all selftests; half an hour; TESTS='dax-*' only these selftests
#:   make fmt       format the code as the lints require
#: Compare and measure it
#:   make parity    every selftest under both drivers, side by side: build/parity.md
#:   make bench     instructions of each operation, beside nd_pmem and other drivers, into build/bench
#: Ship it
#:   make release   everything that is run before a release: build/release.md; the same command continues it
#:   make install   rust_pmem.ko and pmemctl as they were built; make uninstall removes them
#:
#: `make help-all` lists all targets, with their variables.

# All targets, as `make help-all` shows them:
#+ make demo                 the driver in a virtual machine: files survive a power cut; a media error is found and repaired
#+ make picture              draw pmemctl's output for the README: Documentation/pmemctl*.svg
#+ make quick                lints and host tests of what has changed since they passed, the module, the selftests with the tag quick
#+ make check                format, lints, host tests, the module, selftests in virtual machines
#+      TESTS='dax-*'        only the selftests of these names
#+      KEEP=1               with TESTS: a shell in the guest of a test that failed, and a gdb server
#+      DRIVER=nd_pmem       the same selftests with the stock C driver
#+      LIST=1               list their names, titles, tags and guests
#+      JOBS=1               so many guests at once, of 1 GB and more (otherwise by the processors and the free memory)
#+      KERNEL=next          only the selftests, on another kernel of setup/kernels
#+ make check-debug          the selftests on a kernel that reports use after free, wrong lock order, leaks and more; its first
#+                           build takes a quarter of an hour
#+      LEAKS=0              without the search for leaks, in half of the time
#+      TESTS= DRIVER=       as above; "make check" with KERNEL=debug-races one that reports data races, debug-rt with PREEMPT_RT
#+ make matrix               build the module for every kernel of setup/kernels and run selftests there: build/matrix.md
#+      KERNELS='rt sid'     only these; TESTS='dax-*' only these selftests, TESTS=none only the build
#+ make soak                 machine checks at random addresses of ext4 and XFS, and random operations in all modes at once
#+      ERRORS=12 MINUTES=60 number of errors (100 take minutes), duration of the operations
#+      SEED=1               the seed (otherwise random); KERNEL=debug on that kernel
#+ make fuzz                 mutated info blocks, maps, logs, labels, commands, requests, ioctls and writes to sysfs
#+      MINUTES=60 SEED=1    how long, and the seed; KERNEL=debug on that kernel; DRIVER=nd_pmem
#+      IMAGES=100000        so many mutated info blocks, maps and logs instead
#+ make parity               compare the two drivers: every selftest under both, into build/parity.md
#+      TESTS='block-*'      only these, into build/parity-partial.md; KERNEL=arm64 on that kernel
#+ make coverage             the lines of the driver that the selftests execute: build/coverage.md
#+      TESTS='badblocks-*'  only by these
#+ make mutants              plant faults into copies of the driver: each must fail its selftest; build/mutants.md
#+      MUTANTS='no-*'       only these
#+      TIER=quick           only those whose test is in the quick tier, and the share of all
#+      KERNEL=debug         those that the debug kernel must report, or debug-races
#+ make powerfail            cut the power of guests at fences and stores: nothing promised may be lost; build/powerfail.md
#+      IMAGES=10000         number of crash images; the same command continues an interrupted run, FRESH=1 starts again
#+      WORKLOADS='raw-fsync' only these; SEED=1 DRIVER=nd_pmem CPU=max,-clwb EADR=1 MODULE=build/mutants/no-flush/rust_pmem.ko
#+ make suites               test suites of other projects under both drivers; the table is build/suites.md
#+ make suite-kselftest      the kernel's tests of memory and mounts, on DAX file systems, in about half an hour
#+ make suite-ndctl          those of ndctl, on the kernel's emulated DIMMs, in about half an hour
#+ make suite-apps           libraries and programs on DAX: PMDK, fio, stress-ng, SQLite, PostgreSQL
#+      TESTS='clear.sh'     only these tests
#+      DRIVER=rust_pmem     only under this driver
#+      RESUME=1             skip tests whose result with the same driver is known
#+ make xfstests             an installed tree of xfstests, with dax=always, inode and never
#+      XFSTESTS=DIR         its folder; FSTYP=xfs GROUP=dax, or TESTS='generic/4*'; FRESH=1 runs all of them again
#+ make bench                instructions of each operation, beside nd_pmem and other drivers, into build/bench
#+      OPS='read-4k fsync'  only these operations
#+ make bench-cpus           fio on two processors, in time: noise, but neither driver should stall
#+ make bench-native         in nanoseconds, on this machine's own memory; asks before it overwrites
#+      DISKS='/dev/pmem0'   the disks; --help lists further options
#+ make bench-files          time and memory of "pmemctl errors" by the number of files
#+      FILES=1000000        their number (otherwise 20000, in minutes)
#+ make bench-pmemctl        time and memory of pmemctl's commands by the number of errors
#+      ERRORS=100000        their number (otherwise 10000)
#+ make bench-errors         cost of isolated errors: to add, in memory, for I/O, to bind, to repair
#+      ERRORS=1000          their number (otherwise 100000)
#+ make bench-sizes          cost of namespaces of 1, 8 and 64 GiB (sparse files): bind, unbind, memory, first mount
#+      SIZES='512'          of other sizes, in GiB
#+ make bench-flushes        cost of durable writes on virtio-pmem by the number of threads, under both drivers
#+      SECONDS=5            for each figure
#+ make bench-databases      the same of transactions: SQLite, PostgreSQL
#+      SECONDS=5            for each figure
#+ make vm                   a shell in a virtual machine with the module loaded
#+      RUN='command'        one command there; a status other than 0 is in make's last line
#+      VM='options'         another guest: see make vm VM=--help (files outside of the checkout are in RUST_PMEM_BIND=DIR)
#+ make module               rust_pmem.ko for the stock kernel of the guest
#+      KERNEL=next          for another kernel of setup/kernels, into build/kernels
#+      KDIR=DIR             for the kernel with this build directory, with this machine's own tools
#+                           (also ARCH= CC= HOSTCC= LLVM= RUSTC= BINDGEN= KERNELRELEASE= V= CLIPPY=1)
#+ make tools                the host tools, into build/tools/debug
#+ make pmemctl              pmemctl for installation, statically linked: build/bin, build/man, build/completions, build/schema
#+      PROFILE=dev BUILD=DIR  built quickly, and elsewhere
#+ make install              rust_pmem.ko and pmemctl as they were built, with man pages, completions, units, udev rule, modprobe.d
#+      DESTDIR= PREFIX=     below another directory; under another prefix than /usr
#+      KDIR=DIR             only if the module is for the kernel with this build directory
#+      BUILD=DIR            pmemctl from there
#+ make uninstall            remove all files of "make install"; saved lists stay
#+ make deb                  Debian packages, and their source package, into build/deb
#+      KERNELS='stock rt'   with modules for these kernels of setup/kernels (otherwise for stock)
#+ make repo                 the same, and a signed apt repository of them, build/repo
#+      URL=https://HOST/DIR KEY=FILE  the address that it will have; an OpenPGP secret key of yours
#+ make rpm                  RPM packages, and their source package, into build/rpm; not tried on a distribution that has RPM
#+ make check-packages       install, upgrade and remove the packages on an installed Debian: about two hours
#+      STEPS='installed'    only these steps of tests/external/packages/system.sh
#+ make release              everything: build/release.md; XFSTESTS=DIR adds xfstests
#+      STEPS='parity soak'  only these steps
#+ make rustdoc              the driver's documentation, with private items, into build/rustdoc; a broken link is an error
#+ make rust-analyzer        rust-project.json for editors; KDIR=DIR for the kernel with this build directory
#+ make lint, make fmt       only the lints; format the code as they require
#+ make lint-workflow        lint .github/workflows with check-jsonschema and zizmor of PyPI, installed into build/venv
#+ make setup                only the build root and the images
#+ make move-kernel          test the default kernel in another version, and commit the change of setup/kernels
#+      TO=7.3.4             the version, which Debian's archive must have
#+ make clean                remove all files that were built here, but for the key of the apt repository (build/repo.key)
#+ make distclean            remove the build root and the images as well
help:
	@sed -n 's/^#: \{0,1\}//p' Makefile

help-all:
	@sed -n 's/^#+ //p' Makefile

ifneq ($(word 2,$(CURDIR)),)
$(error "$(CURDIR)" has a space, which Kbuild does not take in the path of a module: move the checkout)
endif

# Other targets build for a guest's kernel, whatever a kernel developer's shell exports.
ifeq ($(if $(filter module install,$(MAKECMDGOALS)),,$(origin KDIR)),environment)
override KDIR := $(if $(RUST_PMEM_IMAGES),$(KDIR))
endif

# make does not expand a command for the guest's shell.
override RUN := $(value RUN)
export RUN
# With it, cd prints where it goes.
unexport CDPATH

# The tools call these targets from inside the build root, which is not entered again.
enter := $(if $(RUST_PMEM_IMAGES),,setup/enter)
built := $(CURDIR)/build/tools/debug
# Packages are built by tools of the system, into a directory of their own.
PROFILE := release
BUILD := build
pmemctl := $(if $(enter),build/tools,$(or $(CARGO_TARGET_DIR),build/tools))/x86_64-unknown-linux-gnu/$(PROFILE:dev=debug)/pmemctl
given = $(foreach name,$1,$(if $(findstring command,$(origin $(name))),$(name)='$($(name))'))
kbuild_variables := ARCH CC HOSTCC LLVM KERNELRELEASE V W CLIPPY

# The folder of the module's sources, where it is built.
M := $(CURDIR)

# Modules for another kernel than the default are built with its compilers, from copies of their sources: Kbuild takes no
# folder for objects if there are other objects beside the sources. A list of tests needs none.
other := $(if $(LIST),,$(filter-out stock,$(KERNEL)))
takes_kernel := module provider check check-debug soak fuzz parity mutants setup tools
takes_none := $(if $(other),$(filter-out $(takes_kernel),$(MAKECMDGOALS)))
ifneq ($(takes_none),)
$(error '$(takes_none)' takes no KERNEL=: leave it out, or make one of: $(takes_kernel))
endif
arm64 := $(filter arm64%,$(other))
enter_kernel := $(if $(other),ENTER_ROOT='$(other)' )$(enter)
# Two makes in one checkout would write the same objects.
kbuild := mkdir -p build && $(enter_kernel) flock build/kbuild.lock setup/kbuild
copies := $(CURDIR)/build/kernels/$(other)
# rustc would find sources that are gone as modules.
remove_copies = mkdir -p $(copies) && find $(copies) -name '*.rs' ! -name '*_generated.rs' -delete
copy = mkdir -p $(copies) && find $1 -type f \( -name Kbuild -o -name bindgen_parameters -o -name '*.rs' -o -name '*.[ch]' \) \
	! -name '*_generated.rs' ! -name '*.mod.c' -exec cp -p --parents -t $(copies) {} +

setup:
	@$(if $(enter),setup/setup $(if $(other),'$(other)'))

ifeq ($(if $(enter),$(KDIR)),)
module: setup
	@$(if $(other),$(remove_copies) && $(call copy,Kbuild *.rs abstractions))
	@$(kbuild) M='$(if $(other),$(copies),$(M))' $(call given,$(kbuild_variables)) modules
else
module:
	@$(call given,$(kbuild_variables) RUSTC BINDGEN) setup/check-kdir '$(KDIR)'
	$(MAKE) -C '$(KDIR)' M='$(M)' modules
endif

# Selftests also load a provider of memory that fails on demand.
provider: setup
	@$(if $(other),$(call copy,tests/provider))
	@$(kbuild) M='$(if $(other),$(copies),$(CURDIR))/tests/provider' modules

# The guests of the test suites of other projects; the QEMU of the power-failure tests.
setup-ndctl setup-suites setup-apps setup-powerfail: setup-%: setup
	@$(if $(enter),setup/setup $*)

# The driver for the kernel's emulated DIMMs.
emulated: module setup-ndctl
	@$(kbuild) M='$(CURDIR)/tests/external/ndctl' \
		KBUILD_EXTRA_SYMBOLS=$(dir $(realpath build/images/ndctl.img))Module.symvers modules

tools: setup
	@$(if $(enter),setup/crates take)
	@[ -d $(built) ] || echo 'Building the host tools, once (about a minute).'
	@$(enter) cargo build --locked --offline --manifest-path tools/Cargo.toml

# The programs for guests of arm64. The QEMU of those is beside the compilers.
tools-arm64: setup
	@$(enter_kernel) env CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc cargo build --locked --offline \
		--manifest-path tools/Cargo.toml --target aarch64-unknown-linux-gnu -p pmem-io -p pmemctl -p fuzz

# Nothing is built here: root need not run compilers.
install uninstall:
	@$(foreach name,KDIR DESTDIR PREFIX BUILD,$(name)='$($(name))') setup/install $@

# Modules are built by Debian's compilers for these of its kernels.
deb: KERNELS := stock
deb: module
	@$(if $(enter),setup/setup packages)
	@$(foreach name,$(filter-out stock,$(KERNELS)),$(MAKE) module KERNEL='$(name)' &&) \
		setup/deb $(foreach name,$(KERNELS),$(if $(filter stock,$(name)),,build/kernels/$(name)/)rust_pmem.ko)

repo: deb
	@$(call given,KEY URL) setup/repo

rpm: setup
	@$(if $(enter),setup/setup packages)
	@setup/rpm

check-packages: repo tools-vm
	@$(if $(enter),setup/setup system)
	@$(enter) tests/external/packages/system.sh $(STEPS)

# Linked statically, so that it starts on any distribution: it makes its man pages outside of the build root, on the host's libc.
pmemctl: setup
	@$(enter) env RUSTFLAGS='-C target-feature=+crt-static' cargo build --profile $(PROFILE) --locked --offline \
		--manifest-path tools/Cargo.toml --package pmemctl --bin pmemctl --target x86_64-unknown-linux-gnu
	@cmp -s $(pmemctl) $(BUILD)/bin/pmemctl || { \
		rm -f $(BUILD)/bin/pmemctl $(BUILD)/man/pmemctl*.1 $(BUILD)/schema/pmemctl-*.json && \
		$(pmemctl) generate $(BUILD) && install -D $(pmemctl) $(BUILD)/bin/pmemctl; }

# The host tools that one target needs. On a fresh machine, only these are built. If all of them exist already, all are kept up
# to date instead: no crate is then built twice, with different features.
tools-demo tools-vm: tools-%: setup
	@$(if $(enter),setup/crates take)
	@[ -d $(built) ] || echo 'Building the host tools, once (about a minute).'
	@if [ -e $(built)/pmem-check ]; then packages=; else packages='--no-default-features -p $* -p pmem-io -p pmemctl'; fi; \
		$(enter) cargo build --locked --offline --manifest-path tools/Cargo.toml $$packages

demo: module tools-demo
	@$(enter) $(built)/pmem-demo

picture: module tools
	@$(enter) $(built)/pmem-demo --picture Documentation

# JOBS of the environment is likely another program's.
jobs := $(if $(findstring command,$(origin JOBS)),--jobs '$(JOBS)')
# Runs selftests on the kernel that KERNEL names, with the prerequisites besides the host tools.
ifeq ($(other),)
selftests := $(enter) $(built)/pmem-check $(jobs)
powerfail := $(if $(findstring powerfail,$(TESTS)),setup-powerfail)
else
selftests := $(if $(arm64),$(enter_kernel),$(enter)) env RUST_PMEM_IMAGES=$(CURDIR)/build/images/$(other) \
	$(built)/pmem-check --kernel '$(other)' $(jobs)
powerfail :=
modules := module provider $(if $(arm64),tools-arm64)
endif

# For tables: which sources were tested.
revision = --revision '$(shell git describe --always --dirty --exclude='*' 2>/dev/null)'

check: tools $(modules) $(if $(TESTS)$(LIST)$(other),$(powerfail),setup-ndctl setup-powerfail)
	@set -f; $(selftests) $(if $(DRIVER),--driver '$(DRIVER)') $(if $(LIST),--list) $(if $(KEEP),--keep) $(if $(filter 0,$(LEAKS)),--no-leaks) $$TESTS
	@$(if $(enter),$(if $(TESTS)$(LIST)$(DRIVER)$(other),,setup/crates keep))

quick: tools
	@$(enter) $(built)/pmem-check --quick $(jobs)

check-debug:
	@$(MAKE) check KERNEL=debug

release:
	@tests/release $(STEPS)

move-kernel:
	@setup/move-kernel $(if $(TO),'$(TO)')

matrix: tools
	@set -f; setup/matrix $(KERNELS)

soak: tools $(modules)
	@set -f; $(selftests) $(foreach name,ERRORS MINUTES SEED,$(if $($(name)),--set $(name)='$($(name))')) \
		$(or $(TESTS),soak-*)

fuzz: tools $(modules)
	@$(selftests) $(if $(DRIVER),--driver '$(DRIVER)') \
		$(foreach name,IMAGES MINUTES SEED,$(if $($(name)),--set $(name)='$($(name))')) fuzz-long

parity: tools $(modules) $(powerfail)
	@set -f; $(selftests) --parity $(revision) $$TESTS

coverage: tools
	@set -f; $(enter) $(built)/pmem-check --coverage $$TESTS

suites: suite-ndctl suite-kselftest suite-apps

suite-ndctl: setup-ndctl
suite-kselftest: setup-suites
suite-apps: setup-apps
suite-ndctl suite-kselftest suite-apps: suite-%: tools
	@set -f; $(enter) $(built)/pmem-check --suite $* $(revision) $(if $(DRIVER),--driver '$(DRIVER)') $(if $(RESUME),--resume) $$TESTS

ifneq ($(XFSTESTS),)
xfstests: tools $(if $(wildcard $(XFSTESTS)/suite.toml),,setup-suites)
	@set -f; RUST_PMEM_BIND='$(abspath $(XFSTESTS))' $(enter) $(built)/pmem-check --xfstests '$(abspath $(XFSTESTS))' $(revision) \
		$(if $(FSTYP),--fstyp '$(FSTYP)') $(if $(GROUP),--group '$(GROUP)') $(if $(DRIVER),--driver '$(DRIVER)') \
		$(if $(FRESH),,--resume) $$TESTS
else
xfstests:
	@echo 'xfstests are not packaged: build and install them on Debian $(shell awk '/^stock/ { print $$2 }' setup/kernels) (their README says how), then'
	@echo '  make xfstests XFSTESTS=/var/lib/xfstests FSTYP=xfs GROUP=dax'
	@exit 2
endif

ifeq ($(other),)
mutants: tools setup-powerfail
	@set -f; $(enter) $(built)/pmem-check --mutants $(if $(filter quick,$(TIER)),--quick) $(jobs) $$MUTANTS
else
# Built here, by the compilers of that kernel.
mutants: tools provider module
	@set -f; folders=$$($(enter) $(built)/pmem-check --mutants --kernel '$(other)' --plant $$MUTANTS) && \
		for folder in $$folders; do $(kbuild) M='$(CURDIR)'/$$folder modules || exit; done
	@set -f; $(enter) env RUST_PMEM_IMAGES=$(CURDIR)/build/images/$(other) $(built)/pmem-check --mutants \
		--kernel '$(other)' $$MUTANTS
endif

powerfail: IMAGES := 10000
powerfail: module provider tools setup-powerfail
	@set -f; $(enter) $(built)/pmem-powerfail --images $(IMAGES) $(if $(FRESH),,--resume) $(if $(SEED),--seed '$(SEED)') \
		$(if $(DRIVER),--driver '$(DRIVER)') $(if $(CPU),--cpu '$(CPU)') $(if $(EADR),--eadr) \
		$(if $(MODULE),--module '$(MODULE)') $(WORKLOADS)

bench: module tools
	@$(enter) $(built)/pmem-bench $(OPS)

bench-cpus: module tools
	@$(enter) $(built)/pmem-bench cpus

# pmemctl is measured as it is installed.
optimised := /rust_pmem/build/tools/release
release-tools: setup
	@$(enter) cargo build --release --locked --offline --quiet --manifest-path tools/Cargo.toml -p pmemctl -p pmem-io

# The disk has room for the inodes, and a block for some. A nanosecond is an instruction, so figures do not depend on the host.
bench-files: FILES := 20000
bench-files: module tools release-tools
	@$(enter) $(built)/pmem-vm --memory 2G --cpus 1 --icount --bare --nvdimm size=$$(((512 + $(FILES) / 700) / 2 * 2))M \
		--run 'rm -rf /run/pmem; TOOLS=$(optimised) /rust_pmem/tests/bench/files.sh $(FILES)'

bench-pmemctl: ERRORS := 10000
bench-pmemctl: module tools release-tools
	@size=$$((($(ERRORS) / 100 + 384) / 2 * 2)); \
	$(enter) $(built)/pmem-vm --memory $$((3072 + size))M --cpus 1 --icount --bare --e820 $${size}M@4G \
		--run 'rm -rf /run/pmem; TOOLS=$(optimised) /rust_pmem/tests/bench/pmemctl.sh $(ERRORS)'

bench-errors: ERRORS := 100000
bench-errors: module tools
	@$(enter) $(built)/pmem-vm --memory 2G --cpus 1 --icount --bare --e820 $$((($(ERRORS) / 128 + 2) / 2 * 2))M@1G \
		--run '/rust_pmem/tests/bench/errors.sh $(ERRORS)'

bench-sizes: SIZES := 1 8 64
bench-sizes: module tools
	@for size in $(SIZES); do \
		$(enter) $(built)/pmem-vm --driver none --memory 2G --cpus 1 --icount --bare --nvdimm size=$${size}G,labels \
			--run /rust_pmem/tests/bench/sizes.sh || exit; \
	done

bench-flushes: module provider tools
	@$(enter) $(built)/pmem-vm --driver none --bare --virtio-pmem size=512M --append 'memmap=128M$$512M' \
		--run '/rust_pmem/tests/bench/flushes.sh $(SECONDS)'

bench-databases: module provider tools setup-apps
	@$(enter) $(built)/pmem-vm --driver none --bare --image build/images/apps.img --virtio-pmem size=512M --memory 2G \
		--append 'memmap=384M$$512M' --run '/rust_pmem/tests/bench/databases.sh $(SECONDS)'

# Statically linked, because it runs outside of the build root.
bench-native: setup
	@$(enter) env RUSTFLAGS='-C target-feature=+crt-static' cargo build --release --locked --offline --quiet \
		--manifest-path tools/Cargo.toml --package bench --bin pmem-bench \
		--target x86_64-unknown-linux-gnu --target-dir build/tools-static
	@build/tools-static/x86_64-unknown-linux-gnu/release/pmem-bench native --output build/bench $(DISKS)

vm: module tools-vm
	@$(enter) $(built)/pmem-vm $(VM) $${RUN:+--run "$$RUN"}

lint: tools
	@$(enter) $(built)/pmem-check --lint

rustdoc: module
	@$(enter) setup/rustdoc

ifeq ($(if $(enter),$(KDIR)),)
rust-analyzer: module
	@setup/rust-analyzer
else
rust-analyzer: module
	$(MAKE) -C '$(KDIR)' M='$(M)' rust-analyzer
	@sed -i 's|"env": {|&\n        "RUST_PMEM_BINDINGS": "$(M)/abstractions/bindings_generated.rs",|' rust-project.json
endif

# With the host's Python: the programs are not Debian's.
lint-workflow:
	@[ -x build/venv/bin/zizmor ] || \
		{ python3 -m venv build/venv && build/venv/bin/pip install --quiet check-jsonschema==0.39.0 zizmor==1.32.0; }
	@build/venv/bin/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	@build/venv/bin/check-jsonschema --builtin-schema vendor.github-issue-forms .github/ISSUE_TEMPLATE/*.yml
	@build/venv/bin/zizmor --offline --quiet .github/workflows

fmt: setup
	$(enter) sh -c 'rustfmt --edition 2021 rust_pmem.rs && cargo fmt --all --manifest-path tools/Cargo.toml'

# Machines that know the apt repository trust its key.
clean:
	if [ -e build/repo.key ]; then find build/ -mindepth 1 -maxdepth 1 ! -name repo.key -exec rm -rf {} +; else rm -rf build; fi
	rm -f abstractions/bindings_generated.rs
	find . abstractions $(wildcard abstractions/*/) tests/provider tests/external/ndctl -maxdepth 1 -type f \( -name '*.ko' -o -name '*.o' -o -name '*.mod' \
		-o -name '*.mod.c' -o -name '.*.cmd' -o -name '.*.d' -o -name Module.symvers -o -name modules.order \) -exec rm {} +

distclean: clean
	setup/remove

# The targets share one set-up, and each of them uses all processors by itself.
.NOTPARALLEL:

.PHONY: help help-all quick release move-kernel rustdoc rust-analyzer setup setup-ndctl setup-suites setup-apps setup-powerfail module provider emulated tools tools-arm64 tools-demo \
	tools-vm pmemctl install uninstall deb repo rpm check-packages demo picture check check-debug matrix soak fuzz \
	parity coverage mutants powerfail suites suite-ndctl suite-kselftest suite-apps xfstests bench bench-cpus bench-native \
	bench-files bench-pmemctl bench-errors release-tools bench-sizes bench-flushes bench-databases vm lint lint-workflow fmt clean \
	distclean
