"""What training many small networks costs here and elsewhere; `make bench` runs it."""
