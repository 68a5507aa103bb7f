"""Networks of the literature as torch generators, and networks of installed packages by adapter."""
