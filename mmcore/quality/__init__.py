"""What is wrong with a data set that each sample by itself does not show: duplicates, leakage, drift; the data card."""
