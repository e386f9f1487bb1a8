"""Arrays and affines in, arrays and affines out."""
