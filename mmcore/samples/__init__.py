"""Sample data sets, made on the spot: what a first run works on."""
