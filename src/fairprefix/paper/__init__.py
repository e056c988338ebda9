"""The evaluation of DLPM and D2LPM (arXiv 2501.14312), reproduced in virtual time, and extended.

    fairprefix paper --quick --out out/paper

What the paper does not state comes from one set of rules (`fairprefix.paper.rules`), the same for all figures.
"""
