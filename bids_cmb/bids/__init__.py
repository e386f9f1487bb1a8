"""All that knows BIDS: finding scans, naming outputs, sidecars, atomic writes."""
