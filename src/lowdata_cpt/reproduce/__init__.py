"""Checking and moving a finished study: verify, recompute a cell, DVC, RO-Crate."""
