"""The folder of `--emit c`: a network as plain C99 that builds with nothing but a C compiler."""
