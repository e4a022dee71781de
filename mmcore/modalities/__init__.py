"""One file per modality: image, audio, text."""
