"""The catalogue of passes: one file, one pass; the file name is the pass name. `pipelines/` holds named orders."""
