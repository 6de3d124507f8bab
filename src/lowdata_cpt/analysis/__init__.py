"""Statistics, claims, figures, tables and the report, from the tidy table alone (no torch, no weights)."""
