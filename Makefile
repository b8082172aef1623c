# The commands that a newcomer needs. Each says what it installs before it installs it.

.DEFAULT_GOAL := help
.PHONY: help build demo demo-desktop demo-update demo-cloud-init demo-hosts test lint bench bench-guard

help: ## these lines
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1	\2/p' Makefile

build: ## the release binary, target/release/collective
	scripts/install-deps
	cargo build --release --locked

demo: build ## two hosts and one repository, on this machine, in a few minutes
	scripts/demo

demo-desktop: build ## a desktop: built, typed into by VNC, suspended, gone on with on another host
	scripts/demo-desktop

demo-cloud-init: build ## a Debian that its user configures by cloud-init, gone on with on another host
	scripts/demo-cloud-init

demo-update: build ## two makers, a web server, an update that keeps data and one that undoes itself
	scripts/demo-update

demo-hosts: build ## three hosts, each with a network of its own: place, roam, move, die, be cut off
	scripts/demo-hosts

test: ## everything CI runs, real guests included
	scripts/install-deps --test
	cargo xtask ci

lint: ## what needs no guest: formatting, the rules of the house, lints, quick tests
	scripts/install-deps --test
	cargo xtask ci --quick

bench: ## the figures of docs/BENCHMARKS.md; NAME=wire: one part of them
	scripts/install-deps --bench
	cargo build --release --locked
	scripts/bench $(if $(NAME),--only $(NAME))

bench-guard: ## bytes and counts against bench/results/guard.json
	scripts/bench-guard
