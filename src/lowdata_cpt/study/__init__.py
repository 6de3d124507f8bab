"""A study: its configuration, its grid of cells, what each job is given, what it will cost."""
