"""Where model folders come from, and what they say of themselves."""
