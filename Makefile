# careen's build. `make help` lists what there is; every target that needs a
# tool or a package installs it first (as root, on Debian 12 with Go).

SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

GO      ?= go
# grpcnotrace and runc_nocriu leave out what brings reflection over templates and
# checkpoint/restore into the binary.
TAGS    := seccomp netgo osusergo grpcnotrace runc_nocriu containers_image_openpgp
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
COMMIT  := $(shell git rev-parse HEAD 2>/dev/null || echo unknown)
BUILT   := $(shell git log -1 --format=%ct 2>/dev/null)
# No path, time or build id of the machine that builds: two builds of one commit
# are the same file.
LDFLAGS := -s -w -buildid= -linkmode external -extldflags -static \
	-X github.com/careen-project/careen/agent/cmd/careen/version.Version=$(VERSION) \
	-X github.com/careen-project/careen/agent/cmd/careen/version.Commit=$(COMMIT) \
	-X github.com/careen-project/careen/rootfs.built=$(BUILT)
GOBUILD := CGO_ENABLED=1 GOTOOLCHAIN=local $(GO) build -trimpath -buildvcs=false -tags '$(TAGS)' -ldflags '$(LDFLAGS)'
# One package at a time: many of them mount, boot or measure.
GOTEST  := CAREEN_BINARY=$(CURDIR)/bin/careen integration/gotest.sh $(GO) test -tags '$(TAGS)' -p 1

# The tools that check the code. "make lint" installs them below .cache/tools, in a directory
# named after the version.
GOLANGCI_VERSION := v2.15.0
DEADCODE_VERSION := v0.52.0
GOLANGCI := .cache/tools/golangci-$(GOLANGCI_VERSION)/golangci-lint
DEADCODE := .cache/tools/deadcode-$(DEADCODE_VERSION)/deadcode

DEB_BUILD := gcc libc6-dev libseccomp-dev pkg-config git
DEB_TEST  := $(DEB_BUILD) $(shell cat integration/vm/packages.txt) cpio kmod podman runc umoci \
	python3 python3-venv ca-certificates iproute2 util-linux procps e2fsprogs dosfstools tzdata
DEB_BENCH := $(DEB_TEST) isal

# The most bytes that careen may add to a compressed ramdisk.
MAX_GZIPPED := 12000000

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sort | awk -F':.*## ' '{printf "  %-18s %s\n", $$1, $$2}'

.PHONY: deps-build
deps-build: ## install what the build needs
	@integration/install.sh $(DEB_BUILD)

.PHONY: deps-test
deps-test: ## install what the tests need
	@integration/install.sh $(DEB_TEST)

.PHONY: build
build: deps-build ## build bin/careen, one static binary
	$(GOBUILD) -o bin/careen ./agent/cmd/careen
	@ls -l bin/careen | awk '{printf "bin/careen: %.1f MB\n", $$5/1e6}'

.PHONY: size
size: build ## the binary's gzipped size: limit, change since the last release, and share of each module
	@mkdir -p .cache
	@CGO_ENABLED=1 GOTOOLCHAIN=local $(GO) build -trimpath -buildvcs=false -tags '$(TAGS)' \
		-ldflags '-linkmode external -extldflags -static' -o .cache/careen-symbols ./agent/cmd/careen
	@$(GO) run ./integration/size -limit $(MAX_GZIPPED) -recorded docs/size.txt .cache/careen-symbols bin/careen

.PHONY: reproducible
reproducible: build ## build twice from two directories and compare
	@integration/reproducible.sh bin/careen

.PHONY: demo
demo: build ## run a step from a real image and registry with the embedded containerd
	@integration/install.sh busybox-static
	@integration/demo.sh

.PHONY: test
test: deps-test ## everything that CI runs
	@rm -f .cache/second-try
	$(MAKE) lint
	$(MAKE) build
	$(MAKE) size
	$(MAKE) unit
	$(MAKE) race
	$(MAKE) integration
	$(MAKE) test-ipa
	@cat .cache/second-try 2>/dev/null || true
	@echo "all tests passed"

.PHONY: unit
unit: deps-test ## tests of the packages
	$(GOTEST) -timeout 15m $$($(GO) list -tags '$(TAGS)' ./... | grep -v /integration)

# Once ./integration/external has built them.
pull_external = for binary in .cache/containerd-*/containerd; do \
	CONTAINERD=$(CURDIR)/$$binary $(GOTEST) -timeout 5m -run TestExternalContainerd ./runtime/image; done

.PHONY: integration
integration: deps-test build ## black-box tests of the binary, on the host and in a VM
	@integration/ipadiff/setup.sh >/dev/null
	CAREEN_IPADIFF=required $(GOTEST) -timeout 30m $$($(GO) list -tags '$(TAGS)' ./integration/... | grep -v /integration/vm)
	$(pull_external)
	$(MAKE) test-vm

# RETRY: QEMU's emulated processor now and then loses a guest. A test that needs its second try
# is named at the end of the output. Two in ten runs of the suite are a fault to be repaired.
.PHONY: test-vm
test-vm: deps-test build ## the tests in QEMU guests
	RETRY=1 $(GOTEST) -timeout 90m ./integration/vm/...

.PHONY: test-ipa
test-ipa: deps-test build ## the IPA plugin against the real ironic-python-agent
	CAREEN_BINARY=$(CURDIR)/bin/careen integration/ipa/run-tests.sh

.PHONY: test-ipa-vm
test-ipa-vm: deps-test build ## the real IPA with careen in a Debian ramdisk in QEMU, ten minutes
	@integration/install.sh cpio debootstrap python3-venv
	CAREEN_IPA_VM_TEST=1 $(GOTEST) -v -timeout 40m -run TestIPA ./integration/ipavm

