"""Where samples come from: manifests, the paths in them, and fingerprints of what they name."""
