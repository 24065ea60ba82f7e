"""Search files shipped with the program, one YAML a purpose."""
