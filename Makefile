# Everything here calls a script in scripts/, which CI calls too: there is no second way to build or test.
export PATH := $(PATH):/usr/local/go/bin

.DEFAULT_GOAL := help
.PHONY: build run test lint bench e2e docker-build clean help

build: ## build bin/drover: static, stripped, version stamped
	@scripts/build

run: ## install what is missing (Debian, root), start dockerd if there is none, build, run `drover dev`; ARGS="--listen :8080"
	@scripts/setup run
	@scripts/build
	@bin/drover dev $(ARGS)

test: ## install what the tests need, run everything with the race detector; ARGS="-run X ./cli"
	@scripts/setup test
	@scripts/test $(ARGS)

e2e: ## the end-to-end tests alone: the real binary, the real image, a real dockerd
	@scripts/setup test
	@scripts/test ./cli/e2e

lint: ## formatting, vet, staticcheck and the import law
	@scripts/lint

bench: ## measure the agent against raw dockerd on this machine; ARGS="--rounds 5"
	@scripts/setup run
	@scripts/build
	@bin/drover bench events $(ARGS)

docker-build: ## build the image from bin/drover, offline
	@scripts/build
	@scripts/image

clean: ## remove what was built
	rm -rf bin dist

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
