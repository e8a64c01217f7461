"""The tooling of the book: the door to Snakemake, figures and tables, pages, recorded runs and their verification."""
