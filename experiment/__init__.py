"""What one training run is, and what many of them show."""
