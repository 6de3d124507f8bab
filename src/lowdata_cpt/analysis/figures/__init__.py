"""One module a figure: `draw_x(inputs, out) -> list[Path]` writes PDF, PNG, caption and source table."""
