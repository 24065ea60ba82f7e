"""report.html: the results of a run as a single page that needs no network."""
