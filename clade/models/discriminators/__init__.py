"""One file per discriminator; each registers itself."""
