"""One module per challenge; ``medseg.submission`` states their contract."""
