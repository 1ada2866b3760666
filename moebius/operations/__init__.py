"""What lies in a folder of runs: found, described, compared and cleaned, without any model."""
