"""TEC (arXiv 2210.11016): a new model reconstructs its frozen base's features and patch relations from masked input."""
