"""Makes pages out of plain data: one HTML file each, that needs no network.

A page's kind is the name of a script in the top-level folder ``web``; ``build_backend/pages.py``
bundles these scripts into ``assets``.
"""

from penstock.pages.document import page, plain, write_page

__all__ = ["page", "plain", "write_page"]
