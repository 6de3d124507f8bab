"""Domains: unlabelled pools with labelled train, val and test images, decoded once into memory-mapped stores."""
