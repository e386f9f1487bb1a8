"""Training of the brain mask network: anatomies as label maps, images of random contrast."""
