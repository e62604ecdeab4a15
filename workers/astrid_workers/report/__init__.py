"""Pictures and pages of what was measured: self-contained HTML that needs no network and no script."""
