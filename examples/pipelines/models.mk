# A model as a target of make: it is pulled when its tag has moved, and whatever is made
# of it is made anew then.
#
#   make -f models.mk MODEL=registry.example.com/team/model:v1 evaluation.txt
#
# Each run asks the registry once what the tag stands for. Without a network, say so:
# TRANSFERKIT_OFFLINE=1 make ...

MODEL ?= registry.example.com/team/model:v1
FOLDER ?= models/model
PYTHON ?= python3

# $(call run,CODE,ARGUMENTS)
run = $(PYTHON) -c 'import sys, transferkit as tk; $(1)' $(2)
RESOLVE := print(tk.Registry().resolve(sys.argv[1]).digest)
PULL := print(tk.pull(sys.argv[1], to=sys.argv[2]))

evaluation.txt: $(FOLDER).pulled
	cat $(FOLDER)/config.json >$@  # whatever reads the model

# The digest that was asked for is what is pulled, wherever the tag is by then.
$(FOLDER).pulled: $(FOLDER).digest
	$(call run,$(PULL),$(MODEL)@$$(cat $<) $(FOLDER))
	touch $@

# The file is replaced when the digest is another one: else its time stays.
$(FOLDER).digest: always
	@mkdir -p $(@D)
	@$(call run,$(RESOLVE),$(MODEL)) >$@.new
	@if cmp -s $@.new $@; then rm $@.new; else mv $@.new $@; fi

.PHONY: always
.DELETE_ON_ERROR:
