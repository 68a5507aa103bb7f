"""The shipped machines: one YAML file, one machine (schema: codesign.hardware.profile; page: docs/hardware.md)."""
