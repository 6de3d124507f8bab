"""Masked reconstruction of pixels (MAE, arXiv 2111.06377) from the base's weights: the control for TEC."""
