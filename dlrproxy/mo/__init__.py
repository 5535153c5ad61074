"""Where MO go."""
