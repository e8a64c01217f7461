"""From a trained generator and a folder of pictures to a small student: what `i2i compress` does."""
