"""The published sets, a file each."""
