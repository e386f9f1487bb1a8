"""Registration to MNI space and the regions of the Microbleed Anatomical Rating Scale."""
