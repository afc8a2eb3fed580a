# careen's build. `make help` lists what there is; every target that needs a
# tool or a package installs it first (as root, on Debian 12 with Go).

SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

GO      ?= go
# grpcnotrace and runc_nocriu leave out what brings reflection over templates and
# checkpoint/restore into the binary.
TAGS    := seccomp netgo osusergo grpcnotrace runc_nocriu
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
COMMIT  := $(shell git rev-parse HEAD 2>/dev/null || echo unknown)
# No path, time or build id of the machine that builds: two builds of one commit
# are the same file.
LDFLAGS := -s -w -buildid= -linkmode external -extldflags -static \
	-X github.com/careen-project/careen/agent/cmd/careen/version.Version=$(VERSION) \
	-X github.com/careen-project/careen/agent/cmd/careen/version.Commit=$(COMMIT)
GOBUILD := CGO_ENABLED=1 GOTOOLCHAIN=local $(GO) build -trimpath -buildvcs=false -tags '$(TAGS)' -ldflags '$(LDFLAGS)'
GOTEST  := $(GO) test -tags '$(TAGS)'
CACHE   := $(CURDIR)/.cache

# Versions of the tools that check the code.
GOLANGCI_VERSION := v2.5.0

DEB_BUILD := gcc libc6-dev libseccomp-dev pkg-config
DEB_TEST  := $(DEB_BUILD) busybox-static cpio qemu-system-x86 podman runc umoci
DEB_BENCH := $(DEB_TEST) isal

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

.PHONY: reproducible
reproducible: build ## build twice from two directories and compare
	@integration/reproducible.sh bin/careen

.PHONY: demo
demo: build ## run a step from a real image and registry with the embedded containerd
	@integration/install.sh busybox-static
	@integration/demo.sh

.PHONY: test
test: deps-test build unit root-test integration ## all tests: what CI runs

.PHONY: unit
unit: ## tests of the packages
	$(GOTEST) -timeout 15m $$($(GO) list -tags '$(TAGS)' ./... | grep -v /integration)

.PHONY: root-test
root-test: ## tests that need root and a real containerd
	@true

.PHONY: integration
integration: build ## black-box tests of the binary, on the host and in a VM
	CAREEN_BINARY=$(CURDIR)/bin/careen $(GOTEST) -timeout 30m ./integration/...

.PHONY: bench
bench: ## pull against podman and the floor, and how pulls grow (ROUNDS=5)
	@integration/install.sh $(DEB_BENCH)
	$(GOBUILD) -o bin/bench ./integration/bench
	bin/bench run -rounds $(or $(ROUNDS),5)

.PHONY: lint
lint: ## gofmt, vet and golangci-lint
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -l $$(git ls-files '*.go'); exit 1; }
	$(GO) vet -tags '$(TAGS)' ./...

.PHONY: clean
clean: ## remove what the build made
	rm -rf bin .cache
