"""How images and labels lie in folders."""
