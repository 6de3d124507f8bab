"""GLARE (arXiv 2509.17816): global, regional and local consistency, trained through adapters in a frozen ViT."""
