"""The edge: one framework, one file."""
