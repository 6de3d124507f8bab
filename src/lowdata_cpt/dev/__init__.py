"""For those who change the project: generated files, fixtures, the scaled-down run of a study."""
