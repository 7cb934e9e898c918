"""One file per layout in which a dataset is published; each registers itself."""
