"""The three stages: candidates, discrimination, clean-up."""
