"""One script for each contestant. Empty on purpose: what stands here is in the start-up time of each."""
