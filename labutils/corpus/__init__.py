"""How the lab's layout is written: the default data, and data sets built from audio."""
