"""Networks as plain C99: TIR printed by a small printer of our own, Relax calls turned into steps."""
