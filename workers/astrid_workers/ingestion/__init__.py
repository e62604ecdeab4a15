"""The first stage: payloads are checked, frames fetched and described, and an observation row made."""
