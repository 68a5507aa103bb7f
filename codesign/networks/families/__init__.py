"""One file, one family: torch modules, and what of them has a name of its own (ARCHITECTURES, GENERATORS)."""
