"""From the winner to files: best/, the front, and what is done with an exported model."""