# PODMAN_SETS random option sets, after all listed ones; PODMAN_FLAGS=-mutate spoils
# every other value.
PODMAN_SETS ?= 8000
PODMAN_FLAGS ?=
.PHONY: test-podman-long
test-podman-long: deps-test ## the meaning of options against podman's, thousands of option sets
	$(GOTEST) -v -timeout 5h ./integration/podmandiff -args -listed 0 -sets $(PODMAN_SETS) $(PODMAN_FLAGS)

.PHONY: test-external
test-external: build ## the same scenarios on containerd 1.7 and 2.x of another process
	$(GOTEST) -timeout 20m ./integration/external
	$(pull_external)

.PHONY: lint
lint: lint-go deadcode ## golangci-lint with .golangci.yml, and no unreachable function in the binary

.PHONY: lint-go
lint-go: $(GOLANGCI)
	$(GOLANGCI) run ./...

# A function that main cannot reach is dead, tests or not: remove it with its tests.
# agent/client is for other programs too: it has a method for each endpoint (docs/api.md).
.PHONY: deadcode
deadcode: $(DEADCODE) ## functions that the binary cannot reach; prints nothing when there are none
	@dead=$$($(DEADCODE) -tags '$(shell echo $(TAGS) | tr ' ' ,)' ./agent/cmd/careen); \
	dead=$$(grep -v '^agent/client/' <<<"$$dead" || true); \
	test -z "$$dead" || { echo "functions that the binary cannot reach:"; echo "$$dead"; exit 1; }

$(GOLANGCI):
	GOBIN=$(CURDIR)/$(@D) GOFLAGS= $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION)

$(DEADCODE):
	GOBIN=$(CURDIR)/$(@D) GOFLAGS= $(GO) install golang.org/x/tools/cmd/deadcode@$(DEADCODE_VERSION)

.PHONY: outdated
outdated: ## direct dependencies for which the module proxy has a newer version
	@$(GO) list -m -u -e -f '{{with .Update}}{{$$.Path}} {{$$.Version}} -> {{.Version}}{{end}}' \
		$$($(GO) mod edit -json | sed -n '/"Require"/,/\]/p' | tr -d '\n' | tr '{' '\n' | grep -v Indirect | sed -n 's/.*"Path": "\([^"]*\)".*/\1/p')

# BENCH_ARGS chooses parts and rounds: make bench BENCH_ARGS='-only cold -rounds 9'.
BENCH_ARGS ?=
.PHONY: bench
bench: build ## time, memory and size against podman, containerd and the floor, 12 minutes
	@integration/install.sh $(DEB_BENCH)
	@mkdir -p .cache
	$(GO) build -tags '$(TAGS)' -o .cache/bench ./integration/bench
	.cache/bench run -careen bin/careen $(BENCH_ARGS)

# MiB of the image that bench-vm pulls, unpacked.
BENCH_VM_SIZE ?= 526
.PHONY: bench-vm
bench-vm: deps-test build ## what a pull and a run take of a ramdisk's memory, in QEMU, ten minutes
	CAREEN_BENCH_VM=$(BENCH_VM_SIZE) CAREEN_BINARY=$(CURDIR)/bin/careen $(GO) test -tags '$(TAGS)' -count 1 -v -timeout 40m -run InRAMDisk ./integration/bench

KILLS ?= 2000
.PHONY: campaign
campaign: deps-test build ## kill the agent KILLS times (2000) on the real runtime and over the fake one
	CAREEN_BINARY=$(CURDIR)/bin/careen CAREEN_CAMPAIGN=$(KILLS) $(GO) test -tags '$(TAGS)' -v -count=1 -timeout 3h -run TestCrashCampaign ./integration
	CAREEN_TEST_KILLS=$(KILLS) $(GO) test -tags '$(TAGS)' -v -count=1 -timeout 1h -run TestKilledAtAnyPoint ./agent

RUNS ?= 1000
.PHONY: soak
soak: deps-test build ## RUNS steps (1000) under fifty clients, and again with the race detector in the agent
	CAREEN_BINARY=$(CURDIR)/bin/careen CAREEN_SOAK=$(RUNS) $(GO) test -tags '$(TAGS)' -v -count=1 -timeout 2h -run TestSoak ./integration
	CGO_ENABLED=1 $(GO) build -race -trimpath -tags '$(TAGS)' -ldflags '-linkmode external' -o .cache/careen-race ./agent/cmd/careen
	CAREEN_RACE=1 CAREEN_BINARY=$(CURDIR)/.cache/careen-race CAREEN_SOAK=$(RUNS) $(GO) test -tags '$(TAGS)' -v -count=1 -timeout 3h -run TestSoak ./integration

.PHONY: race
race: deps-build ## the short tests of agent, runtime and steps with the race detector
	$(GO) test -race -short -tags '$(TAGS)' -timeout 20m ./agent/... ./runtime/... ./steps/...

FUZZTIME ?= 20s
.PHONY: fuzz
fuzz: ## each fuzz target for FUZZTIME
	@for file in $$(grep -rl --include='*_test.go' '^func Fuzz' agent oci rootfs runtime steps); do \
		for target in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9]*\)(.*/\1/p' $$file); do \
			echo "$$target ($$(dirname $$file))"; \
			$(GO) test -tags '$(TAGS)' -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) ./$$(dirname $$file); \
		done; \
	done

.PHONY: clean
clean: ## remove what the build made
	rm -rf bin .cache
