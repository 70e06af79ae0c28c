# A model as a target of make: it is pulled when its tag has moved, and whatever is made of it is made anew then.
#
#   make -f examples/models.mk MODEL=registry.example.com/team/model:v1 evaluation.txt
#
# Each run asks the registry once what the tag stands for. Without a network, say so: TRANSFERKIT_OFFLINE=1 make ...

MODEL ?= registry.example.com/team/model:v1
FOLDER ?= models/model
PYTHON ?= python3

RESOLVE := import sys, transferkit as tk; print(tk.Registry().resolve(sys.argv[1]).digest)
PULL := import sys, transferkit as tk; print(tk.pull(f"{sys.argv[1]}@{open(sys.argv[2]).read().strip()}", to=sys.argv[3]))

evaluation.txt: $(FOLDER).pulled
	cat $(FOLDER)/config.json >$@  # whatever reads the model

# The digest that was asked for is what is pulled, wherever the tag is by then.
$(FOLDER).pulled: $(FOLDER).digest
	$(PYTHON) -c '$(PULL)' $(MODEL) $< $(FOLDER)
	touch $@

# The file is replaced when the digest is another one: else its time stays, and nothing is made anew.
$(FOLDER).digest: always
	@mkdir -p $(@D)
	@$(PYTHON) -c '$(RESOLVE)' $(MODEL) >$@.new
	@if cmp -s $@.new $@; then rm $@.new; else mv $@.new $@; fi

.PHONY: always
.DELETE_ON_ERROR:
