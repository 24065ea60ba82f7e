"""A first search file: what is known of images and machine, the rules, and the file's text."""
