"""How a number is shown and judged."""
