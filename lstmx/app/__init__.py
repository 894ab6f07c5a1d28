"""The command line, its report, and the model files that it reads and writes."""
