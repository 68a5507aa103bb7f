"""Search for networks: a space of candidates, a tournament or another strategy over them, champions for one machine."""
