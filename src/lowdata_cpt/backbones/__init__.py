"""Backbones: any timm ViT by name, and the weights that ship in packages."""
