"""A page in the browser on which visitors try the method: photo or words to mesh."""
