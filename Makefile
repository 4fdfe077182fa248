# sagbench: build, test and the paper's tables. `make help` lists the targets.

DEVICE     ?= cpu
SCALE      ?= miniature
MODELS     ?= models
REFERENCES ?= references
RESULTS    ?= results
FUZZTIME   ?= 60s

runtime := $(firstword $(subst :, ,$(DEVICE)))
device  := $(if $(filter cuda,$(DEVICE)),cuda:0,$(DEVICE))
sagbench = bin/sagbench --device $(device) --results $(RESULTS)

.PHONY: help build onnxruntime reproduce-table1 reproduce-table2 reproduce-families compare-guidances ablation-scale ablation-blur ablation-threshold ablation-mask test test-slow test-slurm gpu-check lint bench bench-peers fuzz docs clean

help:
	@echo 'make reproduce-table1 | reproduce-table2'
	@echo '                                      Table 1 (SAG), Table 2 (SAG and classifier guidance) in miniature, on the'
	@echo '                                      embedded models (minutes, CPU)'
	@echo 'make reproduce-table1 SCALE=paper MODELS=DIR REFERENCES=DIR'
	@echo '                                      Table 1 itself: official checkpoints, 50,000 images a row; 2 likewise'
	@echo 'make reproduce-families               every family with and without SAG, on the embedded models'
	@echo 'make compare-guidances                every guidance against the same network without it'
	@echo 'make ablation-scale | ablation-blur | ablation-threshold | ablation-mask'
	@echo '                                      a setting of SAG swept over every family'
	@echo 'make gpu-check DEVICE=cuda            what a device has to pass, its speed beside torch, and its rows of docs/devices.md'
	@echo 'make build | test | test-slow | test-slurm | lint | bench | bench-peers | fuzz | docs | clean'
	@echo 'make bench-peers OFFICIAL=DIR          ... with checkouts of willisma/SiT, NVlabs/edm and NVlabs/edm2 in DIR'
	@echo 'DEVICE=cuda                           with any of them: the GPU build of ONNX Runtime'

build: onnxruntime
	@go build -trimpath -buildvcs=auto -o bin/sagbench ./experiments

onnxruntime:
	@sh models/ort/install.sh $(runtime)

ifeq ($(SCALE),paper)
reproduce-table1 reproduce-table2: build
	@MODELS='$(MODELS)' REFERENCES='$(REFERENCES)' $(sagbench) plan configs/$(@:reproduce-%=%).yaml --trial
	@MODELS='$(MODELS)' REFERENCES='$(REFERENCES)' $(sagbench) run configs/$(@:reproduce-%=%).yaml
else
reproduce-table1 reproduce-table2: build
	@$(sagbench) run configs/$(@:reproduce-%=%)-fashion.yaml
	@echo
	@echo 'This is $(@:reproduce-table%=Table %) in miniature: small networks trained on Fashion-MNIST, few images and steps.'
	@echo "The paper's scale: make $@ SCALE=paper MODELS=DIR REFERENCES=DIR"
	@echo '(it lists the files it needs and where their authors publish them before it computes anything)'
endif

reproduce-families: build
	@$(sagbench) run configs/families.yaml

compare-guidances: build
	@$(sagbench) run configs/guidances.yaml

ablation-scale ablation-blur ablation-threshold ablation-mask: build
	@$(sagbench) run configs/$@.yaml

test: onnxruntime
	go test -timeout 30m ./...

test-slow: build
	go test -race ./...
	go test -tags slow -timeout 60m ./...
	@sh models/ort/install.sh openvino && if bin/sagbench devices | grep -q ^openvino; then bash .ci/device.sh openvino; fi

test-slurm: build
	@bash .ci/slurm.sh

gpu-check: build
	@bash .ci/device.sh $(device)
	@bin/sagbench bench --device $(device) adm-64 adm-256 sag-step
	@peers="$${SAGBENCH_PEERS:-$$(sh eval/peers/install.sh found)}"; if [ -n "$$peers" ]; then \
		SAGBENCH_PEERS="$$peers" bin/sagbench bench --device $(device) peer-device; \
	else \
		echo 'Not compared with torch: there is no Python with it; `sh eval/peers/install.sh` makes one (6 GB), or set SAGBENCH_PEERS to one that has torch and guided-diffusion-sdk.'; \
	fi
	@bin/sagbench bench --device $(device) --write docs/devices.md precision

lint:
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -l $$(git ls-files '*.go'); echo 'run gofmt -w on these files'; exit 1; }
	go vet ./...
	go tool staticcheck ./...

bench: build
	@bin/sagbench bench --device $(device)

bench-peers: build
	@sh models/ort/install.sh openvino
	@peers=$$(sh eval/peers/install.sh) && SAGBENCH_PEERS="$$peers" SAGBENCH_OFFICIAL="$(abspath $(OFFICIAL))" bin/sagbench bench peer-networks peer-families peers peer-evaluations

fuzz: onnxruntime
	@for p in $$(go list ./...); do \
		for f in $$(go test -list '^Fuzz' $$p | grep '^Fuzz'); do \
			echo "$$p $$f"; go test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x $$p || exit 1; \
		done; \
	done

docs: build
	@bin/sagbench docs > docs/configuration.md

clean:
	rm -rf bin
