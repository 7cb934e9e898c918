"""One file per generator; each registers itself."""
