"""How well it works: matching in millimetres, FROC, agreement."""
