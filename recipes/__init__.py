"""One file for each published system: its stages as Python values. Installed as `avsc_e2e.recipes`."""
