"""Training of the brain mask network: painted heads and simulated scans, in the loop of the other networks."""
