"""What an image folder holds, for `data check`; nothing is written."""
