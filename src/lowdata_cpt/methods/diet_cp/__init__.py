"""DIET-CP (arXiv 2509.06990): each unlabelled image is its own class."""
