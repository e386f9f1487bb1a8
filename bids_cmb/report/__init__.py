"""Self-contained HTML pages per subject and for the study."""
