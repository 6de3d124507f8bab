"""The methods, a folder each; `registry` is the one list of them."""
