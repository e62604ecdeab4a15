"""The fourth stage: candidates are classified; what passes becomes a detection."""
