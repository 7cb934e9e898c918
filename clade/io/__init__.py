"""Files: whole or not there at all, hashed, pictures; what a checkpoint says of itself."""
