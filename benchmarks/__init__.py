"""What is timed, and against what: a file a benchmark, all on one harness. `make bench` runs them."""
