"""Continued pretraining of vision backbones on 100 to 1000 unlabelled images: the study's package."""

__version__ = "0.1.0"
