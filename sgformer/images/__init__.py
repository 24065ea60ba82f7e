"""What a file of an image becomes: its header, its pixels, and what is told of odd ones."""
