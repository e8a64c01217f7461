"""What makes the book: the door to Snakemake, its pages, recorded runs, their verification. No notebook imports it."""
