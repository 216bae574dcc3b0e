"""Every reader of an object file, for rendering, evaluation and training alike."""
