"""Lightning modules and the trainer."""
