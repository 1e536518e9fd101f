"""One target, one file. Optional modules are imported when an exporter that needs them is constructed."""
