"""Probes: what a frozen backbone's features are worth on labelled images. Nothing here imports `methods`."""
