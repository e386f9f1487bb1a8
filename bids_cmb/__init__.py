"""bids_cmb: find cerebral microbleeds on SWI, T2*-weighted GRE and QSM. Research use only."""

__version__ = "0.1.0"
