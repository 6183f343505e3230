"""What a notebook does beyond one call."""
