"""The ledger without the server: an exported folder, its verification, and receipts from it.

    DIR/key                          the log's public keys, one C2SP vkey a line
    DIR/checkpoint                   the signed checkpoint
    DIR/tile/<L>/<N>[.p/<W>]         the hashes of the tree
    DIR/tile/entries/<N>[.p/<W>]     the entries

The layout is C2SP tlog-tiles, as the server serves it under its log prefix, so other tools for tlog-tiles read it too.
"""

from ostiary.audit.export import paths_of, prove, render_files, write_folder
from ostiary.audit.report import Finding, Kind, Report
from ostiary.audit.verify import verify_folder

__all__ = ["Finding", "Kind", "Report", "paths_of", "prove", "render_files", "verify_folder", "write_folder"]
