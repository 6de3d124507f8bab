"""Plain continued DINO (arXiv 2104.14294) with fixed views: the control of GLARE and V-pretraining."""
