"""The fifth stage: detections become validation events, triplets and alerts for people to review."""
