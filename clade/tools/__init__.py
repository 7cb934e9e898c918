"""What is done with trained networks and studies beside drawing and scoring."""
