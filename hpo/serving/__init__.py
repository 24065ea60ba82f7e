"""Serves exported models by HTTP: batches of images go to replicas on Ray Serve."""
