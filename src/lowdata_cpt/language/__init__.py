"""V-pretraining for language: adaptive soft targets for a causal language model, and the arms it is held against."""
