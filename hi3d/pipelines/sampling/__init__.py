"""What both stages' pipelines take and give."""
