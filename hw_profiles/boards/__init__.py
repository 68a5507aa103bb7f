"""Catalogue of FPGAs: one YAML file, one device. `codesign hw boards` lists them."""
