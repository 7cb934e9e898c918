"""Photos -> latents and codes of style."""
