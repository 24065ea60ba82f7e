"""Features of images: vectors, columns of tables and texts, which a model takes too."""
